"""Answers to slides: piece by piece into a TIFF of tiles and levels, which is never held whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from counterpoise.data.sources.base import IGNORE
from counterpoise.errors import ConfigError, MissingExtraError, RunError
from counterpoise.system.files import replacing
from counterpoise.tasks.painting import names_of, shares_of
from counterpoise.tasks.sliding import pieces

if TYPE_CHECKING:
    from counterpoise.data.slide_file import Slide
    from counterpoise.models.network import VisionModel

TILE = 512
_SMALLEST = 1024  # of the longer edge; levels are made down to it


class Painter(Protocol):
    """What differs between tasks whose answers are maps."""

    sigmoid: ClassVar[bool]

    def mask_of(self, model: VisionModel, logits: Tensor) -> Tensor:
        """What is drawn of logits [C, h, w]: classes, or the yes of each question."""

    def mask_files(self, model: VisionModel) -> list[str]:
        """What the files of a mask are called behind a picture's name."""


def draw(
    task: Painter, model: VisionModel, slide: Slide, name: str, out: Path | None, overwrite: bool
) -> dict[str, Any]:
    """Answer a slide: see `Task.draw_slide`."""
    if model.scenes.window is None:
        raise ConfigError("Slides are looked at through a window, and the student has none: --window HEIGHT WIDTH.")
    if model.scenes.reduction != 1:
        raise ConfigError("The student reduces scenes (data.scenes.reduction), and slides have levels for that.")
    files = [] if out is None else [out / f"{name}-{kind.replace('.png', '.tif')}" for kind in task.mask_files(model)]
    there = [file for file in files if file.exists()]
    if there and not overwrite:
        raise RunError(f"{there[0]} is there already: give --overwrite, or another --out.")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    count = len(names_of(model)) if task.sigmoid else 1
    with tempfile.TemporaryDirectory(dir=out, prefix=".slide-") as folder:
        layers = [Scratch(Path(folder) / str(number), slide.size) for number in range(count if files else 0)]
        counts = torch.zeros(len(names_of(model)) if task.sigmoid else IGNORE + 1, dtype=torch.int64)
        with torch.inference_mode():
            ask = partial(_asked, model)
            for piece in pieces(ask, slide, model.scenes, model.num_classes, model.mean.device):
                mask = task.mask_of(model, piece.logits)
                if task.sigmoid:
                    counts += mask.flatten(1).sum(1)
                else:
                    counts += torch.bincount(mask.flatten(), minlength=len(counts))
                shown = mask.to(torch.uint8) * 255 if task.sigmoid else mask[None]
                for layer, values in zip(layers, shown, strict=False):
                    layer.put(piece.rows, piece.columns, values.numpy())
        for file, layer in zip(files, layers, strict=True):
            with replacing(file) as temporary:
                write(temporary, layer, slide.mpp)
            layer.close()
    told: dict[str, Any] = {"height": slide.size[0], "width": slide.size[1], "level": slide.level}
    told |= shares_of(model, counts, slide.size[0] * slide.size[1])
    if files:
        told |= {"masks": list(map(str, files))} if task.sigmoid else {"mask": str(files[0])}
    return told


def _asked(model: VisionModel, images: Tensor) -> Tensor:
    logits: Tensor = model(images)
    return logits


class Scratch:
    """Bytes [H, W] in a file, written by parts and read by rows."""

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        self.size = size
        self.file: BinaryIO = path.open("w+b")
        self.file.truncate(size[0] * size[1])

    def put(self, rows: slice, columns: slice, values: NDArray[np.uint8]) -> None:
        """Write a part."""
        for row, line in zip(range(rows.start, rows.stop), values, strict=True):
            self.file.seek(row * self.size[1] + columns.start)
            self.file.write(line.tobytes())

    def rows(self, top: int, count: int, step: int) -> NDArray[np.uint8]:
        """Every `step`-th pixel of every `step`-th row, from row `top` of what that leaves on."""
        shown = range(top * step, min(self.size[0], (top + count) * step), step)
        lines = []
        for row in shown:
            self.file.seek(row * self.size[1])
            lines.append(np.frombuffer(self.file.read(self.size[1]), np.uint8)[::step])
        return np.stack(lines)

    def close(self) -> None:
        """Let go of the file."""
        self.file.close()


def write(path: Path, layer: Scratch, mpp: tuple[float, float] | None) -> None:
    """A TIFF of gray tiles, with smaller levels behind it of every second pixel of the one before.

    Raises MissingExtraError.
    """
    try:
        import imagecodecs  # noqa: F401
        import tifffile
    except ImportError:
        raise MissingExtraError("Writing masks of slides", "slides") from None
    steps = [1]
    while max(layer.size) / steps[-1] > _SMALLEST:
        steps.append(2 * steps[-1])
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for step in steps:
            height, width = (-(-side // step) for side in layer.size)
            further: dict[str, Any] = {}
            if mpp is not None:
                per_cm = tuple(1e4 / (side * step) for side in reversed(mpp))
                further = {"resolution": per_cm, "resolutionunit": "CENTIMETER"}
            file.write(
                _tiles(layer, (height, width), step),
                shape=(height, width),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="zlib",
                photometric="minisblack",
                subfiletype=int(step > 1),
                metadata=None,
                **further,
            )


def _tiles(layer: Scratch, size: tuple[int, int], step: int) -> Iterator[NDArray[np.uint8]]:
    for top in range(0, size[0], TILE):
        band = layer.rows(top, min(TILE, size[0] - top), step)
        for left in range(0, size[1], TILE):
            tile = np.zeros((TILE, TILE), np.uint8)
            part = band[:, left : left + TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile
