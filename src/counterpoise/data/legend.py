"""What the values and colors of mask files mean, and the one place where such a file becomes classes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from counterpoise.data.images import CorruptImage
from counterpoise.data.sources.masks import IGNORE
from counterpoise.errors import ConfigError, DataError

VOID_NAMES = frozenset({"void", "ignore", "ignored", "unlabeled", "unlabelled"})

_NAME_AND_COLOR = re.compile(r"(.*\S)" + r"[\s,;]+(\d+)" * 3)
_FORMATS = ("PNG", "BMP", "GIF", "TIFF")
_UNKNOWN = 254  # in tables only: at most 254 classes leave it free


@dataclass(frozen=True)
class Legend:
    """What the values of mask files mean: a row for each line of the classes file.

    Attributes:
        names: of all rows, void among them.
        colors: RGB of each row, or nothing.
        void: the rows that are void.
        ignore: a value of index masks that is void, too.
        file: the classes file.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    void: frozenset[int]
    ignore: int | None
    file: str

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names without void."""
        return tuple(name for row, name in enumerate(self.names) if row not in self.void)

    @cached_property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """The colors of `classes`, or nothing."""
        return tuple(color for row, color in enumerate(self.colors) if row not in self.void)

    @cached_property
    def targets(self) -> NDArray[np.uint8]:
        """uint8 [rows], the class that each row is; IGNORE for void."""
        kept = np.array([row not in self.void for row in range(len(self.names))])
        return np.where(kept, np.cumsum(kept) - 1, IGNORE).astype(np.uint8)

    @cached_property
    def values(self) -> list[int]:
        """What each row is in a gray or palette mask."""
        return [color[0] for color in self.colors] if self.colored_gray else list(range(len(self.names)))

    @cached_property
    def of_values(self) -> NDArray[np.uint8]:
        """uint8 [256], the class that each value of a gray or palette mask is."""
        table = np.full(256, _UNKNOWN, dtype=np.uint8)
        table[self.values] = self.targets
        if self.ignore is not None:
            table[self.ignore] = IGNORE
        return table

    @cached_property
    def colored_gray(self) -> bool:
        """Whether all colors are grays, such as 0 and 255, which gray masks then hold in place of indices."""
        return bool(self.colors) and all(len(set(color)) == 1 for color in self.colors)

    @cached_property
    def by_color(self) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """int32 [rows], the colors as one number each, ascending; uint8 [rows], the class of each."""
        packed = _pack(np.array(self.colors, dtype=np.uint8))
        order = np.argsort(packed)
        return packed[order], self.targets[order]


def read_legend(file: Path, ignore: int | None = None) -> Legend:
    """Read a classes file: a class a line, by its name, or by its name and three numbers.

    Args:
        ignore: value in the masks that is void; a class of this value becomes void.

    Raises:
        DataError: the file is missing or malformed.
        ConfigError: `ignore` is not 0 to 255.
    """
    if ignore is not None and not 0 <= ignore <= 255:
        raise ConfigError(f"data.options.ignore must be 0 to 255, a value in the masks, got {ignore}.")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise DataError(
            f"Classes file {file} cannot be read: {reason}. Expected one class a line: its name, or name and color "
            "(road 128 64 128). Set data.options.classes to another file."
        ) from None
    matches = [_NAME_AND_COLOR.fullmatch(line) for line in lines]
    names: list[str] = []
    colors: list[tuple[int, int, int]] = []
    for number, (line, match) in enumerate(zip(lines, matches, strict=True), 1):
        where = f"Line {number} of {file}"
        if not line:
            raise DataError(f"{where} is empty; every line is a class, and the first is index 0.")
        if (match is None) != (matches[0] is None):
            raise DataError(f"{where}, '{line}': either all classes have a color (three numbers) or none has.")
        name = match[1].rstrip(",;") if match else line
        if match:
            red, green, blue = (int(value) for value in match.groups()[1:])
            if max(red, green, blue) > 255:
                raise DataError(f"{where}, '{line}': colors are three numbers of 0 to 255.")
            if (red, green, blue) in colors:
                raise DataError(
                    f"{where}, '{line}': this color is that of '{names[colors.index((red, green, blue))]}'."
                )
            colors.append((red, green, blue))
        if name in names:
            raise DataError(f"{where}: class '{name}' is there twice.")
        names.append(name)
    every = Legend(tuple(names), tuple(colors), frozenset(), ignore, os.fspath(file))
    void = frozenset(
        row for row in range(len(names)) if names[row].lower() in VOID_NAMES or every.values[row] == ignore
    )
    if not 0 < len(names) - len(void) <= _UNKNOWN or len(names) > 256:
        raise DataError(f"{file} names {len(names) - len(void)} classes besides void; expected 1 to {_UNKNOWN}.")
    return replace(every, void=void)


def read_mask(path: Path, legend: Legend) -> Tensor:
    """Read a mask file into classes: uint8 [H, W], IGNORE where void.

    Raises:
        CorruptImage: the file cannot be read.
        DataError: it is no 8-bit mask, holds a value or color that is no class, or is all void.
    """
    values = _pixels(path, legend)
    if values.ndim == 2:
        classes = legend.of_values[values]
        if (classes == _UNKNOWN).any():
            raise _beyond(path, values[classes == _UNKNOWN], legend)
    else:
        if not legend.colors:
            raise DataError(
                f"Mask {path} holds colors, and {legend.file} names none: write the color behind each class, as in "
                f"'{legend.names[0]} 128 64 128'."
            )
        keys, targets = legend.by_color
        packed = _pack(values)
        at = np.searchsorted(keys, packed).clip(max=len(keys) - 1)
        known = keys[at] == packed
        if not known.all():
            raise _unknown_color(path, values[~known], legend)
        classes = targets[at]
    if (classes == IGNORE).all():
        raise DataError(f"Mask {path} is all void: no pixel has a class. Leave the image out, or mend its mask.")
    return torch.from_numpy(classes)


def _pixels(path: Path, legend: Legend) -> NDArray[np.uint8]:
    """What a mask file holds: uint8 [H, W], indices, or uint8 [H, W, 3], colors.

    A palette mask holds indices, unless all colors that it shows are among those of the classes: programs that
    shrink files turn colors into palettes of any order.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            raw = _raw_mode(image)
            image.load()
            mode, palette = image.mode, image.getpalette("RGB")
            values: NDArray[np.uint8] = np.asarray(image)
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise CorruptImage(os.fspath(path), f"it is not a picture ({', '.join(_FORMATS)})") from None
    except Exception as error:  # Pillow's decoders raise many kinds of errors for damaged files
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise CorruptImage(os.fspath(path), reason.rstrip(".")) from error
    if ";16" in raw or mode in ("I", "F"):
        kind = f"{16 if ';16' in raw else 32}-bit"
        raise DataError(f"Mask {path} is {kind}; masks are 8-bit: class indices (gray or palette PNG) or RGB colors.")
    if mode in ("LA", "RGBA"):
        if (values[..., -1] != 255).any():
            raise DataError(f"Mask {path} has transparent pixels; a mask has a class or void in every one.")
        mode, values = mode[:-1], values[..., 0] if mode == "LA" else values[..., :3]
    if mode == "P" and legend.colors and palette:
        table = np.zeros((256, 3), dtype=np.uint8)
        table.flat[: len(palette)] = palette
        if {tuple(color) for color in table[np.unique(values)].tolist()} <= set(legend.colors):
            return table[values]
    if mode == "1":
        return values.astype(np.uint8) * (255 if legend.colored_gray else 1)
    if mode in ("L", "P"):
        # Pillow spreads grays of 2 and 4 bits over 0 to 255.
        return values if legend.colored_gray else values // {"L;2": 85, "L;4": 17}.get(raw, 1)
    if mode == "RGB":
        return values
    raise DataError(f"Mask {path} is of the mode {mode}; masks hold class indices (gray or palette PNG) or RGB colors.")


