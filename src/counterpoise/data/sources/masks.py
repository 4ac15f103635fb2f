"""Sets of images with a mask each: a class for every pixel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from counterpoise.data.sources.base import (
    IGNORE,
    UNLABELED,
    ArraySet,
    Concatenation,
    ImageSet,
    Subset,
    extent_in_memory,
)
from counterpoise.data.sources.masks_census import Census, census
from counterpoise.errors import CorruptImage, DataError


class MaskedSet(ImageSet):
    """Images by index, with masks. `labels` only says which images have one: 0, or UNLABELED (-1) where there is none.

    Attributes:
        classes: names of the classes 0, 1, ..., without void.
    """

    @abstractmethod
    def read_mask(self, index: int) -> Tensor:
        """The mask as uint8 [H, W], as large as the image: classes, and IGNORE (255) where void.

        All void where the image is UNLABELED.

        Raises:
            CorruptImage: the mask cannot be read.
            DataError: it does not fit the image or the classes.
        """

    def mask_file(self, index: int) -> Path | None:
        """What the mask is decoded from; None where there is none, or it lies in memory."""
        return None

    @property
    def counted(self) -> Census:
        """How the pixels of its masks divide over the classes; files are read once."""
        return self._counted

    @cached_property
    def _counted(self) -> Census:
        return census(self)

    def subset(self, indices: Tensor) -> MaskedSet:
        return MaskedSubset(self, indices)

    def in_order(self, classes: Sequence[str]) -> MaskedSet:
        if tuple(classes) != self.classes:
            raise DataError(f"Masks hold the numbers of {list(self.classes)[:5]}, so that their order is fixed.")
        return self

    @property
    def kind(self) -> str:
        return "scenes"

    def per_class(self) -> None:
        return None

    def census(self) -> str:
        unlabeled = int((self.labels == UNLABELED).sum())
        missing = f"{unlabeled:,} without a mask" if unlabeled else ""
        return ", ".join(part for part in (missing, self.counted.text()) if part)

    def _decoded(self, limit_bytes: float, on_corrupt: Literal["stop", "skip"]) -> MaskedSet:
        return in_memory(self, limit_bytes, on_corrupt)

    def _with(self, unlabeled: ImageSet) -> MaskedSet:
        return concatenate(self, unlabeled)


class MaskedSubset(Subset, MaskedSet):
    """Some images of another set with their masks, in an order of their own."""

    def __init__(self, whole: MaskedSet, indices: Tensor) -> None:
        super().__init__(whole, indices)
        self._masked = whole

    def read_mask(self, index: int) -> Tensor:
        return self._masked.read_mask(int(self._indices[index]))

    def mask_file(self, index: int) -> Path | None:
        return self._masked.mask_file(int(self._indices[index]))


class MaskedArraySet(ArraySet, MaskedSet):
    """Images of one size held in memory, with their masks.

    Args:
        images: uint8 [N, 3, H, W].
        masks: uint8 [N, H, W], classes and IGNORE.
        labels: int64 [N], 0 or UNLABELED; default: 0 everywhere.
        names, corrupt, fingerprint: as for ArraySet.
    """

    def __init__(
        self,
        images: Tensor,
        masks: Tensor,
        classes: Sequence[str],
        names: Sequence[str] | str = "image",
        corrupt: Sequence[str] = (),
        fingerprint: str | None = None,
        labels: Tensor | None = None,
    ) -> None:
        if labels is None:
            labels = torch.zeros(len(images), dtype=torch.int64)
        super().__init__(images, labels, classes, names, corrupt, fingerprint)
        if masks.dtype != torch.uint8 or masks.shape != (len(images), *images.shape[2:]):
            given = f"{masks.dtype} {list(masks.shape)} for images {list(images.shape)}"
            raise DataError(f"Masks must be uint8 [N, H, W] of the images' size, got {given}.")
        self.masks = masks

    def read_mask(self, index: int) -> Tensor:
        return self.masks[index]

    @property
    def counted(self) -> Census:
        self.__dict__.pop("_counted", None)  # what lies in memory may have been changed, and is soon counted
        return self._counted

    def subset(self, indices: Tensor) -> MaskedArraySet:
        names = [self.name(index) for index in indices.tolist()]
        part = MaskedArraySet(
            self.images[indices], self.masks[indices], self.classes, names, labels=self.labels[indices]
        )
        part.reading = self.reading
        return part

    def identity(self, index: int) -> bytes:
        return super().identity(index) + self.masks[index].contiguous().numpy().tobytes()


class MaskedConcatenation(Concatenation, MaskedSet):
    """Several sets, one after the other; those without masks are UNLABELED."""

    def read_mask(self, index: int) -> Tensor:
        part, inner = self._find(index)
        if isinstance(part, MaskedSet):
            return part.read_mask(inner)
        return torch.full(self.extent(index), IGNORE, dtype=torch.uint8)

    def mask_file(self, index: int) -> Path | None:
        part, inner = self._find(index)
        return part.mask_file(inner) if isinstance(part, MaskedSet) else None


def concatenate(labeled: MaskedSet, unlabeled: ImageSet) -> MaskedSet:
    """`labeled`, its classes kept, followed by the images of `unlabeled`, whose labels become UNLABELED."""
    labels = torch.cat([labeled.labels, torch.full((len(unlabeled),), UNLABELED)])
    return MaskedConcatenation([labeled, unlabeled], labels, labeled.classes)


def in_memory(images: MaskedSet, limit_bytes: float, on_corrupt: Literal["stop", "skip"] = "stop") -> MaskedSet:
    """Decode a set and its masks once, into memory, where all have one size and fit; else give it back as it is.

    As `base.in_memory`: a set that holds images or masks which cannot be read stays as it is.

    Args:
        limit_bytes: most bytes that pixels and masks may take.
        on_corrupt: 'stop' raises CorruptImage.
    """
    if isinstance(images, MaskedArraySet):
        return images
    extent = extent_in_memory(images, 4, limit_bytes, on_corrupt)
    if extent is None:
        return images
    pixels = torch.empty(len(images), 3, *extent, dtype=torch.uint8)
    masks = torch.empty(len(images), *extent, dtype=torch.uint8)
    for index in range(len(images)):
        try:
            image, mask = images.read(index), images.read_mask(index)
        except CorruptImage:
            if on_corrupt == "stop":
                raise
            return images
        if tuple(image.shape[1:]) != extent:  # a header that lies
            return images
        pixels[index], masks[index] = image, mask
    names = [images.name(index) for index in range(len(images))]
    held = MaskedArraySet(pixels, masks, images.classes, names, images.corrupt, images.fingerprint(), images.labels)
    held.reading = images.reading
    return held


def class_counts(images: MaskedSet) -> tuple[Tensor, Tensor]:
    """How often each class occurs: reads every mask once. One that cannot be read tells nothing; it is named later.

    Returns:
        int64 [C], pixels of each class; int64 [C], pixels that are not void in those images where the class occurs.
    """
    classes = len(images.classes)
    own, around = torch.zeros(2, classes, dtype=torch.int64)
    for index in torch.nonzero(images.labels != UNLABELED).flatten().tolist():
        try:
            counts = torch.bincount(images.read_mask(index).flatten(), minlength=IGNORE + 1)[:classes]
        except CorruptImage:
            continue
        own += counts
        around += counts.sum() * (counts > 0)
    return own, around


def class_weights(images: MaskedSet) -> Tensor:
    """Weights by which rare classes count more in cross-entropy: median frequency balancing.

    weight[c] = median(frequency) / frequency[c], where frequency[c] is the share of c among the pixels (void left out)
    of the images in which c occurs, and the median is over the classes that occur; one that never does has weight 1.
    Of an even number of frequencies the median is the mean of the middle two.

    Paper: Eigen and Fergus 2015, "Predicting depth, surface normals and semantic labels", arXiv:1411.4734.

    Returns:
        float32 [C].
    """
    own, around = class_counts(images)
    occurs = own > 0
    if not occurs.any():
        raise DataError(f"None of the {len(images)} masks holds a class, so that class weights mean nothing.")
    frequency = own[occurs].double() / around[occurs]
    weights = torch.ones(len(own))
    weights[occurs] = (frequency.quantile(0.5) / frequency).float()
    return weights
