"""The one place where a mask file becomes classes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from counterpoise import decoding
from counterpoise.data.images import AS_USUAL
from counterpoise.data.label_map import UNKNOWN, LabelMap, pack
from counterpoise.data.mask_meaning import Meant, of_gray, of_palette
from counterpoise.data.sources.base import IGNORE
from counterpoise.decoding import Reading, Unreadable
from counterpoise.errors import CorruptImage, DataError, UnfitFileError, UnfitMask, damage
from counterpoise.system.files import regular

LOSSLESS = (".png", ".bmp", ".gif", ".tif", ".tiff")
_FORMATS = ("PNG", "BMP", "GIF", "TIFF")
_SPECKS = 4  # values that are scattered over a mask, from which on it is taken for one that was saved with loss


@dataclass(frozen=True)
class MaskBytes:
    """A mask file whose bytes are in memory, and what it is called."""

    content: bytes
    name: str

    def __fspath__(self) -> str:
        return self.name

    def __str__(self) -> str:
        return self.name


MaskPath: TypeAlias = Path | MaskBytes


def read_mask(path: MaskPath, label_map: LabelMap, reading: Reading = AS_USUAL) -> Tensor:
    """Read a mask file into classes: uint8 [H, W], IGNORE where void. Of `reading`, its limit of megapixels counts.

    Raises:
        CorruptImage: the file cannot be read, or is all void.
        DataError: it is no 8-bit mask, or holds a value or color that is no class.
    """
    values, aside = _pixels(path, label_map, reading)
    try:
        classes = (classes_of if values.ndim == 2 else _classes_of_colors)(path, values, label_map)
    except DataError as error:
        raise DataError(f"{error} {aside}".rstrip()) from None
    if (classes == IGNORE).all():
        raise UnfitMask(os.fspath(path), "is all void: no pixel has a class. Leave the image out, or mend its mask.")
    return torch.from_numpy(classes)


def classes_of(path: MaskPath, values: NDArray[np.uint8], label_map: LabelMap) -> NDArray[np.uint8]:
    """The class of each value uint8 [H, W] of a mask, IGNORE where void. Raises DataError for one that is none."""
    classes: NDArray[np.uint8] = label_map.of_values[values]
    if (classes == UNKNOWN).any():
        raise _beyond(path, values, label_map)
    return classes


def read_yes(path: MaskPath, void: int | None, reading: Reading = AS_USUAL) -> Tensor:
    """Read the mask of one question: uint8 [H, W] of 1 where it is 255 or 1, 0 where it is 0, IGNORE where void.

    Args:
        void: value that is void, or None.

    Raises:
        CorruptImage: the file cannot be read. DataError: it holds other values, or colors.
    """
    values, _ = _pixels(path, replace(_YES_OR_NO, ignore=void), reading)
    if values.ndim == 3:
        raise DataError(f"Mask {path} holds colors, where one of a question is gray: 0 is no, 255 (or 1) is yes.")
    known = {0: 0, 1: 1, 255: 1} | ({} if void is None else {void: IGNORE})
    found = np.unique(values).tolist()
    if strange := [value for value in found if value not in known]:
        raise DataError(
            f"Mask {path} holds the value {strange[0]}, where that of a question holds 0 (no) and 255 or 1 (yes). If "
            f"{strange[0]} counts nowhere, set data.options.ignore to it; masks of several classes are for source "
            "masks_folder and data.questions; one that was saved with loss must be made anew."
        )
    table = np.zeros(256, dtype=np.uint8)
    table[list(known)] = list(known.values())
    return torch.from_numpy(table[values])


_YES_OR_NO = LabelMap(("no", "yes", "also yes"), (), frozenset(), None, "", (0, 255, 1))
"""What such a file holds, from which its palette is understood."""


def resized(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask uint8 [H, W] in another height and width, by the nearest pixel."""
    if mask.shape == size:
        return mask
    return torch.from_numpy(
        np.array(Image.fromarray(mask.numpy()).resize((size[1], size[0]), Image.Resampling.NEAREST))
    )


def mask_size(path: MaskPath, reading: Reading = AS_USUAL) -> tuple[int, int]:
    """Height and width that the header of a mask file promises. Raises CorruptImage."""
    with _opened(path, reading, ("JPEG",)) as image:
        return image.height, image.width


def contents(path: MaskPath) -> dict[tuple[int, ...], int]:
    """What a mask file holds, whatever it means: pixels by value, (v,), or by color, (r, g, b). Raises CorruptImage."""
    with _opened(path, AS_USUAL) as image:
        if image.mode not in ("L", "P", "1", "RGB", "RGBA"):
            return {}
        image.load()
        values = np.asarray(image)
    values = values[..., :3].reshape(-1, 3) if values.ndim == 3 else values.reshape(-1, 1)
    found, counts = np.unique(values.astype(np.uint8), axis=0, return_counts=True)
    return {tuple(value): count for value, count in zip(found.tolist(), counts.tolist(), strict=True)}


