"""What loaders share: the order of an epoch, steps, each process's share; a set in order, as evaluated."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from counterpoise.data.order import FullOrder, Order
from counterpoise.data.packs.ahead import Ahead
from counterpoise.data.packs.course import Course, Steps
from counterpoise.data.rasters import MaskParts, Raster
from counterpoise.data.sources.base import ImageSet
from counterpoise.data.sources.questions import answers_of
from counterpoise.data.workers import BatchPlan, BatchPlans, Reader, Workers, data_loader, read_batches, worker_count
from counterpoise.errors import ConfigError, DataError


@dataclass(frozen=True)
class Large:
    """A scene that is too large for a tensor.

    Attributes:
        picture: it as it is shown.
        mask: uint8 [H, W], in its own size, or what parts of it are read from.
        indices: int64 [1] on the CPU, its index within `images`.
    """

    picture: Raster
    mask: Tensor | MaskParts
    indices: Tensor
    images: ImageSet

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the mask."""
        return self.mask.shape[0], self.mask.shape[1]

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width of the picture as it is shown."""
        return self.picture.size

    def target(self, rows: slice, columns: slice) -> Tensor:
        """As `Batch.target`, of a part of it."""
        return _meant(self.images, self.mask[None, rows, columns], torch.uint8)


@dataclass
class Batch:
    """Images with their targets.

    Attributes:
        images: uint8 [B, 3, H, W].
        target: int64 [B], -1 where unlabeled; with mixup or cutmix float32 [B, num_classes], zeros where unlabeled.
            Of scenes: int64 [B, H, W], 255 where void; where each class is a question of its own, int8 [B, Q, H, W] of
            1, 0 and -1 (unknown).
        indices: int64 [B] on the CPU, sample indices within the set.
        total: size of the whole batch, over all processes.
    """

    images: Tensor
    target: Tensor
    indices: Tensor
    total: int

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.images.shape[-2], self.images.shape[-1]

    def on(self, device: torch.device) -> Batch:
        """The same, with images and target there."""
        images, target = (value.to(device, non_blocking=True) for value in (self.images, self.target))
        return replace(self, images=images, target=target)

    def parts(self, count: int) -> list[Batch]:
        """The batch in so many parts of nearly one size, in order; it has as many images at least."""
        size = len(self.images)
        cuts = [(size * part // count, size * (part + 1) // count) for part in range(count)]
        return [
            replace(self, images=self.images[a:b], target=self.target[a:b], indices=self.indices[a:b]) for a, b in cuts
        ]


class Epochs(ABC):
    """Views of a data set in the random order of each epoch.

    Batch k of an epoch is positions k * batch_size, ... of the epoch's order; of it each process takes a contiguous
    share.

    Args:
        batch_size: images a step, over all processes together.
        rank, world: this process among all that train together.
        device: where batches are needed.
        order: of an epoch's images; None: any may come anywhere.

    Attributes:
        steps_per_epoch: batches in an epoch.
        corrupt: names of the corrupt images seen so far.
        workers: processes that read.
        seconds: what those who read have spent on the batches given so far, by stage.
        copying: what batches are copied to the device within, to measure it.

    Raises:
        ConfigError: no step fits in an epoch, or a process would have no sample in some step.
        DataError: the set is empty.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        batch_size: int,
        seed: int,
        drop_last: bool,
        rank: int,
        world: int,
        device: torch.device | str,
        order: Order | None = None,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.order = order or FullOrder(seed, len(images))
        self.rank, self.world = rank, world
        self.device = torch.device(device)
        self.steps_per_epoch = _steps(len(images), batch_size, drop_last, world)
        self.corrupt = list(images.corrupt)
        self.workers = 0
        self.seconds: Counter[str] = Counter()
        self.copying: Callable[[], AbstractContextManager[None]] = nullcontext

    @abstractmethod
    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `first_step` on. Start one epoch at a time: they share the workers.

        Raises:
            CorruptImage: names an image that cannot be read, where `on_corrupt` is "stop".
            RunError: a worker process was ended from outside.
        """

    @property
    @abstractmethod
    def specification(self) -> dict[str, Any]:
        """What determines the views, as JSON holds it: recorded answers of a teacher fit where this is equal."""

    @abstractmethod
    def shown(self) -> str:
        """How images are shown in training, in a few words."""

    def countable(self) -> int | None:
        """How many views an image has, where they can be counted."""
        return None

    def numbers(self, epoch: int, indices: Tensor) -> Tensor:
        """Which of its views each sample shows in an epoch, int64 [n]; indices int64 [n] on the CPU.

        Where views cannot be counted there is one an epoch, and its number is the epoch's.
        """
        return torch.full_like(indices, epoch)

    @abstractmethod
    def views_of(self, groups: Iterable[Tensor], epoch: int, number: int | None = None) -> Iterator[Tensor]:
        """The views uint8 [n, 3, H, W] of groups of samples (int64 [n] each): those of an epoch, or number `number`.

        Raises:
            CorruptImage, RunError: as `epoch`.
        """

    def _shares(self, steps: range) -> Iterator[tuple[int, int, int]]:
        """This process's shares of batches, as first position and end, and the size of the whole batch."""
        # Without the loader, which would otherwise keep itself, and so the workers, by what is planned.
        return _shares(steps, self.batch_size, len(self.images), self.rank, self.world)

    def _read_by(self, reader: Reader, workers: Workers) -> None:
        """Let `reader` make the batches, in worker processes."""
        self.workers = worker_count(workers, self.steps_per_epoch)
        self._plans = BatchPlans()
        stop = min(self.steps_per_epoch * self.batch_size, len(self.images))
        steps = Steps(self.batch_size, stop, *_ranks_here(self.rank, self.world), self.world)
        course = Course.of(self.images, self.order, steps)
        reader.ahead = None if course is None else Ahead(course)
        pin = self.device.type == "cuda"
        self._reader = data_loader(reader, self._plans, self.workers, pin_memory=pin, persistent=True)

    def close(self) -> None:
        """End the processes that read, where there are some; nothing is read afterwards."""
        vars(self).pop("_reader", None)

    def _views_from_workers(self, plans: Iterable[BatchPlan]) -> Iterator[Tensor]:
        self._plans.next = plans
        for item in read_batches(self._reader, self.corrupt):
            yield item.images.to(self.device, non_blocking=True)

    def _from_workers(self, epoch: int, first_step: int, mixes: bool = False) -> Iterator[Batch]:
        steps = range(first_step, self.steps_per_epoch)
        places = range(first_step * self.batch_size, self.steps_per_epoch * self.batch_size, self.batch_size)
        self._plans.next = _planned(self.order, epoch, places, self._shares(steps), mixes)
        for item, (_, _, total) in zip(read_batches(self._reader, self.corrupt), self._shares(steps), strict=True):
            self.seconds.update(item.seconds)
            with self.copying():
                images, target = (value.to(self.device, non_blocking=True) for value in (item.images, item.target))
            # Masks travel as bytes and count as labels do.
            yield Batch(images, _meant(self.images, target, torch.int64), item.indices, total)


