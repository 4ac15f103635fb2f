"""Batches of views for training, and of plain images for evaluation.

Small images lie in memory and are varied a whole batch at a time; others are decoded by worker processes. Either way
batch k of an epoch holds the same samples in the same views, for any number of workers and processes, and from any step
on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data import mixing
from counterpoise.data.counting import countable, numbered, numbers
from counterpoise.data.epochs import Batch, Epochs, InOrder
from counterpoise.data.images import prepare, reading_specification, resize
from counterpoise.data.order import Order
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import ImageSet
from counterpoise.data.views import (
    Draws,
    augment,
    draw,
    draw_mix,
    plan_views,
    view_specification,
    words,
)
from counterpoise.data.workers import BatchPlan, EvalReader, OnCorrupt, ViewReader, Workers
from counterpoise.errors import ConfigError

_DRAWN_AT_ONCE = 16384  # samples: drawing for one costs as much as for hundreds


class DrawnViews(NamedTuple):
    """What is shown at n places in the order of an epoch. Where samples are mixed, the last is only a partner.

    Attributes:
        indices: int64 [n], samples, on the device of the loader.
        draws: of their views.
        mixes: how each is mixed with the next; None where none is.
    """

    indices: Tensor
    draws: Draws
    mixes: mixing.Mix | None

    def part(self, start: int, stop: int) -> DrawnViews:
        """Places start, ..., stop - 1."""
        rows = slice(start, stop)
        mixes = None if self.mixes is None else mixing.Mix(*(value[rows] for value in self.mixes))
        return DrawnViews(self.indices[rows], Draws(*(value[rows] for value in self.draws)), mixes)

    def at(self, places: Tensor) -> DrawnViews:
        """Some places (int64 [n], on the device), without RandAugment."""
        draws = self.draws.with_moved(value.index_select(0, places) for value in self.draws.movable)
        mixes = None if self.mixes is None else mixing.Mix(*(value.index_select(0, places) for value in self.mixes))
        return DrawnViews(self.indices.index_select(0, places), draws, mixes)

    def copy_(self, other: DrawnViews) -> None:
        """Take over what `other` holds, in place, without RandAugment."""
        self.indices.copy_(other.indices)
        for mine, theirs in zip(self.draws.movable, other.draws.movable, strict=True):
            mine.copy_(theirs)
        for mine, theirs in zip(self.mixes or (), other.mixes or (), strict=True):
            mine.copy_(theirs)


class TrainLoader(Epochs):
    """Views of images: see `Epochs`.

    A corrupt image is named in CorruptImage (`on_corrupt` "stop"), or its place is taken by the next sample that can be
    read ("skip"), with the index, label and view of that one.

    Args:
        num_classes: width of targets where samples are mixed.
        size: edge of a view in pixels; None: that of `views`, else small images' own where all have one.
        workers: processes that decode images which are not in memory; 0 decodes in this one.
        batch_size, seed, drop_last, rank, world, device, order: as for `Epochs`.
        fit: how pictures of another shape are brought to that of a view.

    Attributes:
        plan: what determines the views.

    Raises:
        ConfigError: `size` is missing.
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
        workers: Workers = "auto",
        drop_last: bool = False,
        on_corrupt: OnCorrupt = "stop",
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        fit: Literal["crop", "squash", "pad"] = "crop",
        order: Order | None = None,
    ) -> None:
        self.plan = plan_views(views, images, seed=seed, size=size, fit=fit)
        super().__init__(
            images,
            batch_size=batch_size,
            seed=seed,
            drop_last=drop_last,
            rank=rank,
            world=world,
            device=device,
            order=order,
        )
        self.num_classes = num_classes
        self._pixels: Tensor | None = None
        if (
            isinstance(images, ArraySet)
            and self.plan.crop != "resized"
            and images.common_extent == (self.plan.height, self.plan.width)
        ):
            self._pixels = images.images.to(self.device)
            self._labels = images.labels.to(self.device)
        else:
            self._read_by(ViewReader(images, self.plan, num_classes, on_corrupt, self.order), workers)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        if self._pixels is not None:
            return self._from_memory(epoch, first_step)
        return self._from_workers(epoch, first_step, self.plan.mixes)

    @property
    def static(self) -> bool:
        """Whether `draw_epoch` and `show` are there: the set lies on the device, and its images are all treated alike.

        RandAugment does otherwise with each.
        """
        return self._pixels is not None and not self.plan.operations

    def draw_epoch(self, epoch: int) -> tuple[Tensor, DrawnViews]:
        """All places of an epoch, and the first once more where samples are mixed; their samples on the CPU, too."""
        return self._draw(epoch, 0, min(self.steps_per_epoch * self.batch_size, self.plan.count))

    def show(self, drawn: DrawnViews) -> tuple[Tensor, Tensor]:
        """Images and target of places, as in `Batch`; of sets that lie in memory."""
        assert self._pixels is not None
        images = augment(self.plan, self._pixels.index_select(0, drawn.indices), drawn.draws)
        target = self._labels.index_select(0, drawn.indices)
        if drawn.mixes is not None:
            mix = mixing.Mix(*(value[:-1] for value in drawn.mixes))
            images = mixing.images(images[:-1], images[1:], mix)
            target = mixing.targets(target[:-1], target[1:], mix.share, self.num_classes)
        return images, target

    @property
    def specification(self) -> dict[str, Any]:
        # Who a sample is mixed with is who follows it.
        order = self.order.specification if self.plan.mixes else {}
        return {**view_specification(self.plan), **reading_specification(self.images.reading), **order}

    def shown(self) -> str:
        return words(self.plan)

    def countable(self) -> int | None:
        return countable(self.plan)

    def numbers(self, epoch: int, indices: Tensor) -> Tensor:
        if self.countable() is None:
            return super().numbers(epoch, indices)
        return numbers(self.plan, draw(self.plan, epoch, indices))

    def views_of(self, groups: Iterable[Tensor], epoch: int, number: int | None = None) -> Iterator[Tensor]:
        plan = self.plan
        if self._pixels is None:
            yield from self._views_from_workers(
                BatchPlan(epoch, group.tolist(), self._partners(epoch, group).tolist(), number) for group in groups
            )
            return
        for group in groups:
            both = torch.cat([group, self._partners(epoch, group)])
            draws = draw(plan, epoch, both) if number is None else numbered(plan, number, len(both))
            pixels = self._pixels.index_select(0, both.to(self.device))
            views = augment(plan, pixels, draws.to(self.device))
            if plan.mixes:
                mix = draw_mix(plan, epoch, group).to(self.device)
                views = mixing.images(views[: len(group)], views[len(group) :], mix)
            yield views

    def _partners(self, epoch: int, indices: Tensor) -> Tensor:
        """Whom each sample is mixed with; nobody where none is."""
        return self.order.partners(epoch, indices) if self.plan.mixes else indices[:0]

    def _draw(self, epoch: int, start: int, stop: int) -> tuple[Tensor, DrawnViews]:
        """Places start, ..., stop - 1 and, where samples are mixed, the partner of the last."""
        plan = self.plan
        indices = self.order.at(epoch, start, stop + plan.mixes)
        there = indices.to(self.device, non_blocking=True)
        mixes = draw_mix(plan, epoch, indices).to(self.device) if plan.mixes else None
        return indices, DrawnViews(there, draw(plan, epoch, indices).to(self.device), mixes)

    def _from_memory(self, epoch: int, first_step: int) -> Iterator[Batch]:
        at_once = max(1, _DRAWN_AT_ONCE // self.batch_size)
        for begin in range(first_step, self.steps_per_epoch, at_once):
            steps = range(begin, min(begin + at_once, self.steps_per_epoch))
            base = steps[0] * self.batch_size
            end = min(steps[-1] * self.batch_size + self.batch_size, self.plan.count)
            indices, drawn = self._draw(epoch, base, end)
            for start, stop, total in self._shares(steps):
                start, stop = start - base, stop - base
                images, target = self.show(drawn.part(start, stop + self.plan.mixes))
                yield Batch(images, target, indices[start:stop], total)


class EvalLoader(InOrder):
    """Every image once, in order, as it is evaluated: see `InOrder` and `images.prepare`.

    Args:
        size: edge of an image in pixels; None: the images' own size, where all have one.
        crop_share: part of the shorter side that the central crop keeps.
        fit: how a picture is brought to that size.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        size: int | None,
        crop_share: float = 1.0,
        fit: str = "crop",
        batch_size: int = 250,
        workers: Workers = "auto",
        rank: int = 0,
        world: int = 1,
        on_corrupt: OnCorrupt = "stop",
    ) -> None:
        native = images.common_extent if size is None or isinstance(images, ArraySet) else None
        if size is None and native is None:
            raise ConfigError(
                "data.size is missing: images differ in size, so say which edge in pixels a network is given."
            )
        if size is not None:
            show = partial(prepare, size=size, crop_share=crop_share, fit=fit)
        else:
            show = partial(resize, size=native or (0, 0))
        super().__init__(
            EvalReader(images, show, on_corrupt), batch_size=batch_size, workers=workers, rank=rank, world=world
        )
        self._size, self._native, self._crop_share, self._fit = size, native, crop_share, fit
        self._as_they_are = size is None or native == (size, size)

    def shown(self) -> str:
        if self._size is None or self._as_they_are:
            return "as they are"
        edge = f"{self._size} x {self._size}"
        if self._fit != "crop":
            return f"all of each picture, {'squashed' if self._fit == 'squash' else 'padded'} to {edge}"
        return f"the middle {edge} of a shorter side of {max(self._size, round(self._size / self._crop_share))}"

    def __iter__(self) -> Iterator[Batch]:
        images = self.images
        if not (self._as_they_are and isinstance(images, ArraySet)):
            yield from super().__iter__()
            return
        for group in self._groups():
            rows = slice(group[0], group[-1] + 1)
            yield Batch(images.images[rows], images.labels[rows], torch.tensor(group), len(group))