def read_on(path: MaskPath, reading: Reading = AS_USUAL) -> NDArray[np.bool_]:
    """Where a mask of one object is not 0: bool [H, W]. Transparency says nothing. Raises CorruptImage."""
    with _opened(_in_memory(path), reading) as image:
        image.load()
        values = np.asarray(image.convert("RGB") if image.mode in ("P", "PA") else image)
        if image.mode in ("LA", "RGBA"):
            values = values[..., :-1]
    on: NDArray[np.bool_] = values != 0 if values.ndim == 2 else (values != 0).any(-1)
    return on


@contextmanager
def _opened(path: MaskPath, reading: Reading, further: tuple[str, ...] = ()) -> Iterator[Image.Image]:
    """A mask file, its header read; what goes wrong with it while it is in use becomes CorruptImage."""
    try:
        with decoding.opened(_file(path), reading, (*_FORMATS, *further)) as image:
            yield image
    except (MemoryError, DataError):
        raise
    except Unreadable as error:
        raise CorruptImage(os.fspath(path), str(error)) from None
    except UnfitFileError as error:
        raise CorruptImage(os.fspath(path), f"it {error.strerror}") from None
    except UnidentifiedImageError:
        raise CorruptImage(os.fspath(path), _no_mask(path)) from None
    except Exception as error:  # Pillow's decoders raise many kinds of errors for damaged files
        raise CorruptImage(os.fspath(path), getattr(error, "strerror", None) or damage(error)) from error


def _file(path: MaskPath) -> Path | io.BytesIO:
    return io.BytesIO(path.content) if isinstance(path, MaskBytes) else regular(path)


def _in_memory(path: MaskPath) -> MaskPath:
    """The mask with its bytes: of a file, Pillow asks for as much as a damaged one says, and memory is set aside."""
    if isinstance(path, MaskBytes):
        return path
    try:
        return MaskBytes(regular(path).read_bytes(), os.fspath(path))
    except OSError:  # which is told where it is opened
        return path


def _no_mask(path: MaskPath) -> str:
    """Why Pillow finds none of the formats of masks."""
    try:
        with Image.open(_file(path), formats=("JPEG", "WEBP", "AVIF")) as image:
            return f"it is a {image.format} file, whatever its name says, and that changes values; {SAVED_WITH_LOSS}"
    except Exception:  # whatever it is, it is no picture
        return f"it is not a picture ({', '.join(_FORMATS)})"


SAVED_WITH_LOSS = (
    "make the masks anew, without loss (PNG), or, where classes are far apart in value or color, set "
    "data.options.lossy to true: each pixel is then of the nearest class"
)
"""What to do about a mask that was saved as JPEG."""


