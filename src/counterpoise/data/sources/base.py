"""What every source of data gives: sets of images with labels, held in memory or read when asked."""

from __future__ import annotations

import bisect
import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from counterpoise.data.images import AS_USUAL, decode, header_size, to_tensor
from counterpoise.decoding import Reading
from counterpoise.errors import CorruptImage, DataError

UNLABELED = -1
IGNORE = 255
"""Void in every mask of the program, whatever number or color stands for it in the files."""


class ImageSet(ABC):
    """Images by index, with labels.

    Attributes:
        labels: int64 [N]; UNLABELED (-1) where unknown.
        classes: their names; empty where nothing is labeled.
        corrupt: names of images that were left out because they cannot be read.
    """

    def __init__(self, labels: Tensor, classes: Sequence[str], corrupt: Sequence[str] = ()) -> None:
        self.labels = labels.to(torch.int64)
        self.classes = tuple(classes)
        self.corrupt = list(corrupt)
        self.split_from: ImageSet | None = None
        """The set that this is a held-out or remaining part of, where we divided it."""
        self.positions: Tensor | None = None
        """int64 [N], where the images of a part are in `split_from`."""
        self.origin = ""
        """Where it comes from, in words: a folder, or what it was held out of."""
        self.reading = AS_USUAL
        """How files are read; set by `read_as`."""
        self.notes: list[str] = []
        """What a person must know of it and of how its files are read, a sentence each."""

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def name(self, index: int) -> str:
        """What a person calls this image: its file, or such as 'test #12'."""

    @abstractmethod
    def read(self, index: int) -> Tensor:
        """The image as uint8 [3, H, W]. Raises CorruptImage."""

    @abstractmethod
    def extent(self, index: int) -> tuple[int, int]:
        """Height and width, without decoding. Raises CorruptImage."""

    @cached_property
    def _extents(self) -> Tensor:
        return torch.tensor([self._extent_or_none(index) or (0, 0) for index in range(len(self))]).reshape(-1, 2)

    def extents(self) -> Tensor:
        """Height and width of every image, int64 [N, 2]; 0 and 0 where its header cannot be read. Read once."""
        return self._extents

    @cached_property
    def _common_extent(self) -> tuple[int, int] | None:
        common = None
        known = self.__dict__.get("_extents")
        found = map(tuple, known.tolist()) if known is not None else map(self._extent_or_none, range(len(self)))
        for extent in found:
            if extent not in (None, (0, 0)):
                if common not in (None, extent):
                    return None
                common = extent
        return common

    def common_extent(self) -> tuple[int, int] | None:
        """Height and width where all images that can be read have the same, else None. Reads headers, once, up to the
        first that differs."""
        return self._common_extent

    def small_extent(self, longest: int) -> tuple[int, int] | None:
        """`common_extent` where it is `longest` pixels at most, else None. Of larger images one header is read."""
        first = next(filter(None, map(self._extent_or_none, range(len(self)))), None)
        return self.common_extent() if first is not None and max(first) <= longest else None

    def _extent_or_none(self, index: int) -> tuple[int, int] | None:
        try:
            return self.extent(index)
        except CorruptImage:  # said when it is read
            return None

    @abstractmethod
    def identity(self, index: int) -> bytes:
        """What tells the image from others: its pixels where they are in memory, else its relative path and bytes."""

    def file(self, index: int) -> Path | bytes | None:
        """What the image is decoded from; None where it lies in memory."""
        return None

    def read_as(self, reading: Reading) -> None:
        """Read files in this way from now on."""
        self.reading = reading

    def subset(self, indices: Tensor) -> ImageSet:
        """The images at these indices (int64 [M]), in this order."""
        return Subset(self, indices)

    def in_order(self, classes: Sequence[str]) -> ImageSet:
        """The same images in the same order, with `classes`, which are the same ones in another order.

        Raises DataError where they are not.
        """
        if tuple(classes) == self.classes:
            return self
        if sorted(classes) != sorted(self.classes) or len(set(classes)) < len(classes):
            raise DataError(f"{list(self.classes)[:5]} ... are other classes than {list(classes)[:5]} ...")
        places = {name: place for place, name in enumerate(classes)}
        # One more at the end, which UNLABELED (-1) finds.
        moved = torch.tensor([*(places[name] for name in self.classes), UNLABELED])
        other = copy.copy(self)
        other.__dict__.pop("_fingerprint", None)
        other.labels, other.classes = moved[self.labels], tuple(classes)
        if self.split_from is not None:
            other.split_from = self.split_from.in_order(classes)
        return other

    @property
    def kind(self) -> str:
        """What they are called, where there are many."""
        return "images"

    def per_class(self) -> list[int] | None:
        """How many images each class has; None where images have no class of their own."""
        return torch.bincount(self.labels[self.labels != UNLABELED], minlength=len(self.classes)).tolist()

    def census(self) -> str:
        """How many there are of what, in a few words; empty where there is nothing to say."""
        counts = torch.tensor(self.per_class() or [0])
        unlabeled = int((self.labels == UNLABELED).sum())
        if unlabeled == len(self):
            return "without labels"
        low, high = int(counts.argmin()), int(counts.argmax())
        if counts[low] == counts[high]:
            said = f"{int(counts[low]):,} a class"
        else:
            said = f"{int(counts[low]):,} ({self.classes[low]}) to {int(counts[high]):,} ({self.classes[high]}) a class"
        return f"{said}, {unlabeled:,} without a label" if unlabeled else said

    def held(self, limit_bytes: float, on_corrupt: Literal["stop", "skip"] = "stop") -> ImageSet:
        """The set, decoded into memory where that is of use: see `in_memory`."""
        held = self._decoded(limit_bytes, on_corrupt)
        held.origin, held.notes = self.origin, self.notes
        return held

    def _decoded(self, limit_bytes: float, on_corrupt: Literal["stop", "skip"]) -> ImageSet:
        return in_memory(self, limit_bytes, on_corrupt)

    def followed_by(self, unlabeled: ImageSet) -> ImageSet:
        """These images and then those, which are UNLABELED: see `concatenate`."""
        both = self._with(unlabeled)
        both.origin = " and ".join(part.origin for part in (self, unlabeled) if part.origin)
        both.notes = [*self.notes, *unlabeled.notes]
        return both

    def _with(self, unlabeled: ImageSet) -> ImageSet:
        return concatenate(self, unlabeled)

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for part in (str(len(self)), *self.classes):
            digest.update(os.fsencode(part) + b"\0")
        digest.update(self.labels.numpy().tobytes())
        for index in range(len(self)):
            digest.update(self.identity(index) + b"\0")
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """SHA-256 (hex) of labels, classes and the identity of every image, in their order; not of modification times.

        Two sets with one fingerprint hold the same image at the same index. Computed once.
        """
        return self._fingerprint