def _raw_mode(image: Image.Image) -> str:
    """How Pillow's decoder calls the layout of the pixels in the file, or nothing."""
    tiles: list[Any] = getattr(image, "tile", [])
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _pack(colors: NDArray[np.uint8]) -> NDArray[np.int32]:
    wide = colors.astype(np.int32)
    packed: NDArray[np.int32] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return packed


def _beyond(path: Path, values: NDArray[np.uint8], legend: Legend) -> DataError:
    counts = np.bincount(values)
    first = int(values.max())
    if legend.colored_gray:
        expected = f"the grays of {legend.file} are {', '.join(map(str, legend.values))}"
    else:
        expected = f"{legend.file} names the classes 0 to {len(legend.names) - 1}"
    return DataError(
        f"Mask {path} holds the value {first} ({counts[first]} pixels), and {expected}. "
        f"If {first} stands for void, set data.options.ignore to {first}."
    )


def _unknown_color(path: Path, colors: NDArray[np.uint8], legend: Legend) -> DataError:
    found, counts = np.unique(colors, axis=0, return_counts=True)
    most = found[counts.argmax()]
    distances = ((np.array(legend.colors) - most.astype(np.int64)) ** 2).sum(1)
    row = int(distances.argmin())
    red, green, blue = most.tolist()
    others = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return DataError(
        f"Mask {path} holds the color {red} {green} {blue} ({counts.max()} pixels){others}, unknown to "
        f"{legend.file}. The nearest is '{legend.names[row]}', {' '.join(map(str, legend.colors[row]))}."
    )
