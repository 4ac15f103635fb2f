"""Batches of scenes with their masks: views for training, whole scenes for evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby, islice
from typing import Any

import torch
from torch import Tensor

from counterpoise.data.epochs import Batch, Epochs, InOrder
from counterpoise.data.images import reading_specification
from counterpoise.data.order import Order
from counterpoise.data.segmentation_views import ScenePlan, draw, render, scene_specification, shrink, words
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import ImageSet
from counterpoise.data.workers import BatchPlan, EvalReader, OnCorrupt, ReadBatch, Reader, Workers
from counterpoise.errors import CorruptImage

_PIXELS_AT_ONCE = 2**20  # of scenes that are evaluated together


class SceneLoader(Epochs):
    """Views of scenes: see `Epochs`. Targets are int64 [B, H, W], 255 where void.

    Args:
        plan: what determines the views.
        workers: processes that make the views; 0 makes them in this one.
        on_corrupt: as for `loader.TrainLoader`, masks included.
        batch_size, drop_last, rank, world, device, order: as for `Epochs`.
    """

    def __init__(
        self,
        images: ImageSet,
        plan: ScenePlan,
        *,
        batch_size: int,
        workers: Workers = "auto",
        drop_last: bool = False,
        on_corrupt: OnCorrupt = "stop",
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        order: Order | None = None,
    ) -> None:
        super().__init__(
            images,
            batch_size=batch_size,
            seed=plan.seed,
            drop_last=drop_last,
            rank=rank,
            world=world,
            device=device,
            order=order,
        )
        self.plan = plan
        self._read_by(_SceneViews(images, plan, on_corrupt), workers)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        return self._from_workers(epoch, first_step)

    @property
    def specification(self) -> dict[str, Any]:
        return {**scene_specification(self.plan), **reading_specification(self.images.reading)}

    def shown(self) -> str:
        return words(self.plan)

    def views_of(self, groups: Iterable[Tensor], epoch: int, number: int | None = None) -> Iterator[Tensor]:
        return self._views_from_workers(BatchPlan(epoch, group.tolist(), []) for group in groups)


class SceneEvalLoader(InOrder):
    """Every scene once, in order, with its mask at its own size, uint8 [B, H, W]; batches hold scenes of one size.

    See `InOrder`.

    Args:
        reduction: how many times smaller the images are given than they are; at 1 as they are.
        window: height and width of that through which the model will look at them, to be told.
        batch_size: most scenes at once; large ones come fewer at a time.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        reduction: float = 1.0,
        window: tuple[int, int] | None = None,
        batch_size: int = 250,
        workers: Workers = "auto",
        rank: int = 0,
        world: int = 1,
        on_corrupt: OnCorrupt = "stop",
    ) -> None:
        reader = EvalReader(images, partial(shrink, reduction=reduction), on_corrupt)
        # What lies in memory is not worth a process.
        workers = 0 if isinstance(images, ArraySet) else workers
        super().__init__(reader, batch_size=batch_size, workers=workers, rank=rank, world=world)
        self._window, self._reduction = window, reduction

    def shown(self) -> str:
        smaller = "" if self._reduction == 1 else f", {self._reduction:.3g} times smaller"
        if self._window is None:
            return f"whole{smaller}"
        return f"by a sliding window of {self._window[1]} x {self._window[0]}{smaller}"

    def _groups(self) -> Iterator[list[int]]:
        """Indices in order, cut where the size changes or a batch is full."""
        for (height, width), indices in groupby(self._indices, self._extent):
            at_once = min(self._batch_size, max(1, _PIXELS_AT_ONCE // max(1, height * width)))
            while group := list(islice(indices, at_once)):
                yield group

    def _extent(self, index: int) -> tuple[int, int]:
        try:
            return self.images.extent(index)
        except CorruptImage:  # said, or left out, when it is read
            return 0, 0


class _SceneViews(Reader):
    """Makes batches of views. A corrupt scene's place is taken by the next readable one, with the view of that one."""

    def __init__(self, images: ImageSet, plan: ScenePlan, on_corrupt: OnCorrupt) -> None:
        super().__init__(images, on_corrupt)
        self.plan = plan

    def make(self, batch: BatchPlan) -> ReadBatch:
        plan, epoch = self.plan, batch.epoch
        wanted = list(dict.fromkeys(batch.samples))
        draws = dict(zip(wanted, draw(plan, epoch, torch.tensor(wanted)), strict=True))
        views: dict[int, tuple[Tensor, Tensor]] = {}
        corrupt: list[str] = []

        def show(index: int) -> tuple[Tensor, Tensor]:
            return render(plan, *self.read(index), draws.get(index) or draw(plan, epoch, torch.tensor([index]))[0])

        samples = [self.readable(index, views, show, corrupt) for index in batch.samples]
        images, masks = (torch.stack([views[index][side] for index in samples]) for side in (0, 1))
        return ReadBatch(images, masks, torch.tensor(samples), corrupt)
