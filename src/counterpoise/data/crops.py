"""Several crops of a picture in an epoch, and crops that are laid on an object: what a training view shows of a scene.

A crop is a sample of its own: sample `index` is crop `index % times` of picture `index // times`, with its own place
in the order of an epoch and its own view, so that whatever holds of samples (order, resume, processes, stores) holds of
crops.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from counterpoise import config
from counterpoise.data import random
from counterpoise.data.far import Far
from counterpoise.data.jpeg import Choose, whole
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Composed, ImageSet
from counterpoise.data.workers import MOST_WORKERS, worker_count
from counterpoise.decoding import Reading
from counterpoise.errors import ConfigError, unknown

BACKGROUND = "background"
"""The class that is no object where nobody says which are."""


class Crops(Composed):
    """Every picture of a set `times` times in a row. Its fingerprint is that of the pictures.

    Args:
        keep_bytes: decoded pictures, with their masks, that are kept for their further crops: the last ones that fit.
            One is kept in any case.
    """

    def __init__(self, pictures: ImageSet, times: int, keep_bytes: float = 0) -> None:
        super().__init__(pictures.labels.repeat_interleave(times, 0), pictures.classes, pictures.corrupt)
        self.pictures, self.times = pictures, times
        self.masked, self.questions, self.reading = pictures.masked, pictures.questions, pictures.reading
        self.origin, self.notes = pictures.origin, pictures.notes
        self.groups = None if pictures.groups is None else pictures.groups.repeat_interleave(times)
        self.blocks = None if pictures.blocks is None else pictures.blocks * times
        self.kept_share = pictures.kept_share
        self._room = keep_bytes
        self._kept: OrderedDict[tuple[int, bool], Tensor] = OrderedDict()

    @property
    def channels(self) -> int:
        return self.pictures.channels

    def find(self, index: int) -> tuple[ImageSet, int]:
        return self.pictures, index // self.times

    def read(self, index: int) -> Tensor:
        return self._read(index // self.times, mask=False)

    def read_part(self, index: int, choose: Choose) -> tuple[Tensor, tuple[int, int]]:
        if choose is not whole:
            return super().read_part(index, choose)
        image = self.read(index)
        return image, (image.shape[1], image.shape[2])

    def read_mask(self, index: int) -> Tensor:
        return self._read(index // self.times, mask=True)

    def expect(self, indices: Iterable[int]) -> None:
        self.pictures.expect(dict.fromkeys(index // self.times for index in indices))

    def far(self) -> list[Far]:
        return [
            replace(
                each,
                first=each.first * self.times,
                indices=np.repeat(np.arange(len(each)) if each.indices is None else each.indices, self.times),
                times=self.times * each.times,
            )
            for each in self.pictures.far()
        ]

    def identities(self, indices: Tensor) -> Iterator[bytes]:
        return self.pictures.identities(indices // self.times)

    def read_as(self, reading: Reading) -> None:
        super().read_as(reading)
        self.pictures.read_as(reading)

    @cached_property
    def extents(self) -> Tensor:
        return self.pictures.extents.repeat_interleave(self.times, 0)

    @cached_property
    def common_extent(self) -> tuple[int, int] | None:
        return self.pictures.common_extent

    @cached_property
    def _fingerprint(self) -> str:
        return self.pictures.fingerprint()

    def _read(self, picture: int, *, mask: bool) -> Tensor:
        key = picture, mask
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = self.pictures.read_mask(picture) if mask else self.pictures.read_part(picture, whole)[0]
        self._kept[key] = found
        while len(self._kept) > 2 and sum(kept.nbytes for kept in self._kept.values()) > self._room:
            self._kept.popitem(last=False)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """As it is sent to a worker process, which reads for itself."""
        return {**vars(self), "_kept": OrderedDict()}


def several(pictures: ImageSet, data: config.Data) -> ImageSet:
    """As many crops of each picture as a run file asks for; where that is one, the pictures themselves."""
    if data.scenes.crops == 1:
        return pictures
    readers = max(1, worker_count(data.workers, MOST_WORKERS))
    held = isinstance(pictures, ArraySet)
    return Crops(pictures, data.scenes.crops, 0 if held else data.memory_limit_gb * 1e9 / readers)


class Foreground(NamedTuple):
    """Crops that hold an object.

    Attributes:
        share: of all crops; those of pictures without an object lie anywhere.
        classes: numbers of the classes that are objects, rising.
    """

    share: float
    classes: tuple[int, ...]

    def drawn(self, seed: int, epoch: int, indices: Tensor) -> list[tuple[int, int] | None]:
        """For `pixel`: of each sample (int64 [n]) two words where its crop is to hold an object, else None."""
        words = random.words(seed, epoch, indices, random.FOREGROUND, 3).tolist()
        return [(kind, which) if first < self.share * 2**32 else None for first, kind, which in words]

    def pixel(self, mask: Tensor, words: tuple[int, int] | None) -> tuple[int, int] | None:
        """Row and column of a pixel of an object, on which the crop is laid; None: it lies anywhere.

        First one of the classes that the mask holds is drawn, then one of its pixels, each as likely as any other.

        Args:
            mask: uint8 [H, W].
        """
        if words is None:
            return None
        values = mask.numpy()
        counts = np.bincount(values.ravel(), minlength=256)
        there = [number for number in self.classes if counts[number]]
        if not there:
            return None
        number = there[words[0] * len(there) >> 32]
        which = words[1] * int(counts[number]) >> 32
        by_row = np.cumsum(np.count_nonzero(values == number, axis=1))
        row = int(np.searchsorted(by_row, which, side="right"))
        before = int(by_row[row - 1]) if row else 0
        return row, int(np.flatnonzero(values[row] == number)[which - before])


def foreground(share: float, names: Sequence[str], classes: Sequence[str]) -> Foreground | None:
    """What a run file asks for; None: crops lie anywhere.

    Args:
        names: the classes that are objects; none: all but the one that is called background.
        classes: all of them, in order.

    Raises:
        ConfigError: there is no such class, or nobody says which are objects.
    """
    if not share:
        return None
    if others := [name for name in names if name not in classes]:
        raise ConfigError(f"data.scenes.foreground_classes: {unknown('Class', others[0], classes)}")
    if not names and BACKGROUND not in map(str.lower, classes):
        raise ConfigError(
            f"data.scenes.foreground lays crops on objects, and no class is called {BACKGROUND}: name those that are "
            f"objects among {', '.join(classes[:5])}{', ...' * (len(classes) > 5)}: data.scenes.foreground_classes: "
            f"[{classes[-1]}]."
        )
    chosen = names or [name for name in classes if name.lower() != BACKGROUND]
    if not chosen:
        raise ConfigError(f"data.scenes.foreground lays crops on objects, and the only class is {BACKGROUND}.")
    return Foreground(share, tuple(sorted(classes.index(name) for name in set(chosen))))