class InOrder(ABC):
    """Every image of a set once, in order, as it is evaluated. `Batch.total` is the size of this process's batch.

    Several processes take contiguous shares. Corrupt images are left out where `on_corrupt` is "skip", and named in
    CorruptImage where it is "stop".

    Attributes:
        images: the set.
        corrupt: names of the corrupt images seen so far.
    """

    def __init__(self, reader: Reader, *, batch_size: int, workers: Workers, rank: int, world: int) -> None:
        self.images = reader.images
        self.corrupt = list(reader.images.corrupt)
        self._reader = reader
        self._batch_size = batch_size
        count = len(reader.images)
        self._indices = range(count * rank // world, count * (rank + 1) // world)
        self._workers = worker_count(workers, -(-len(self._indices) // batch_size))

    @abstractmethod
    def shown(self) -> str:
        """How images are shown, in a few words."""

    def _groups(self) -> Iterator[Sequence[int]]:
        """The indices of each batch."""
        for first in range(0, len(self._indices), self._batch_size):
            yield self._indices[first : first + self._batch_size]

    def with_large(self, pixels: int | None) -> Iterator[Batch | Large]:
        """The same, but scenes of more than so many pixels alone and as they were decoded."""
        yield from self

    def __iter__(self) -> Iterator[Batch]:
        yield from filter(None, self._read(self._groups()))

    def _read(self, groups: Iterable[Sequence[int]]) -> Iterator[Batch | None]:
        """The batch of each group; None where it holds nothing, or nothing that can be read."""
        plans = BatchPlans(BatchPlan(0, list(group), []) for group in groups)
        loader = data_loader(self._reader, plans, self._workers, pin_memory=False, persistent=False)
        for item in read_batches(loader, self.corrupt):
            if not len(item.indices):
                yield None
                continue
            target = _meant(self.images, item.target, torch.uint8)
            yield Batch(item.images, target, item.indices, len(item.indices))


def _meant(images: ImageSet, target: Tensor, of_masks: torch.dtype) -> Tensor:
    """Targets as they are asked for: masks in this type, or what they say of each question."""
    if target.dtype != torch.uint8:
        return target
    return target.to(of_masks) if images.questions is None else answers_of(images.questions, target)


def _shares(steps: range, batch_size: int, count: int, rank: int, world: int) -> Iterator[tuple[int, int, int]]:
    for step in steps:
        start = step * batch_size
        total = min(batch_size, count - start)
        yield start + total * rank // world, start + total * (rank + 1) // world, total


def _planned(
    order: Order, epoch: int, places: Iterable[int], shares: Iterable[tuple[int, int, int]], mixes: bool
) -> Iterator[BatchPlan]:
    """What makes the batches at these positions; where samples are mixed, each with that which follows it.

    places: where the whole batches begin.
    """
    for place, (start, stop, _) in zip(places, shares, strict=True):
        samples = order.at(epoch, start, stop + mixes).tolist()
        yield BatchPlan(epoch, samples[: stop - start], samples[1:] if mixes else [], place=place)


def _ranks_here(rank: int, world: int) -> tuple[int, int]:
    """The first of the processes on this machine, and the one behind the last, as torchrun says."""
    first = rank - int(os.environ.get("LOCAL_RANK", "0"))
    end = first + int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return (first, end) if 0 <= first <= rank < end <= world else (rank, rank + 1)


def _steps(count: int, batch_size: int, drop_last: bool, world: int) -> int:
    """Steps in an epoch. Raises where there are none, or where a process would have no sample in one."""
    if count == 0:
        raise DataError("The training set holds no images.")
    full, rest = divmod(count, batch_size)
    if drop_last and not full:
        raise ConfigError(
            f"train.drop_last leaves nothing: one batch needs {batch_size} images and there are {count}. "
            f"Set train.batch_size to {count} or less."
        )
    if full and batch_size < world:
        raise ConfigError(
            f"train.batch_size is {batch_size}; {world} processes need at least {world}, one image for each."
        )
    if rest and not drop_last and rest < world:
        fitting = [size for size in range(world, count + 1) if count % size == 0 or count % size >= world]
        advice = f" or train.batch_size to {min(fitting, key=lambda size: abs(size - batch_size))}" if fitting else ""
        raise ConfigError(
            f"The last batch of an epoch ({count} images in batches of {batch_size}) has {rest}, too few for {world} "
            f"processes: set train.drop_last{advice}."
        )
    return full if drop_last else full + bool(rest)
