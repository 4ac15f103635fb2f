"""The images of a pack, read one by one from where they lie in its shards."""

from __future__ import annotations

import os
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from counterpoise.data.far import Far
from counterpoise.data.images import header_size, may_be_dicom, pixels_of, spacing
from counterpoise.data.label_map import LabelMap
from counterpoise.data.mask_file import MaskBytes
from counterpoise.data.packs import further
from counterpoise.data.packs.format import (
    RECORD,
    File,
    Meaning,
    Names,
    Pack,
    Part,
    Shard,
    file_checksum,
    index_files,
    let_go,
    mapped,
)
from counterpoise.data.packs.places import Place
from counterpoise.data.sources.base import ImageSet
from counterpoise.data.sources.masks_files import fitted, meaning
from counterpoise.data.stages import READING
from counterpoise.errors import CorruptImage, DataError

CHECKED_BYTES = 2**28
"""Index files up to this size are compared with their checksums when a pack is opened; larger ones by `verify`."""


class PackSet(ImageSet):
    """The images of one part of a pack. What it keeps in memory does not grow with their number: the index is mapped.

    Every image is compared with its checksum when it is read.

    Raises:
        DataError: the index is damaged, or does not fit the shards.
    """

    def __init__(self, place: Place, pack: Pack, name: str, origin: str) -> None:
        part = pack.parts[name]
        place.check(part)
        for file in index_files(part.file, pack.meaning is not None):
            _check_index(place.index(file), part.index.get(file))
        self.place, self.pack, self.part_name = place, pack, name
        labels, self._images = self._open()
        super().__init__(torch.from_numpy(labels), pack.classes)
        self.origin = origin
        self.groups = further.groups_in(pack, name, origin)
        self.group_names = tuple((pack.group_names or {}).get(name, ()))
        self._spacings = further.spacings_in(pack, name, origin)
        self.blocks = torch.tensor([shard.samples for shard in part.shards], dtype=torch.int64)
        self.kept_share = min(1.0, place.room / sum(shard.bytes for shard in part.shards))

    def _open(self) -> tuple[NDArray[np.int64], Table]:
        part, count = self.part, self.part.samples
        labels = mapped(self.place.index(f"{part.file}.labels.npy"), np.int64, count)
        return labels, Table(self.place, part, "images")

    @property
    def part(self) -> Part:
        """What pack.json says of these images."""
        return self.pack.parts[self.part_name]

    def name(self, index: int) -> str:
        return self._images.called(index)

    def file(self, index: int) -> bytes:
        return self._images.content(index)

    def expect(self, indices: Iterable[int]) -> None:
        self.place.expect(self._images.expected(indices))

    def far(self) -> list[Far]:
        return [Far(self, 0, None)] if self.place.room < float("inf") else []

    @property
    def tables(self) -> list[Table]:
        """Where the files of each image lie."""
        return [self._images]

    def whereabouts(self, index: int) -> bytes:
        return os.fsencode(f"{self.place.whole_name} {self.part_name} {index}")

    def packed_name(self, index: int) -> bytes:
        """The path that an image had."""
        return self._images.names.name(index)

    def read(self, index: int) -> Tensor:
        return pixels_of(self.file(index), self.name(index), self.reading)

    def spacing(self, index: int) -> tuple[float, float] | None:
        if self._spacings is not None:
            return self._spacings[index]
        name = os.fsdecode(self.packed_name(index))
        return spacing(self.file(index), name) if may_be_dicom(name) else None

    def extent(self, index: int) -> tuple[int, int]:
        height, width = self._images.extent(index)
        if height * width == 0 or height * width > self.reading.max_megapixels * 1e6:
            return header_size(self.file(index), self.name(index), self.reading)  # which says what is wrong
        return height, width

    @cached_property
    def extents(self) -> Tensor:
        known = self._images.extents
        too_large = known.prod(1) > self.reading.max_megapixels * 1e6
        return torch.where(too_large.unsqueeze(1), 0, known)

    @cached_property
    def common_extent(self) -> tuple[int, int] | None:
        return self._images.common_extent(int(self.reading.max_megapixels * 1e6))

    def identity(self, index: int) -> bytes:
        return self._images.names.identity(index)

    def identities(self, indices: Tensor) -> Iterator[bytes]:
        return self._images.names.pieces(indices.numpy())

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_images", "extents")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _, self._images = self._open()


