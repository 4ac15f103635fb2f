"""Batches of scenes with their masks: views for training, whole scenes for evaluation."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby, islice
from typing import Any

import torch
from torch import Tensor

from counterpoise.data.crops import Foreground
from counterpoise.data.epochs import Batch, Epochs, InOrder, Large
from counterpoise.data.images import reading_specification
from counterpoise.data.order import Order
from counterpoise.data.rasters import Raster, raster_of
from counterpoise.data.segmentation_views import Draw, ScenePlan, draw, render, scene_specification, shrink, words
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import ImageSet
from counterpoise.data.workers import BatchPlan, EvalReader, OnCorrupt, ReadBatch, Reader, Workers
from counterpoise.errors import CorruptImage

_PIXELS_AT_ONCE = 2**20  # of scenes that are evaluated together


class SceneLoader(Epochs):
    """Views of scenes: see `Epochs`. Targets are int64 [B, H, W], 255 where void.

    Args:
        plan: what determines the views.
        foreground: which views hold an object; None: they lie anywhere.
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
        foreground: Foreground | None = None,
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
        self.plan, self.foreground = plan, foreground
        self._read_by(_SceneViews(images, plan, foreground, on_corrupt), workers)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        return self._from_workers(epoch, first_step)

    @property
    def specification(self) -> dict[str, Any]:
        times, foreground = self.images.times, self.foreground
        return {
            **scene_specification(self.plan),
            **reading_specification(self.images.reading),
            **({"crops": times} if times > 1 else {}),
            **({} if foreground is None else {"foreground": [foreground.share, *foreground.classes]}),
        }

    def shown(self) -> str:
        said = [words(self.plan)]
        said += [f"{self.images.times:,} of each scene an epoch"] * (self.images.times > 1)
        if self.foreground is not None:
            names = ", ".join(self.images.classes[number] for number in self.foreground.classes)
            said.append(f"{100 * self.foreground.share:.3g}% of them around a pixel of {names}")
        return ", ".join(said)

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

    def with_large(self, pixels: int | None) -> Iterator[Batch | Large]:
        waiting: deque[int | None] = deque()

        def planned() -> Iterator[list[int]]:
            for group in self._groups():
                height, width = self._extent(group[0])
                large = pixels is not None and height * width > pixels
                waiting.extend(group if large else [None])
                yield from ([] for _ in group) if large else [group]

        for batch in self._read(planned()):
            index = waiting.popleft()
            found = batch if index is None else self._reader.shown(index, self._large, self.corrupt)
            if found is not None:
                yield found

    def _large(self, index: int) -> Large:
        """A scene by itself, read in this process: it does not travel. Raises CorruptImage."""
        images = self.images
        if (parts := images.in_parts(index)) is not None:
            return Large(parts[0].reduced(self._reduction), parts[1], torch.tensor([index]), images)
        mask, file = images.read_mask(index), images.file(index)
        picture = Raster(images.read(index)) if file is None else raster_of(file, images.reading, images.name(index))
        return Large(picture.reduced(self._reduction), mask, torch.tensor([index]), images)

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

    def __init__(self, images: ImageSet, plan: ScenePlan, foreground: Foreground | None, on_corrupt: OnCorrupt) -> None:
        super().__init__(images, on_corrupt)
        self.plan, self.foreground = plan, foreground

    def make(self, batch: BatchPlan) -> ReadBatch:
        wanted = list(dict.fromkeys(batch.samples))
        draws = dict(zip(wanted, self._drawn(batch.epoch, wanted), strict=True))
        views: dict[int, tuple[Tensor, Tensor]] = {}
        corrupt: list[str] = []

        def show(index: int) -> tuple[Tensor, Tensor]:
            own, laid = draws.get(index) or self._drawn(batch.epoch, [index])[0]
            image, mask = self.images.in_parts(index) or self.read(index)
            around = None
            if self.foreground is not None and laid is not None:
                around = self.foreground.pixel(mask if isinstance(mask, Tensor) else mask.whole(), laid)
            return render(self.plan, image, mask, own, around)

        if self.images.times > 1:  # one after the other of a picture, which is then decoded once
            wanted.sort()
        shown = {index: self.readable(index, views, show, corrupt) for index in wanted}
        samples = [shown[index] for index in batch.samples]
        images, masks = (torch.stack([views[index][side] for index in samples]) for side in (0, 1))
        return ReadBatch(images, masks, torch.tensor(samples), corrupt)

    def _drawn(self, epoch: int, samples: list[int]) -> list[tuple[Draw, tuple[int, int] | None]]:
        """The draw of each sample, and the words by which its view holds an object where it is to."""
        indices = torch.tensor(samples)
        laid: list[tuple[int, int] | None] = [None] * len(samples)
        if self.foreground is not None:
            laid = self.foreground.drawn(self.plan.seed, epoch, indices)
        return list(zip(draw(self.plan, epoch, indices), laid, strict=True))