def _pixels(path: MaskPath, label_map: LabelMap, reading: Reading) -> Meant:
    """What a mask file holds. Raises CorruptImage, DataError."""
    with _opened(_in_memory(path), reading, ("JPEG",) if label_map.lossy else ()) as image:
        raw = decoding.raw_mode(image)
        image.load()
        values: NDArray[np.uint8] = np.asarray(image)
        mode, palette = image.mode, image.getpalette("RGB")
    if ";16" in raw or mode in ("I", "F"):
        kind = f"{16 if ';16' in raw else 32}-bit"
        raise DataError(f"Mask {path} is {kind}; masks are 8-bit: class indices (gray or palette PNG) or RGB colors.")
    if mode in ("LA", "RGBA"):
        if (values[..., -1] != 255).any():
            raise DataError(f"Mask {path} has transparent pixels; a mask has a class or void in every one.")
        mode, values = mode[:-1], values[..., 0] if mode == "LA" else values[..., :3]
    if mode == "P":
        return of_palette(path, values, palette or [], label_map)
    if mode == "1":
        return of_gray(path, values.astype(np.uint8), 255, label_map)
    if mode == "L":
        step = {"L;2": 85, "L;4": 17}.get(raw, 1)  # Pillow spreads grays of 2 and 4 bits over 0 to 255
        return of_gray(path, values // step, step, label_map)
    if mode == "RGB":
        if not label_map.colors and label_map.lossy:
            return Meant(np.asarray(np.rint(values.mean(2)), dtype=np.uint8))
        gray = not label_map.colors and (values[..., :1] == values).all()
        return Meant(values[..., 0] if gray else values)
    raise DataError(f"Mask {path} is of the mode {mode}; masks hold class indices (gray or palette PNG) or RGB colors.")


def _classes_of_colors(path: MaskPath, values: NDArray[np.uint8], label_map: LabelMap) -> NDArray[np.uint8]:
    """As `classes_of`, of colors uint8 [H, W, 3]."""
    if not label_map.colors:
        raise _no_colors(path, values, label_map)
    classes = label_map.of_colors(values, nearest=label_map.lossy)
    if (classes == UNKNOWN).any():
        raise _unknown_color(path, values, classes != UNKNOWN, label_map)
    return classes


def _scattered(values: NDArray[Any], strange: NDArray[np.bool_], label_map: LabelMap) -> bool:
    """Whether many of the strange values [H, W] have hardly a neighbor alike, as after JPEG or smooth resizing."""
    alike = np.zeros(values.shape, dtype=bool)
    alike[:, 1:] |= values[:, 1:] == values[:, :-1]
    alike[:, :-1] |= values[:, 1:] == values[:, :-1]
    alike[1:] |= values[1:] == values[:-1]
    alike[:-1] |= values[1:] == values[:-1]
    found, inverse, counts = np.unique(values[strange], return_inverse=True, return_counts=True)
    together = np.bincount(inverse.ravel(), weights=alike[strange])
    specks = int((together < 0.75 * counts).sum())
    return specks >= _SPECKS and specks > len(found) / 2 and len(found) > 2 * len(label_map.names)


def _lossy(path: MaskPath, count: int, what: str) -> DataError:
    return DataError(
        f"Mask {path} holds {count} {what}, many of them scattered along edges: it looks as if it had been saved as "
        f"JPEG, or resized with smoothing. None of them is void: {SAVED_WITH_LOSS}."
    )


def _beyond(path: MaskPath, values: NDArray[np.uint8], label_map: LabelMap) -> DataError:
    counts = np.bincount(values.ravel(), minlength=256)
    if _scattered(values, label_map.of_values[values] == UNKNOWN, label_map):
        return _lossy(path, int((counts > 0).sum()), "values")
    found = np.flatnonzero(counts)
    strange = [int(value) for value in found if label_map.of_values[value] == UNKNOWN]
    first = strange[-1]
    if label_map.colored_gray:
        expected = f"the grays of {label_map.file} are {', '.join(map(str, label_map.values))}"
    elif label_map.given:
        expected = f"the values in {label_map.file} are {', '.join(map(str, label_map.values))}"
    else:
        expected = f"{label_map.file} names the classes 0 to {len(label_map.names) - 1}"
    return DataError(
        f"Mask {path} holds the value {first} ({counts[first]} pixels), and {expected}. "
        f"{_as_class(found, strange, label_map)} If {first} is void instead, "
        f"and counts nowhere, set data.options.ignore to {first}."
    )


def _as_class(found: NDArray[np.int64], strange: list[int], label_map: LabelMap) -> str:
    """How to say that a value is a class: with the names that do not occur, where there are as many."""
    rows = range(len(label_map.names))
    left = [row for row in rows if row not in label_map.void and label_map.values[row] not in found]
    if not left:
        lines = "the first line is 0, or a value follows each name"
        return f"If {strange[-1]} is a class, name it in {label_map.file}: {lines}."
    values = list(label_map.values)
    if len(left) == len(strange):
        for row, value in zip(left, strange, strict=True):
            values[row] = value
        shown = [f"'{label_map.names[row]} {values[row]}'" for row in rows]
        lines = ", ".join(shown if len(shown) <= 6 else [*shown[:3], "...", *shown[-2:]])
    else:
        lines = f"'{label_map.names[left[0]]} {strange[0]}' and so on"
    return f"If it is a class, write the value behind every name in {label_map.file}: {lines}."


def _no_colors(path: MaskPath, values: NDArray[np.uint8], label_map: LabelMap) -> DataError:
    if _scattered(pack(values), np.ones(values.shape[:2], dtype=bool), label_map):
        return _lossy(path, len(np.unique(pack(values))), "colors")
    found, counts = np.unique(values.reshape(-1, 3), axis=0, return_counts=True)
    shown = [" ".join(map(str, found[at])) for at in counts.argsort()[::-1][:6]]
    rest = f" and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    return DataError(
        f"Mask {path} holds colors ({', '.join(shown)}{rest}), and {label_map.file} names none: write the color behind "
        f"each class, as in '{label_map.names[0]} {shown[0]}'."
    )


def _unknown_color(
    path: MaskPath, values: NDArray[np.uint8], known: NDArray[np.bool_], label_map: LabelMap
) -> DataError:
    if _scattered(pack(values), ~known, label_map):
        return _lossy(path, len(np.unique(pack(values))), "colors")
    found, counts = np.unique(values[~known], axis=0, return_counts=True)
    most = found[counts.argmax()]
    distances = ((np.array(label_map.colors) - most.astype(np.int64)) ** 2).sum(1)
    row = int(distances.argmin())
    red, green, blue = most.tolist()
    others = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return DataError(
        f"Mask {path} holds the color {red} {green} {blue} ({counts.max()} pixels){others}, unknown to "
        f"{label_map.file}. The nearest is '{label_map.names[row]}', {' '.join(map(str, label_map.colors[row]))}. "
        f"If it is a class, add its line, 'NAME {red} {green} {blue}'; where it counts nowhere, NAME is void."
    )
