"""Pictures that may be large: kept as they were decoded, and taken as tensors part by part.

A picture of 100 megapixels is 400 MB as Pillow holds it and 300 MB as bytes of colors, so that each copy counts.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from counterpoise import decoding
from counterpoise.data import images
from counterpoise.data.jpeg import whole
from counterpoise.decoding import Reading
from counterpoise.system.files import regular

ALL = slice(None)
_LARGE_FILE, _PNG = 2**25, b"\x89PNG\r\n\x1a\n"


class Raster:
    """A picture by its parts.

    Args:
        image: uint8 [channels, H, W], in any order in memory, or an RGB picture of Pillow's, which stays as it is.
    """

    def __init__(self, image: Tensor | Image.Image) -> None:
        self.image = image

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        if isinstance(self.image, Tensor):
            return self.image.shape[1], self.image.shape[2]
        return self.image.height, self.image.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """As that of a tensor [channels, H, W]."""
        return (self.image.shape[0] if isinstance(self.image, Tensor) else 3, *self.size)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: tuple[slice, slice, slice]) -> Tensor:
        return self.part(place[1], place[2])[place[0]]

    def part(self, rows: slice = ALL, columns: slice = ALL) -> Tensor:
        """A part of it, or all, uint8 [channels, h, w]."""
        if isinstance(self.image, Tensor):
            return self.image[:, rows, columns].contiguous()
        (top, bottom, _), (left, right, _) = (
            part.indices(edge) for part, edge in zip((rows, columns), self.size, strict=True)
        )
        return torch.from_numpy(np.array(self.image.crop((left, top, right, bottom)))).permute(2, 0, 1).contiguous()

    def resized(self, size: tuple[int, int]) -> Raster:
        """As `images.resize`."""
        if size == self.size:
            return self
        if isinstance(self.image, Tensor):
            return Raster(images.resize(self.image, size))
        return Raster(self.image.resize((size[1], size[0]), Image.Resampling.BILINEAR))

    def reduced(self, reduction: float) -> Raster:
        """So many times smaller along either side, at least a pixel, as `segmentation_views.shrink`."""
        height, width = self.size
        return self.resized((max(1, round(height / reduction)), max(1, round(width / reduction))))

    def times_smaller(self, factor: int) -> Image.Image:
        """A picture to look at, of three channels: means of squares of so many pixels, in bands."""
        band, (height, width) = 8 * factor, self.size
        small = Image.new("RGB", (-(-width // factor), -(-height // factor)))
        for top in range(0, height, band):
            pixels = images.to_picture(images.visible(self.part(slice(top, top + band))))
            small.paste(pixels.reduce(factor), (0, top // factor))
        return small


class MaskParts(ABC):
    """A mask uint8 [H, W] by its parts.

    Attributes:
        shape: height and width.
    """

    shape: tuple[int, int]

    def __getitem__(self, place: tuple[None, slice, slice]) -> Tensor:
        """As of a tensor: a part of a batch of one."""
        return self.part(place[1], place[2])[None]

    @abstractmethod
    def part(self, rows: slice = ALL, columns: slice = ALL) -> Tensor:
        """uint8 [h, w] of classes, 255 where void. Raises CorruptImage, DataError."""

    @abstractmethod
    def whole(self) -> Tensor:
        """All of it, where that is allowed. Raises CorruptImage."""


Shown: TypeAlias = Tensor | Raster


def raster(image: Shown) -> Raster:
    """A picture that is there."""
    return image if isinstance(image, Raster) else Raster(image)


def _streamed(path: str | None, reading: Reading) -> Image.Image | None:
    """A large PNG, decoded without its bytes in memory beside it; None for others, and where it is damaged."""
    try:
        if path is None or Path(path).stat().st_size < _LARGE_FILE:
            return None
        with regular(Path(path)).open("rb") as file:
            if file.read(len(_PNG)) != _PNG:
                return None
            file.seek(0)
            found: Image.Image = decoding.taken(decoding.opened(file, reading), reading)
            return found
    except MemoryError:
        raise
    except Exception:  # what is wrong is said where it is read as any other
        return None


def raster_of(image: images.Picture | Tensor, reading: Reading = images.AS_USUAL, name: str | None = None) -> Raster:
    """The pixels of `images.pixels_of`, without copies of them. Raises as that does."""
    if reading.arrays or isinstance(image, np.ndarray | Tensor):
        return Raster(images.pixels_of(image, name, reading))
    path = os.fspath(image) if isinstance(image, str | os.PathLike) else None
    name = name or path
    found = _streamed(path, reading) or images.as_decoded(image, whole, name, reading)
    if isinstance(found, tuple):
        return Raster(found[0])
    return Raster(found if isinstance(found, Image.Image) else images.to_tensor(found))
