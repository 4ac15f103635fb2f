"""Images that lie in memory as arrays, all of one size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from counterpoise.data.blocks import blocks_of_part
from counterpoise.data.images import as_gray
from counterpoise.data.sources.base import ImageSet
from counterpoise.decoding import Reading
from counterpoise.errors import DataError


class ArraySet(ImageSet):
    """Images of one size held in memory.

    Args:
        images: uint8 [N, channels, H, W].
        names: a name for each image, or one word for all ('test' makes 'test #0', 'test #1', ...).
        fingerprint: that of the files which the images were decoded from.
        masks: of scenes, uint8 [N, H, W], classes and IGNORE.

    Attributes:
        spacings: what `spacing` answers, for each image; None where it is known of none.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        classes: Sequence[str],
        names: Sequence[str] | str = "image",
        corrupt: Sequence[str] = (),
        fingerprint: str | None = None,
        masks: Tensor | None = None,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or not images.shape[1] or len(images) != len(labels):
            given = f"{images.dtype} {list(images.shape)} with {len(labels)} labels"
            raise DataError(f"Images must be uint8 [N, channels, H, W] with N labels, got {given}.")
        if masks is not None and (masks.dtype != torch.uint8 or masks.shape != (len(images), *images.shape[2:])):
            given = f"{masks.dtype} {list(masks.shape)} for images {list(images.shape)}"
            raise DataError(f"Masks must be uint8 [N, H, W] of the images' size, got {given}.")
        super().__init__(labels, classes, corrupt)
        self.images = images
        self._masks = masks
        self.masked = masks is not None
        self._names = names
        self.spacings: Sequence[tuple[float, float] | None] | None = None
        if fingerprint is not None:
            self._fingerprint = fingerprint

    @classmethod
    def of_scenes(cls, images: Tensor, masks: Tensor, classes: Sequence[str], names: str = "image") -> ArraySet:
        """Scenes that all have a mask; arguments as above."""
        return cls(images, torch.zeros(len(images), dtype=torch.int64), classes, names, masks=masks)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    def read_as(self, reading: Reading) -> None:
        """Colors become gray where that is asked for. Raises DataError for any other number of channels."""
        super().read_as(reading)
        if reading.intensity is not None:
            where = self.origin or self.name(0)
            raise DataError(f"{where}: data.intensity is of the values in files, and these images have 8 bits.")
        if self.channels == 3 and reading.channels == 1:
            self.images = as_gray(self.images)
        if self.channels != reading.channels:
            raise DataError(
                f"{self.origin or self.name(0)}: its images have {self.channels} channels, and data.channels is "
                f"{reading.channels}."
            )
        if self.split_from is not None:
            self.split_from.read_as(reading)

    @property
    def masks(self) -> Tensor:
        """Of scenes, uint8 [N, H, W]."""
        assert self._masks is not None
        return self._masks

    def name(self, index: int) -> str:
        return f"{self._names} #{index}" if isinstance(self._names, str) else self._names[index]

    def spacing(self, index: int) -> tuple[float, float] | None:
        return None if self.spacings is None else self.spacings[index]

    def read(self, index: int) -> Tensor:
        return self.images[index]

    def read_mask(self, index: int) -> Tensor:
        return self.masks[index] if self.masked else super().read_mask(index)

    def extent(self, index: int) -> tuple[int, int]:
        return self.images.shape[2], self.images.shape[3]

    @cached_property
    def extents(self) -> Tensor:
        return torch.tensor(self.images.shape[2:]).expand(len(self), 2)

    @cached_property
    def common_extent(self) -> tuple[int, int] | None:
        return self.extent(0) if len(self) else None

    def subset(self, indices: Tensor) -> ArraySet:
        names = [self.name(index) for index in indices.tolist()]
        masks = self.masks[indices] if self.masked else None
        part = ArraySet(self.images[indices], self.labels[indices], self.classes, names, masks=masks)
        part.reading, part.questions = self.reading, self.questions
        part.spacings = None if self.spacings is None else [self.spacings[index] for index in indices.tolist()]
        part.blocks = blocks_of_part(self.blocks, indices)
        part.groups = None if self.groups is None else self.groups[indices]
        part.group_names = self.group_names
        return part

    def identity(self, index: int) -> bytes:
        arrays = [self.images[index], *([self.masks[index]] if self.masked else [])]
        size = f"{self.images.shape[2]}x{self.images.shape[3]} "
        return size.encode() + b"".join(array.contiguous().numpy().tobytes() for array in arrays)