class ArraySet(ImageSet):
    """Images of one size held in memory.

    Args:
        images: uint8 [N, 3, H, W].
        names: a name for each image, or one word for all ('test' makes 'test #0', 'test #1', ...).
        fingerprint: that of the files which the images were decoded from.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        classes: Sequence[str],
        names: Sequence[str] | str = "image",
        corrupt: Sequence[str] = (),
        fingerprint: str | None = None,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or len(images) != len(labels):
            given = f"{images.dtype} {list(images.shape)} with {len(labels)} labels"
            raise DataError(f"Images must be uint8 [N, 3, H, W] with N labels, got {given}.")
        super().__init__(labels, classes, corrupt)
        self.images = images
        self._names = names
        if fingerprint is not None:
            self._fingerprint = fingerprint

    def name(self, index: int) -> str:
        return f"{self._names} #{index}" if isinstance(self._names, str) else self._names[index]

    def read(self, index: int) -> Tensor:
        return self.images[index]

    def extent(self, index: int) -> tuple[int, int]:
        return self.images.shape[2], self.images.shape[3]

    @cached_property
    def _extents(self) -> Tensor:
        return torch.tensor(self.images.shape[2:]).expand(len(self), 2)

    @cached_property
    def _common_extent(self) -> tuple[int, int] | None:
        return (self.images.shape[2], self.images.shape[3]) if len(self) else None

    def subset(self, indices: Tensor) -> ArraySet:
        names = [self.name(index) for index in indices.tolist()]
        part = ArraySet(self.images[indices], self.labels[indices], self.classes, names)
        part.reading = self.reading
        return part

    def identity(self, index: int) -> bytes:
        return (
            f"{self.images.shape[2]}x{self.images.shape[3]} ".encode()
            + self.images[index].contiguous().numpy().tobytes()
        )


class FileSet(ImageSet):
    """Image files below one folder, read when asked.

    Args:
        root: the folder.
        files: their paths relative to it.
    """

    def __init__(self, root: Path, files: Sequence[str], labels: Tensor, classes: Sequence[str]) -> None:
        super().__init__(labels, classes)
        self.origin = str(root)
        self.root = root
        self.files = tuple(files)

    @property
    def paths(self) -> list[Path]:
        """The path of every image."""
        return [self.root / file for file in self.files]

    def name(self, index: int) -> str:
        return os.fspath(self.root / self.files[index])

    def read(self, index: int) -> Tensor:
        return to_tensor(decode(self.root / self.files[index], reading=self.reading))

    def file(self, index: int) -> Path:
        return self.root / self.files[index]

    def extent(self, index: int) -> tuple[int, int]:
        return header_size(self.root / self.files[index], reading=self.reading)

    def identity(self, index: int) -> bytes:
        try:
            size = (self.root / self.files[index]).stat().st_size
        except OSError:  # said when it is read
            size = -1
        return os.fsencode(self.files[index]) + f" {size}".encode()


class Subset(ImageSet):
    """Some images of another set, in an order of their own.

    Args:
        indices: int64 [M], indices into `whole`.
    """

    def __init__(self, whole: ImageSet, indices: Tensor) -> None:
        super().__init__(whole.labels[indices], whole.classes)
        self.whole = whole
        self.reading = whole.reading
        self._indices = indices.numpy()  # plain integers without a tensor for each

    def name(self, index: int) -> str:
        return self.whole.name(int(self._indices[index]))

    def read(self, index: int) -> Tensor:
        return self.whole.read(int(self._indices[index]))

    def file(self, index: int) -> Path | bytes | None:
        return self.whole.file(int(self._indices[index]))

    def read_as(self, reading: Reading) -> None:
        super().read_as(reading)
        self.whole.read_as(reading)

    def extent(self, index: int) -> tuple[int, int]:
        return self.whole.extent(int(self._indices[index]))

    @cached_property
    def _extents(self) -> Tensor:
        return self.whole.extents()[torch.from_numpy(self._indices)]

    def identity(self, index: int) -> bytes:
        return self.whole.identity(int(self._indices[index]))


class Concatenation(ImageSet):
    """Several sets, one after the other.

    Args:
        labels: int64 [N] for all of them together.
    """

    def __init__(self, parts: Sequence[ImageSet], labels: Tensor, classes: Sequence[str]) -> None:
        super().__init__(labels, classes, [name for part in parts for name in part.corrupt])
        self.parts = tuple(parts)
        self.reading = parts[0].reading
        self._ends = list(accumulate(len(part) for part in parts))

    def _find(self, index: int) -> tuple[ImageSet, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} images")
        part = bisect.bisect_right(self._ends, index)
        return self.parts[part], index - (self._ends[part - 1] if part else 0)

    def name(self, index: int) -> str:
        part, inner = self._find(index)
        return part.name(inner)

    def read(self, index: int) -> Tensor:
        part, inner = self._find(index)
        return part.read(inner)

    def file(self, index: int) -> Path | bytes | None:
        part, inner = self._find(index)
        return part.file(inner)

    def read_as(self, reading: Reading) -> None:
        super().read_as(reading)
        for part in self.parts:
            part.read_as(reading)

    def extent(self, index: int) -> tuple[int, int]:
        part, inner = self._find(index)
        return part.extent(inner)

    @cached_property
    def _extents(self) -> Tensor:
        return torch.cat([part.extents() for part in self.parts])

    def identity(self, index: int) -> bytes:
        part, inner = self._find(index)
        return part.identity(inner)


class Splits(NamedTuple):
    """The two halves of a data set."""

    train: ImageSet
    val: ImageSet


def concatenate(labeled: ImageSet, unlabeled: ImageSet) -> ImageSet:
    """`labeled`, its classes kept, followed by the images of `unlabeled`, whose labels become UNLABELED.

    One ArraySet where both are in memory and of one size.
    """
    labels = torch.cat([labeled.labels, torch.full((len(unlabeled),), UNLABELED)])
    if isinstance(labeled, ArraySet) and isinstance(unlabeled, ArraySet) and labeled.extent(0) == unlabeled.extent(0):
        names = [part.name(index) for part in (labeled, unlabeled) for index in range(len(part))]
        images = torch.cat([labeled.images, unlabeled.images])
        both = ArraySet(images, labels, labeled.classes, names, corrupt=labeled.corrupt + unlabeled.corrupt)
        both.reading = labeled.reading
        return both
    return Concatenation([labeled, unlabeled], labels, labeled.classes)


def in_memory(images: ImageSet, limit_bytes: float, on_corrupt: Literal["stop", "skip"] = "stop") -> ImageSet:
    """Decode a set once, into memory, where all its images have one size and fit; else give it back as it is.

    The fingerprint stays that of the files, and what is shown does not depend on where pixels are kept: a set that
    holds images which cannot be read stays as it is, so that others take their places as in a set that does not fit.

    Args:
        limit_bytes: most bytes that the pixels may take.
        on_corrupt: 'stop' raises CorruptImage.
    """
    if isinstance(images, ArraySet):
        return images
    extent = extent_in_memory(images, 3, limit_bytes, on_corrupt)
    if extent is None:
        return images
    pixels = torch.empty(len(images), 3, *extent, dtype=torch.uint8)
    for index in range(len(images)):
        try:
            image = images.read(index)
        except CorruptImage:
            if on_corrupt == "stop":
                raise
            return images
        if tuple(image.shape[1:]) != extent:  # a header that lies
            return images
        pixels[index] = image
    names = [images.name(index) for index in range(len(images))]
    held = ArraySet(pixels, images.labels, images.classes, names, images.corrupt, images.fingerprint())
    held.reading = images.reading
    return held


def extent_in_memory(
    images: ImageSet, bytes_per_pixel: int, limit_bytes: float, on_corrupt: Literal["stop", "skip"]
) -> tuple[int, int] | None:
    """The one size of all images, where they fit into memory; else None. Headers are read up to the first that differs.

    Raises CorruptImage where a header cannot be read and `on_corrupt` is 'stop'.
    """
    extent: tuple[int, int] | None = None
    for index in range(len(images)):
        try:
            found = images.extent(index)
        except CorruptImage:
            if on_corrupt == "stop":
                raise
            return None
        extent = extent or found
        if found != extent or len(images) * bytes_per_pixel * extent[0] * extent[1] > limit_bytes:
            return None
    return extent
