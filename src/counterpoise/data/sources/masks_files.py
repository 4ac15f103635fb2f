"""Image files with a mask file each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from counterpoise.data.label_map import LabelMap
from counterpoise.data.mask_file import MaskPath, mask_size, read_mask, resized
from counterpoise.data.sources.files import FileSet
from counterpoise.decoding import Reading
from counterpoise.errors import CorruptImage, UnfitMask

WAYS_OUT = (
    "Bring masks to the size of their images, by the nearest pixel, with --data.options.resize_masks true, or leave "
    "these pictures out with --data.on_corrupt skip."
)
"""What to do about masks of another size."""


class MaskFiles(FileSet):
    """Image files with a mask file each, read when asked.

    Args:
        root, files: folder of the images, and their paths relative to it.
        mask_root, mask_files: the same for the masks.
        label_map: what their values mean.
        resize: bring masks of another size to that of their image, by the nearest pixel.
    """

    masked = True

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        mask_root: Path,
        mask_files: Sequence[str],
        label_map: LabelMap,
        resize: bool = False,
    ) -> None:
        super().__init__(root, files, torch.zeros(len(files), dtype=torch.int64), label_map.classes)
        self.mask_root = mask_root
        self.mask_files = tuple(mask_files)
        self.label_map = label_map
        self.resize = resize

    def mask_file(self, index: int) -> Path:
        """The file of a mask."""
        return self.mask_root / self.mask_files[index]

    def read_mask(self, index: int) -> Tensor:
        size = self.extent(index)
        return fitted(self.mask_file(index), self.label_map, self.reading, size, self.name(index), self.resize)

    def misfits(self) -> tuple[list[str], int]:
        """By headers: what is wrong with each mask that does not fit its image, and how many are resized."""
        wrong, moved = [], 0
        for index in range(len(self)):
            try:
                size, found = self.extent(index), mask_size(self.mask_file(index), self.reading)
            except CorruptImage:  # said, or left out, when it is read
                continue
            if found != size and self.resize and of_one_shape(found, size):
                moved += 1
            elif found != size:
                wrong.append(f"{self.mask_file(index)} {misfit(self.name(index), found, size, self.resize)}")
        return wrong, moved

    def identity(self, index: int) -> bytes:
        path = self.mask_root / self.mask_files[index]
        size = path.stat().st_size if path.is_file() else -1
        return super().identity(index) + os.fsencode(f" {self.mask_files[index]} {size} {self._meaning}")

    @cached_property
    def _meaning(self) -> str:
        return meaning(self.label_map, self.resize)


def meaning(label_map: LabelMap, resize: bool) -> str:
    """What tells masks that mean one thing from masks of the same bytes that mean another."""
    later = [("given", label_map.given), ("lossy", label_map.lossy), ("resize", resize)]
    marks = [mark for mark in later if mark[1]]  # sets that have none of them keep their fingerprint
    return repr((label_map.names, label_map.colors, sorted(label_map.void), label_map.ignore, *marks))


def fitted(
    path: MaskPath, label_map: LabelMap, reading: Reading, size: tuple[int, int], image: str, resize: bool
) -> Tensor:
    """The mask of an image that is called `image` and has this height and width. Raises as `ImageSet.read_mask`."""
    mask = read_mask(path, label_map, reading)
    found = mask.shape[0], mask.shape[1]
    if found != size and not (resize and of_one_shape(found, size)):
        raise UnfitMask(os.fspath(path), f"{misfit(image, found, size, resize)}. {WAYS_OUT}")
    return resized(mask, size)


def misfit(name: str, mask: tuple[int, int], image: tuple[int, int], resize: bool) -> str:
    turned = ", after the turn that its EXIF data asks for" if mask == image[::-1] else ""
    other = ", which is another shape" if resize and not of_one_shape(mask, image) else ""
    sizes = [f"{width} x {height}" for height, width in (mask, image)]
    return f"is {sizes[0]} pixels{other}, and its image {name} is {sizes[1]}{turned}"


def of_one_shape(mask: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether a mask can be resized to its image without stretching, but for rounding."""
    down, across = mask[0] / image[0], mask[1] / image[1]
    return abs(down - across) <= max(down, across) * (0.02 + 1 / min(mask))