class PackedScenes(PackSet):
    """The images of one part of a pack, with their masks."""

    masked = True

    def __init__(self, place: Place, pack: Pack, name: str, origin: str) -> None:
        super().__init__(place, pack, name, origin)
        assert pack.meaning is not None
        self.label_map = label_map_of(pack.meaning, origin)
        self.questions = further.questions_in(pack, origin)
        self._meaning = os.fsencode(meaning(self.label_map, pack.meaning.resize))

    def _open(self) -> tuple[NDArray[np.int64], Table]:
        self._masks = Table(self.place, self.part, "masks")
        return super()._open()

    def mask_file(self, index: int) -> bytes:
        return self._masks.content(index)

    def expect(self, indices: Iterable[int]) -> None:
        indices = list(indices)
        self.place.expect([*self._images.expected(indices), *self._masks.expected(indices)])

    @property
    def tables(self) -> list[Table]:
        return [self._images, self._masks]

    def packed_mask_name(self, index: int) -> bytes:
        """The path that a mask had."""
        return self._masks.names.name(index)

    def read_mask(self, index: int) -> Tensor:
        assert self.pack.meaning is not None
        mask = MaskBytes(self.mask_file(index), self._masks.called(index))
        size, resize = self.extent(index), self.pack.meaning.resize
        return fitted(mask, self.label_map, self.reading, size, self.name(index), resize)

    def identity(self, index: int) -> bytes:
        return b" ".join((super().identity(index), self._masks.names.identity(index), self._meaning))

    def identities(self, indices: Tensor) -> Iterator[bytes]:
        return ImageSet.identities(self, indices)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "_masks"}


def opened(place: Place, pack: Pack, name: str, origin: str) -> PackSet:
    """The images of one part of a pack, as scenes where it has masks. Raises as `PackSet`."""
    return (PackSet if pack.meaning is None else PackedScenes)(place, pack, name, origin)


def label_map_of(kept: Meaning, file: str) -> LabelMap:
    """What the values of a pack's masks mean; file: what errors call the list of classes."""
    return LabelMap(
        tuple(kept.names), tuple(kept.colors), frozenset(kept.void), kept.ignore, file, tuple(kept.given), kept.lossy
    )


class Table:
    """Where the images or the masks of a part lie, by index."""

    def __init__(self, place: Place, part: Part, kind: str) -> None:
        self.place, self.part = place, part
        self.records = mapped(place.index(f"{part.file}.{kind}.npy"), RECORD, part.samples)
        self.names = Names(place.index(f"{part.file}.{kind}.names"), self.records["name_end"])
        self.ends = part.ends
        self._file = "Image" if kind == "images" else "Mask"

    def content(self, index: int) -> bytes:
        """The bytes of a file. Raises CorruptImage where they have changed, DataError where they cannot be read."""
        offset, _, length, checksum, *_ = self.records[index].item()
        shard = self.part.shards[bisect_right(self.ends, index)]
        if offset + length > shard.bytes:
            raise DataError(
                f"The index does not fit shard {self.place.called(shard)}: {self._file.lower()} {self.called(index)} "
                "would lie behind its end. Look it through: counterpoise verify."
            )
        with READING.timed("reading"):
            content: bytes | None = self.place.read(shard, offset, length)
            assert content is not None
            if len(content) != length:
                raise DataError(f"Shard {self.place.called(shard)} was cut short while it was read.")
            if zlib.crc32(content) == checksum:
                return content
            content = self.place.again(shard, offset, length)
        if content is None or zlib.crc32(content) != checksum:
            raise CorruptImage(
                self.called(index), "its bytes have changed since it was packed (checksum); see counterpoise verify"
            )
        return content

    def expected(self, indices: Iterable[int]) -> Iterator[tuple[Shard, int, int]]:
        """Shard, offset and length of these."""
        for index in indices:
            record = self.records[index]
            shard = self.part.shards[bisect_right(self.ends, index)]
            yield shard, int(record["offset"]), int(record["length"])

    def called(self, index: int) -> str:
        """The shard, and the path that the file had."""
        shard = self.part.shards[bisect_right(self.ends, index)]
        return os.path.join(self.place.called(shard), os.fsdecode(self.names.name(index)))  # noqa: PTH118 - addresses

    def extent(self, index: int) -> tuple[int, int]:
        """Height and width; 0 and 0 where they were not to be had."""
        record = self.records[index]
        return int(record["height"]), int(record["width"])

    @property
    def extents(self) -> Tensor:
        """int64 [N, 2]."""
        both = (torch.from_numpy(self.records[key].astype(np.int64)) for key in ("height", "width"))
        return torch.stack(list(both), 1)

    def common_extent(self, most: int) -> tuple[int, int] | None:
        """Height and width of all that are known and have `most` pixels or fewer, where these are the same."""
        common: tuple[int, int] | None = None
        for first in range(0, len(self.records), 2**20):
            some = self.records[first : first + 2**20]
            height, width = (some[key].astype(np.int64) for key in ("height", "width"))
            known = (height * width > 0) & (height * width <= most)
            if known.any():
                height, width = height[known], width[known]
                found = int(height[0]), int(width[0])
                if common not in (None, found) or (height != found[0]).any() or (width != found[1]).any():
                    return None
                common = found
            let_go(self.records)
        return common


def _check_index(path: Path, expected: File | None) -> None:
    if expected is None or path.stat().st_size != expected.bytes:
        known = "which pack.json does not list" if expected is None else f"expected {expected.bytes:,} bytes"
        raise DataError(f"Index file {path} does not fit its shards: {known}, and it has {path.stat().st_size:,}.")
    if (expected.bytes <= CHECKED_BYTES or path.name.endswith(".labels.npy")) and (
        file_checksum(path) != expected.checksum
    ):
        raise DataError(f"Index file {path} is damaged: its bytes have changed. Pack the set again.")
