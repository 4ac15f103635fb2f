"""Batches of scenes with their masks: views for training, whole scenes for evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from counterpoise.data.epochs import Batch, Epochs
from counterpoise.data.images import as_told
from counterpoise.data.reading import Made, OnCorrupt, Place, Places, Reader, data_loader, made
from counterpoise.data.segmentation_views import ScenePlan, draw, render, scene_specification, shrink
from counterpoise.data.sources.base import ArraySet, ImageSet
from counterpoise.errors import CorruptImage

_PIXELS_AT_ONCE = 2**20  # of scenes that are evaluated together


class SceneLoader(Epochs):
    """Views of scenes: see `Epochs`. Targets are int64 [B, H, W], 255 where void.

    Args:
        plan: what determines the views.
        workers: processes that make the views; 0 makes them in this one.
        on_corrupt: as for `loader.TrainLoader`, masks included.
        batch_size, drop_last, rank, world, device: as for `Epochs`.
    """

    def __init__(
        self,
        images: ImageSet,
        plan: ScenePlan,
        *,
        batch_size: int,
        workers: int = 2,
        drop_last: bool = False,
        on_corrupt: OnCorrupt = "stop",
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            images, batch_size=batch_size, seed=plan.seed, drop_last=drop_last, rank=rank, world=world, device=device
        )
        self.plan = plan
        self._read_by(_SceneViews(images, plan, on_corrupt), workers)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        order = self._order(epoch)
        return self._from_workers(epoch, order, order[:0], first_step)

    @property
    def specification(self) -> dict[str, Any]:
        return {**scene_specification(self.plan), **as_told(self.images.reading)}

    def shown(self) -> str:
        low, high = self.plan.scale
        scale = "" if low == high == 1 else f" at {low:.3g} to {high:.3g} times their size"
        return f"windows of {self.plan.width} x {self.plan.height}{scale}{', mirrored' if self.plan.flip else ''}"

    def views_of(self, groups: Iterable[Tensor], epoch: int, number: int | None = None) -> Iterator[Tensor]:
        return self._views_from_workers(Place(epoch, group.tolist(), []) for group in groups)


class SceneEvalLoader:
    """Every scene once, in order, with its mask at its own size, uint8 [B, H, W]; batches hold scenes of one size.

    Args:
        reduction: how many times smaller the images are given than they are; at 1 as they are.
        window: height and width of that through which the model will look at them, to be told.
        batch_size: most scenes at once; large ones come fewer at a time.
        rank, world, on_corrupt: as for `loader.EvalLoader`.

    Attributes:
        images: the set.
        corrupt: names of the corrupt scenes seen so far.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        reduction: float = 1.0,
        window: tuple[int, int] | None = None,
        batch_size: int = 250,
        workers: int = 2,
        rank: int = 0,
        world: int = 1,
        on_corrupt: OnCorrupt = "stop",
    ) -> None:
        self.images = images
        self.corrupt = list(images.corrupt)
        self._indices = range(len(images) * rank // world, len(images) * (rank + 1) // world)
        self._batch_size = batch_size
        self._window = window
        self._reader = _WholeScenes(images, reduction, on_corrupt)
        # What lies in memory is not worth a process.
        self._workers = 0 if isinstance(images, ArraySet) else workers

    def shown(self) -> str:
        """How scenes are shown, in a few words."""
        smaller = "" if self._reader.reduction == 1 else f", {self._reader.reduction:.3g} times smaller"
        if self._window is None:
            return f"whole{smaller}"
        return f"by a sliding window of {self._window[1]} x {self._window[0]}{smaller}"

    def __iter__(self) -> Iterator[Batch]:
        places = Places(Place(0, group, []) for group in self._groups())
        loader = data_loader(self._reader, places, self._workers, pin_memory=False, persistent=False)
        for item in made(loader, self.corrupt):
            if len(item.indices):
                yield Batch(item.images, item.target, item.indices, len(item.indices))

    def _groups(self) -> Iterator[list[int]]:
        """Indices in order, cut where the size changes or a batch is full."""
        group: list[int] = []
        size: tuple[int, int] | None = None
        for index in self._indices:
            try:
                found = self.images.extent(index)
            except CorruptImage:  # said, or left out, when it is read
                found = (0, 0)
            full = (
                group
                and size
                and len(group) >= min(self._batch_size, max(1, _PIXELS_AT_ONCE // max(1, size[0] * size[1])))
            )
            if group and (found != size or full):
                yield group
                group = []
            group.append(index)
            size = found
        if group:
            yield group


class _SceneReader(Reader):
    def read_both(self, index: int, corrupt: list[str]) -> tuple[Tensor, Tensor] | None:
        """Image and mask, or None where either is corrupt and may be skipped."""
        image = self.read(index, corrupt)
        if image is None:
            return None
        try:
            return image, self.images.read_mask(index)
        except CorruptImage as error:
            if self.on_corrupt == "stop":
                raise
            corrupt.append(error.name)
            return None


class _SceneViews(_SceneReader):
    """Makes batches of views. A corrupt scene's place is taken by the next readable one, with the view of that one."""

    def __init__(self, images: ImageSet, plan: ScenePlan, on_corrupt: OnCorrupt) -> None:
        super().__init__(images, on_corrupt)
        self.plan = plan

    def make(self, place: Place) -> Made:
        plan, epoch = self.plan, place.epoch
        wanted = list(dict.fromkeys(place.samples))
        draws = dict(zip(wanted, draw(plan, epoch, torch.tensor(wanted)), strict=True))
        views: dict[int, tuple[Tensor, Tensor]] = {}
        corrupt: list[str] = []

        def keep(index: int) -> bool:
            both = self.read_both(index, corrupt)
            if both is None:
                return False
            if index not in draws:
                draws[index] = draw(plan, epoch, torch.tensor([index]))[0]
            views[index] = render(plan, *both, draws[index])
            return True

        samples = [self.readable(index, views, keep) for index in place.samples]
        images, masks = (torch.stack([views[index][side] for index in samples]) for side in (0, 1))
        return Made(images, masks, torch.tensor(samples), corrupt)


class _WholeScenes(_SceneReader):
    """Makes batches of whole scenes of one size; corrupt ones are left out."""

    def __init__(self, images: ImageSet, reduction: float, on_corrupt: OnCorrupt) -> None:
        super().__init__(images, on_corrupt)
        self.reduction = reduction

    def make(self, place: Place) -> Made:
        corrupt: list[str] = []
        found: list[int] = []
        images: list[Tensor] = []
        masks: list[Tensor] = []
        for index in place.samples:
            both = self.read_both(index, corrupt)
            if both is not None:
                found.append(index)
                images.append(shrink(both[0], self.reduction))
                masks.append(both[1])
        empty = torch.empty(0, dtype=torch.uint8)
        return Made(
            torch.stack(images) if images else empty,
            torch.stack(masks) if masks else empty,
            torch.tensor(found, dtype=torch.int64),
            corrupt,
        )
