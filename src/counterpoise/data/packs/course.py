"""Which blocks of shards are read when: the order of an epoch is known, and so is what comes next."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from counterpoise.data.far import Far
from counterpoise.data.order import BlockOrder, FullOrder, Order
from counterpoise.data.packs import cache
from counterpoise.data.packs.cache import Cache, Kept
from counterpoise.data.packs.format import Shard
from counterpoise.data.packs.reading import PackSet, Table
from counterpoise.data.packs.remote import Ranges, runs
from counterpoise.data.sources.base import ImageSet
from counterpoise.errors import DataError

MOST_IMAGES = 2**24
"""Of a set whose images may come anywhere: more are not planned, which would take 32 bytes for each."""
NEVER = 2**62


class Steps(NamedTuple):
    """How the places of an epoch are read.

    Attributes:
        batch_size: places of a step, over all processes.
        stop: behind the last place that is read.
        first, end: the processes of this machine, by rank; `end` is behind the last.
        world: processes on all machines.
    """

    batch_size: int
    stop: int
    first: int
    end: int
    world: int

    def here(self, places: Tensor) -> Tensor:
        """Which of these places (int64 [n]) are read on this machine, bool [n]."""
        if self.first == 0 and self.end == self.world:
            return places < self.stop
        begins = places - places % self.batch_size
        total = (self.stop - begins).clamp(max=self.batch_size)
        rows = places - begins
        return (
            (places < self.stop) & (rows >= total * self.first // self.world) & (rows < total * self.end // self.world)
        )


class Stretch(NamedTuple):
    """Blocks that are read between two places.

    Attributes:
        end: the later place.
        runs: blocks that follow one another in a shard, each as its place, shard, and numbers.
    """

    end: int
    runs: Iterator[tuple[Ranges, Shard, range]]


class Course:
    """What a run reads of shards at an address, and when.

    Args:
        far: where they lie; all in one cache.
        order: of an epoch.
    """

    def __init__(self, far: list[Far], order: Order, steps: Steps) -> None:
        self._far, self._order, self._steps = far, order, steps
        self._orders = [copy.copy(order), copy.copy(order)]  # of even and of odd epochs, and of one thread alone

    @classmethod
    def of(cls, images: ImageSet, order: Order, steps: Steps) -> Course | None:
        """None where nothing lies at an address, or too much for this, or shards would be fetched whole for parts."""
        if isinstance(order, FullOrder) and order.count > MOST_IMAGES:
            return None
        far = [each for each in images.far() if isinstance(each.there, PackSet) and isinstance(_place(each), Ranges)]
        far = [each for each in far if _place(each).cache.root == _place(far[0]).cache.root and _in_rows(each, order)]
        return cls(far, order, steps) if far else None

    @property
    def cache(self) -> Cache:
        """That in which it all lies."""
        return _place(self._far[0]).cache

    @property
    def batch_size(self) -> int:
        """Places of a step."""
        return self._steps.batch_size

    @property
    def key(self) -> str:
        """What tells this from other courses of one cache."""
        order = (type(self._order).__name__, self._order.seed, self._order.count, self._order.specification)
        images = [(each.first, len(each), None if each.indices is None else each.indices.sum()) for each in self._far]
        return hashlib.sha256(repr((order, images, self._steps)).encode()).hexdigest()

    def ahead(
        self, epoch: int, place: int, near: int, room: float, longest: int, kept: list[Kept]
    ) -> Iterator[Stretch]:
        """What is read from a place on to the end of the epoch, and is not there.

        Args:
            near: places that are a stretch by themselves, the first.
            room: bytes of the cache.
            longest: bytes of a run.
        """
        there = {(os.path.dirname(each.path), os.path.basename(each.path)) for each in kept}  # noqa: PTH119, PTH120
        for begin, end in self._stretches(epoch, place, near, room):
            places = torch.arange(begin, end)
            images = self._of(epoch).at(epoch, begin, end)[self._steps.here(places)].numpy()
            yield Stretch(end, self._missing(images, longest, there))

    def next_uses(self, epoch: int, place: int, kept: list[Kept], since: int) -> NDArray[np.int64]:
        """The place from which on each block is read next, int64 [n]; places are counted on through the next epoch.

        What is not of this course, such as images of evaluation, counts as read at the end of the epoch, and as never
        where it was not read since `since` (ns).
        """
        by_folder: dict[str, list[int]] = {}
        for row, each in enumerate(kept):
            by_folder.setdefault(os.path.dirname(each.path), []).append(row)  # noqa: PTH120
        found = np.array([self._order.count if each.used >= since else NEVER for each in kept], dtype=np.int64)
        for far in self._far:
            for number, shard in enumerate(_set(far).part.shards):
                rows = by_folder.get(_place(far).cache.folder_of(shard), ())
                rows = [row for row in rows if os.path.basename(kept[row].path).isdigit()]  # noqa: PTH119
                if rows:
                    blocks = np.array([int(os.path.basename(kept[row].path)) for row in rows])  # noqa: PTH119
                    found[rows] = self._uses(far, number, blocks, epoch, place)
        return found

    def _stretches(self, epoch: int, place: int, near: int, room: float) -> Iterator[tuple[int, int]]:
        stop = self._steps.stop
        begin = min(place + near, stop)
        if begin > place:
            yield place, begin
        few = max(near, int(room / 8 // cache.BLOCK))
        size = sum(shard.bytes for far in self._far for shard in _set(far).part.shards)
        each = size / sum(len(_set(far)) for far in self._far)
        order = self._of(epoch)
        if isinstance(order, BlockOrder):
            bounds = [window.first for window in order.windows(epoch, begin)][1:] if begin < stop else []
            most = room / 2
        else:
            bounds, most = [], room
        for bound in [*bounds, stop]:
            end = min(bound, stop)
            step = end - begin if (end - begin) * each <= most else few
            while begin < end:
                yield begin, min(begin + step, end)
                begin = min(begin + step, end)

    def _missing(
        self, images: NDArray[np.int64], longest: int, there: set[tuple[str, str]]
    ) -> Iterator[tuple[Ranges, Shard, range]]:
        for far in self._far:
            rows = images[(images >= far.first) & (images < far.first + len(far))] - far.first
            inner, part, place = far.inner(rows), _set(far).part, _place(far)
            for number, blocks in _blocks(_set(far).tables, inner, sum(shard.bytes for shard in part.shards)):
                shard = part.shards[number]
                folder = place.cache.folder_of(shard)
                missing = [block for block in blocks if (folder, str(block)) not in there]
                there.update((folder, str(block)) for block in missing)
                for first, end in runs(missing, longest):
                    yield place, shard, range(first, end)

    def _uses(self, far: Far, number: int, blocks: NDArray[np.int64], epoch: int, place: int) -> NDArray[np.int64]:
        found = np.full(len(blocks), NEVER, dtype=np.int64)
        for table in _set(far).tables:
            begin, end = table.ends[number - 1] if number else 0, table.ends[number]
            offsets = table.records["offset"][begin:end].astype(np.int64)
            ends = offsets + table.records["length"][begin:end]
            first = begin + np.searchsorted(ends, blocks * cache.BLOCK, side="right")
            last = begin + np.searchsorted(offsets, (blocks + 1) * cache.BLOCK)
            firsts, lasts = far.outer(first), far.outer(np.maximum(first, last))
            lengths = lasts - firsts
            if lengths.sum() > 2 * far.times * (
                len(offsets) + len(blocks)
            ):  # files that lie over one another: no index of a tar
                continue
            images = np.repeat(firsts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
            uses = self._next(epoch, place, torch.from_numpy(images)).numpy()
            np.minimum.at(found, np.repeat(np.arange(len(blocks)), lengths), uses)
        return found

    def _next(self, epoch: int, place: int, images: Tensor) -> Tensor:
        """From which place on each image is read next, counted on through the next epoch."""
        count = self._order.count
        now, later = self._of(epoch).places(epoch, images, place), self._of(epoch + 1).places(epoch + 1, images, 0)
        mine, again = now >= place, torch.ones(len(images), dtype=torch.bool)
        if isinstance(self._order, FullOrder):
            mine, again = mine & self._steps.here(now), self._steps.here(later)
        return torch.where(mine, now, torch.where(again, later + count, 2 * count))

    def _of(self, epoch: int) -> Order:
        return self._orders[epoch % 2]


def _in_rows(far: Far, order: Order) -> bool:
    """Whether what is fetched with a block is read, too, while it is there."""
    place, size = _place(far), sum(shard.bytes for shard in _set(far).part.shards)
    if not place.by_shard or size <= place.room:
        return True
    return isinstance(order, BlockOrder) and 2 * size * order.largest <= place.room * order.count


def _set(far: Far) -> PackSet:
    assert isinstance(far.there, PackSet)
    return far.there


def _place(far: Far) -> Ranges:
    place = _set(far).place
    assert isinstance(place, Ranges)
    return place


def _blocks(tables: list[Table], images: NDArray[np.int64], bytes_: int) -> Iterator[tuple[int, list[int]]]:
    """The number of each shard that holds files of these images, and its blocks that do, rising.

    bytes_: of all shards.
    """
    shards, blocks = [], []
    for table in tables:
        some = images[table.records["length"][images] > 0]
        offsets = table.records["offset"][some].astype(np.int64)
        first = offsets // cache.BLOCK
        last = (offsets + table.records["length"][some] - 1) // cache.BLOCK
        lengths = last - first + 1
        if lengths.sum() > 2 * len(some) + bytes_ // cache.BLOCK:
            raise DataError("The index does not fit its shards: files lie over one another.")
        shards.append(np.repeat(np.searchsorted(table.ends, some, side="right"), lengths))
        blocks.append(np.repeat(first - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum()))
    both = np.unique(np.stack([np.concatenate(shards), np.concatenate(blocks)]), axis=1)
    bounds = np.flatnonzero(np.diff(both[0], prepend=-1))
    for begin, end in zip(bounds, [*bounds[1:], both.shape[1]], strict=True):
        yield int(both[0, begin]), both[1, begin:end].tolist()
