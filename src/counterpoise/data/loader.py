"""Batches of views for training, and of plain images for evaluation.

Small images lie in memory and are varied a whole batch at a time; others are decoded by worker processes. Either way
batch k of an epoch holds the same samples in the same views, for any number of workers and processes, and from any step
on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data import mixing, random
from counterpoise.data.reading import OnCorrupt, Place, Places, PlainReader, ViewReader, data_loader, made
from counterpoise.data.sources.base import ArraySet, ImageSet
from counterpoise.data.views import augment, draw, draw_mix, plan_views
from counterpoise.errors import ConfigError, DataError

_DRAWN_AT_ONCE = 16384  # samples: drawing for one costs as much as for hundreds


@dataclass
class Batch:
    """Images with their targets.

    Attributes:
        images: uint8 [B, 3, H, W].
        target: int64 [B], -1 where unlabeled; with mixup or cutmix float32 [B, num_classes], zeros where unlabeled.
        indices: int64 [B] on the CPU, sample indices within the set.
        total: size of the whole batch, over all processes.
    """

    images: Tensor
    target: Tensor
    indices: Tensor
    total: int


class TrainLoader:
    """Views of a data set in the random order of each epoch.

    Batch k of an epoch is positions k * batch_size, ... of the epoch's order; of it each process takes a contiguous
    share. A corrupt image is named in CorruptImage (`on_corrupt` "stop"), or its place is taken by the next sample that
    can be read ("skip"), with the index, label and view of that one.

    Args:
        num_classes: width of targets where samples are mixed.
        batch_size: images a step, over all processes together.
        size: edge of a view in pixels; None: the images' own size, where they lie in memory.
        workers: processes that decode images which are not in memory; 0 decodes in this one.
        rank, world: this process among all that train together.
        device: where batches are needed.

    Attributes:
        plan: what determines the views.
        steps_per_epoch: batches in an epoch.
        corrupt: names of the corrupt images seen so far.

    Raises:
        ConfigError: no step fits in an epoch, a process would have no sample in some step, or `size` is missing.
        DataError: the set is empty.
    """

    def __init__(
        self,
        images: ImageSet,
        views: config.Views,
        *,
        num_classes: int,
        batch_size: int,
        seed: int,
        size: int | None,
        workers: int = 2,
        drop_last: bool = False,
        on_corrupt: OnCorrupt = "stop",
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        native = images.images.shape[2:] if isinstance(images, ArraySet) else None
        self.images = images
        self.plan = plan_views(
            views, seed=seed, count=len(images), size=size, native=(native[0], native[1]) if native else None
        )
        self.num_classes = num_classes
        self.batch_size = batch_size
        self.rank, self.world = rank, world
        self.device = torch.device(device)
        self.steps_per_epoch = _steps(len(images), batch_size, drop_last, world)
        self.corrupt = list(images.corrupt)
        self._pixels: Tensor | None = None
        if (
            isinstance(images, ArraySet)
            and self.plan.crop != "resized"
            and native == (self.plan.height, self.plan.width)
        ):
            self._pixels = images.images.to(self.device)
            self._labels = images.labels.to(self.device)
        else:
            self._places = Places()
            self._reader = data_loader(
                ViewReader(images, self.plan, num_classes, on_corrupt),
                self._places,
                workers,
                pin_memory=self.device.type == "cuda",
                persistent=True,
            )

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from `first_step` on. Start one epoch at a time: they share the workers.

        Raises:
            CorruptImage: names an image that cannot be read, where `on_corrupt` is "stop".
            RunError: a worker process was ended from outside.
        """
        order = random.permutation(self.plan.seed, epoch, self.plan.count)
        if self._pixels is not None:
            return self._from_memory(self._pixels, epoch, order, first_step)
        return self._from_workers(epoch, order, first_step)

    def _share(self, step: int) -> tuple[int, int, int]:
        """This process's share of a batch, as first position and end, and the size of the whole batch."""
        start = step * self.batch_size
        total = min(self.batch_size, self.plan.count - start)
        return start + total * self.rank // self.world, start + total * (self.rank + 1) // self.world, total

    def _from_memory(self, pixels: Tensor, epoch: int, order: Tensor, first_step: int) -> Iterator[Batch]:
        plan = self.plan
        at_once = max(1, _DRAWN_AT_ONCE // self.batch_size)
        for begin in range(first_step, self.steps_per_epoch, at_once):
            steps = range(begin, min(begin + at_once, self.steps_per_epoch))
            base = steps[0] * self.batch_size
            # One more than the batches hold: the partner of the last sample. After the last comes the first.
            positions = torch.arange(base, min((steps[-1] + 1) * self.batch_size, plan.count) + plan.mixes) % plan.count
            indices = order[positions]
            there = indices.to(self.device, non_blocking=True)
            draws = draw(plan, epoch, indices).to(self.device)
            mixes = draw_mix(plan, epoch, indices).to(self.device) if plan.mixes else None
            for step in steps:
                start, stop, total = self._share(step)
                start, stop = start - base, stop - base
                seen = stop + plan.mixes
                images = augment(plan, pixels.index_select(0, there[start:seen]), draws.part(start, seen))
                target = self._labels.index_select(0, there[start:seen])
                if mixes is not None:
                    mix = mixing.Mix(*(value[start:stop] for value in mixes))
                    images = mixing.images(images[:-1], images[1:], mix)
                    target = mixing.targets(target[:-1], target[1:], mix.share, self.num_classes)
                yield Batch(images, target, indices[start:stop], total)

    def _from_workers(self, epoch: int, order: Tensor, first_step: int) -> Iterator[Batch]:
        shares = [self._share(step) for step in range(first_step, self.steps_per_epoch)]
        partners = order.roll(-1) if self.plan.mixes else order[:0]
        self._places.next = (
            Place(epoch, order[start:stop].tolist(), partners[start:stop].tolist()) for start, stop, _ in shares
        )
        for item, (_, _, total) in zip(made(self._reader, self.corrupt), shares, strict=True):
            images, target = (value.to(self.device, non_blocking=True) for value in (item.images, item.target))
            yield Batch(images, target, item.indices, total)


class EvalLoader:
    """Every image once, in order, as it is evaluated: see `images.prepare`.

    Several processes take contiguous shares. Corrupt images are left out where `on_corrupt` is "skip", and named in
    CorruptImage where it is "stop". `Batch.total` is the number of images in this process's batch.

    Args:
        size: edge of an image in pixels; None: the images' own size, where they lie in memory.
        crop_share: part of the shorter side that the central crop keeps.

    Attributes:
        images: the set.
        corrupt: names of the corrupt images seen so far.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        size: int | None,
        crop_share: float = 1.0,
        batch_size: int = 250,
        workers: int = 2,
        rank: int = 0,
        world: int = 1,
        on_corrupt: OnCorrupt = "stop",
    ) -> None:
        native = tuple(images.images.shape[2:]) if isinstance(images, ArraySet) else None
        if size is None and native is None:
            raise ConfigError(
                "data.size is missing: images differ in size, so say which edge in pixels a network is given."
            )
        self.images = images
        self.corrupt = list(images.corrupt)
        self._in_memory = size is None or native == (size, size)
        self._indices = torch.arange(len(images) * rank // world, len(images) * (rank + 1) // world)
        self._batch_size = batch_size
        self._reader = PlainReader(images, size or 0, crop_share, on_corrupt)
        self._workers = workers

    def __iter__(self) -> Iterator[Batch]:
        parts = torch.split(self._indices, self._batch_size) if len(self._indices) else ()
        if self._in_memory and isinstance(self.images, ArraySet):
            for part in parts:
                first, last = int(part[0]), int(part[-1]) + 1
                yield Batch(self.images.images[first:last], self.images.labels[first:last], part, len(part))
            return
        places = Places(Place(0, part.tolist(), []) for part in parts)
        loader = data_loader(self._reader, places, self._workers, pin_memory=False, persistent=False)
        for item in made(loader, self.corrupt):
            if len(item.indices):
                yield Batch(item.images, item.target, item.indices, len(item.indices))


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
