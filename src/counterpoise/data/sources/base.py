"""What every source of data gives: sets of images with labels or masks, held in memory or read when asked."""

from __future__ import annotations

import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.data.blocks import blocks_of_part
from counterpoise.data.far import Far, far_of_part
from counterpoise.data.images import AS_USUAL, cut_out, part_of
from counterpoise.data.jpeg import Choose
from counterpoise.data.labels import as_labels, counts, renumbered
from counterpoise.data.rasters import MaskParts, Raster
from counterpoise.decoding import Reading
from counterpoise.errors import CorruptImage, DataError

UNLABELED = -1
IGNORE = 255
"""Void in every mask of the program, whatever number or color stands for it in the files."""
_AT_ONCE = 2**20  # images whose identities are looked at together


class ImageSet(ABC):
    """Images by index, with labels; scenes have a mask each, which says the class of every pixel.

    Attributes:
        labels: int64 [N], or int8 [N, C] where an image may have several: see data/labels.py. UNLABELED (-1) where
            unknown. Of scenes 0, and UNLABELED where there is no mask.
        classes: their names, without void; empty where nothing is labeled.
        corrupt: names of images that were left out because they cannot be read.
        masked: whether these are scenes.
        questions: int8 [256, Q], of scenes in which each class is a question of its own: what each value of masks says
            of each, 1, 0 or -1 where unknown; see data/sources/questions.py. None: values are the classes.
        asked_of: the classes of the masks, where questions were asked of these.
        split_from: the set that this is a held-out or remaining part of, where we divided it.
        divided_as: the classes in the order that they had when it was divided, which the draw depends on.
        called: what the source calls this part of the data; empty where it has one alone.
        unused: what other parts are called that the source has and that are not looked at.
        positions: int64 [N], where the images of a part are in `split_from`.
        drawn: whether it was divided by `data.val_fraction`, for want of a part to evaluate on.
        groups: int64 [N], which images belong together (one patient), where that is known: they are divided whole.
        group_names: what groups are called, by their numbers; those behind them, of one image each, have no name.
        origin: where it comes from, in words: a folder, or what it was held out of.
        reading: how files are read; set by `read_as`.
        notes: what a person must know of it and of how its files are read, a sentence each.
        blocks: int64 [K], the sizes of consecutive runs of images that lie together, such as the shards of a pack, in
            order and N in all; None where nothing lies so.
        times: how many samples in a row are of one picture.
        kept_share: how much of its bytes, as a share, may be kept on this machine; 1 where all of it is there.
    """

    masked = False
    times = 1

    def __init__(self, labels: Tensor, classes: Sequence[str], corrupt: Sequence[str] = ()) -> None:
        self.classes = tuple(str(name) for name in classes)  # a name may come as NumPy has it
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for number, name in enumerate(self.classes) if name in self.classes[:number])
            raise DataError(f"Class name '{twice}' is there twice: each class has a name of its own.")
        self.labels = as_labels(labels, len(self.classes))
        self.corrupt = list(corrupt)
        self.questions: Tensor | None = None
        self.asked_of: tuple[str, ...] = ()
        self.split_from: ImageSet | None = None
        self.positions: Tensor | None = None
        self.divided_as: tuple[str, ...] = ()
        self.drawn = False
        self.groups: Tensor | None = None
        self.group_names: tuple[str, ...] = ()
        self.called = ""
        self.unused: tuple[str, ...] = ()
        self.origin = ""
        self.reading = AS_USUAL
        self.notes: list[str] = []
        self.blocks: Tensor | None = None
        self.kept_share = 1.0

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """Of every image."""
        return self.reading.channels

    @property
    def multilabel(self) -> bool:
        """Whether an image may be of several classes."""
        return self.labels.ndim == 2

    @abstractmethod
    def name(self, index: int) -> str:
        """What a person calls this image: its file, or such as 'test #12'."""

    @abstractmethod
    def read(self, index: int) -> Tensor:
        """The image as uint8 [channels, H, W]. Raises CorruptImage."""

    def spacing(self, index: int) -> tuple[float, float] | None:
        """Millimeters from one row to the next, and from one column to the next; None where nothing says it."""
        return None

    def read_part(self, index: int, choose: Choose) -> tuple[Tensor, tuple[int, int]]:
        """The part of the image that is chosen by its height and width, uint8 [channels, H, W], in any order.

        A JPEG comes as much smaller as the choice allows. Raises CorruptImage.

        Returns:
            The part; height and width of the whole.
        """
        file = self.file(index)
        if file is None:
            return cut_out(self.read(index), choose)
        return part_of(file, choose, partial(self.name, index), self.reading)

    def read_mask(self, index: int) -> Tensor:
        """The mask as uint8 [H, W], as large as the image: classes, and IGNORE (255) where void; void if there is none.

        Raises:
            CorruptImage: the mask cannot be read.
            DataError: it does not fit the image or the classes.
        """
        return torch.full(self.extent(index), IGNORE, dtype=torch.uint8)

    def mask_counts(self, index: int) -> Tensor:
        """Pixels of the mask by value, int64 [256]. Raises as `read_mask`."""
        return torch.bincount(self.read_mask(index).flatten(), minlength=IGNORE + 1)

    def in_parts(self, index: int) -> tuple[Raster, MaskParts] | None:
        """A scene and its mask, of which parts are read as they are asked for; None: they are read whole."""
        return None

    @abstractmethod
    def extent(self, index: int) -> tuple[int, int]:
        """Height and width, without decoding. Raises CorruptImage."""

    @abstractmethod
    def identity(self, index: int) -> bytes:
        """What tells the image from others: its pixels where they are in memory, else its relative path and bytes."""

    def whereabouts(self, index: int) -> bytes | None:
        """What tells the image from all others wherever they lie; None where its file does, or its pixels do."""
        return None

    def identities(self, indices: Tensor) -> Iterator[bytes]:
        """`identity` of the images at these indices (int64 [M]), each ended by a zero byte, in pieces of any size."""
        for index in indices.tolist():
            yield self.identity(index) + b"\0"

    def expect(self, indices: Iterable[int]) -> None:
        """Told which images are read next, where they may lie far away."""
        return

    def far(self) -> list[Far]:
        """Those of the images that lie at an address, where what lies together comes in one row here, too."""
        return []

    def file(self, index: int) -> Path | bytes | None:
        """What the image is decoded from; None where it lies in memory."""
        return None

    def mask_file(self, index: int) -> Path | bytes | None:
        """What the mask is decoded from; None where there is none, or it lies in memory."""
        return None

    def read_as(self, reading: Reading) -> None:
        """Read files in this way from now on."""
        self.reading = reading

    @cached_property
    def extents(self) -> Tensor:
        """Height and width of every image, int64 [N, 2]; 0 and 0 where its header cannot be read. Read once."""
        return torch.tensor([self._extent_or_none(index) or (0, 0) for index in range(len(self))]).reshape(-1, 2)

    @cached_property
    def common_extent(self) -> tuple[int, int] | None:
        """Height and width where all images that can be read have the same, else None. Reads headers, once, up to the
        first that differs."""
        common = None
        known = self.__dict__.get("extents")
        found = map(tuple, known.tolist()) if known is not None else map(self._extent_or_none, range(len(self)))
        for extent in found:
            if extent not in (None, (0, 0)):
                if common not in (None, extent):
                    return None
                common = extent
        return common

    def small_extent(self, longest: int) -> tuple[int, int] | None:
        """`common_extent` where it is `longest` pixels at most, else None. Of larger images one header is read."""
        first = next(filter(None, map(self._extent_or_none, range(len(self)))), None)
        return self.common_extent if first is not None and max(first) <= longest else None

    def _extent_or_none(self, index: int) -> tuple[int, int] | None:
        try:
            return self.extent(index)
        except CorruptImage:  # said when it is read
            return None

    def subset(self, indices: Tensor) -> ImageSet:
        """The images at these indices (int64 [M]), in this order."""
        return Subset(self, indices)

    def spread(self, count: int) -> list[int]:
        """The indices of `count` images at most, spread evenly."""
        count = min(count, len(self))
        return [number * len(self) // count for number in range(count)]

    def in_order(self, classes: Sequence[str]) -> ImageSet:
        """The same images in the same order, with `classes`, which are the same ones in another order.

        Raises DataError where they are not.
        """
        if tuple(classes) == self.classes:
            return self
        if self.masked and (self.questions is None or sorted(classes) != sorted(self.classes)):
            raise DataError(f"Masks hold the numbers of {list(self.classes)[:5]}, so that their order is fixed.")
        other = copy.copy(self)
        other.__dict__.pop("_fingerprint", None)
        if self.questions is not None:
            other.questions = self.questions[:, [self.classes.index(name) for name in classes]]
        else:
            other.labels = renumbered(self.labels, self.classes, classes)
        other.classes = tuple(classes)
        if self.split_from is not None:
            other.split_from = self.split_from.in_order(classes)
        return other

    def per_class(self) -> list[int] | None:
        """How many images each class has; None for scenes, whose pixels have the classes."""
        return None if self.masked else counts(self.labels, len(self.classes))[1:]

    def owners(self) -> Tensor:
        """Which images belong together: int64 [N], a number from 0 on for each group, and for each image without."""
        if self.groups is None:
            return torch.arange(len(self))
        numbers = self.groups.where(self.groups >= 0, -1 - torch.arange(len(self)))
        found: Tensor = torch.unique(numbers, return_inverse=True)[1]
        return found

    @property
    def unlabeled(self) -> int:
        """How many images have no label that is known; of scenes, no mask."""
        return counts(self.labels, len(self.classes))[0]

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for part in (str(len(self)), *self.classes):
            digest.update(os.fsencode(part) + b"\0")
        digest.update(self.labels.contiguous().numpy().data)
        if self.questions is not None:
            digest.update(self.questions.contiguous().numpy().data)
        for begin in range(0, len(self), _AT_ONCE):
            for piece in self.identities(torch.arange(begin, min(begin + _AT_ONCE, len(self)))):
                digest.update(piece)
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """SHA-256 (hex) of labels, classes and the identity of every image, in their order; not of modification times.

        Two sets with one fingerprint hold the same image at the same index. Computed once.
        """
        return self._fingerprint


class Composed(ImageSet):
    """Images of other sets."""

    @abstractmethod
    def find(self, index: int) -> tuple[ImageSet, int]:
        """The set that holds an image, and its index there."""

    def name(self, index: int) -> str:
        part, inner = self.find(index)
        return part.name(inner)

    def read(self, index: int) -> Tensor:
        part, inner = self.find(index)
        return part.read(inner)

    def spacing(self, index: int) -> tuple[float, float] | None:
        part, inner = self.find(index)
        return part.spacing(inner)

    def read_part(self, index: int, choose: Choose) -> tuple[Tensor, tuple[int, int]]:
        part, inner = self.find(index)
        return part.read_part(inner, choose)

    def read_mask(self, index: int) -> Tensor:
        part, inner = self.find(index)
        return part.read_mask(inner)

    def mask_counts(self, index: int) -> Tensor:
        part, inner = self.find(index)
        return part.mask_counts(inner)

    def in_parts(self, index: int) -> tuple[Raster, MaskParts] | None:
        part, inner = self.find(index)
        return part.in_parts(inner)

    def whereabouts(self, index: int) -> bytes | None:
        part, inner = self.find(index)
        return part.whereabouts(inner)

    def file(self, index: int) -> Path | bytes | None:
        part, inner = self.find(index)
        return part.file(inner)

    def mask_file(self, index: int) -> Path | bytes | None:
        part, inner = self.find(index)
        return part.mask_file(inner)

    def extent(self, index: int) -> tuple[int, int]:
        part, inner = self.find(index)
        return part.extent(inner)

    def identity(self, index: int) -> bytes:
        part, inner = self.find(index)
        return part.identity(inner)


class Subset(Composed):
    """Some images of another set, in an order of their own.

    Args:
        indices: int64 [M], indices into `whole`.
    """

    def __init__(self, whole: ImageSet, indices: Tensor) -> None:
        super().__init__(whole.labels[indices], whole.classes)
        self.whole = whole
        self.masked, self.questions = whole.masked, whole.questions
        self.groups = None if whole.groups is None else whole.groups[indices]
        self.group_names = whole.group_names
        self.reading = whole.reading
        self.blocks, self.kept_share = blocks_of_part(whole.blocks, indices), whole.kept_share
        self._indices = indices.numpy()  # plain integers without a tensor for each

    def find(self, index: int) -> tuple[ImageSet, int]:
        return self.whole, int(self._indices[index])

    def expect(self, indices: Iterable[int]) -> None:
        self.whole.expect(self._indices[[*indices]].tolist())

    def far(self) -> list[Far]:
        return far_of_part(self.whole.far(), self._indices)

    def identities(self, indices: Tensor) -> Iterator[bytes]:
        return self.whole.identities(torch.from_numpy(self._indices)[indices])

    def read_as(self, reading: Reading) -> None:
        super().read_as(reading)
        self.whole.read_as(reading)

    @cached_property
    def extents(self) -> Tensor:
        if "extents" not in vars(self.whole) and 2 * len(self) < len(self.whole):  # nor are all headers read for few
            return super().extents
        return self.whole.extents[torch.from_numpy(self._indices)]


class Splits(NamedTuple):
    """The two halves of a data set."""

    train: ImageSet
    val: ImageSet
