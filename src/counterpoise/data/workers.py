"""Batches made by worker processes, which decode the images that are not in memory."""

from __future__ import annotations

import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.queues import Queue
from types import TracebackType
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from counterpoise.data import mixing
from counterpoise.data.counting import numbered
from counterpoise.data.jpeg import whole
from counterpoise.data.order import Order
from counterpoise.data.packs.ahead import Ahead
from counterpoise.data.sources.base import ImageSet
from counterpoise.data.stages import READING
from counterpoise.data.views import ViewPlan, collected, crop_words, draw, draw_mix, fitted, part
from counterpoise.errors import CorruptImage, DataError, RunError, first_line
from counterpoise.system import machine, torchvision_guard

OnCorrupt: TypeAlias = Literal["stop", "skip"]
Workers: TypeAlias = int | Literal["auto"]
MOST_WORKERS = 16
"""Of `auto`: each holds memory, and more have never been seen to help."""
Shown = TypeVar("Shown")


class BatchPlan(NamedTuple):
    """What makes one batch of one process: its samples, and where samples are mixed their partners, by index.

    `number`: show each sample in this one of its countable views; None: in that of the epoch. `place`: where the batch
    begins in the order of the epoch, over all processes; None where it comes in another order.
    """

    epoch: int
    samples: list[int]
    partners: list[int]
    number: int | None = None
    place: int | None = None


class BatchPlans:
    """The batches to make next, as the sampler of a DataLoader whose workers outlive an epoch."""

    def __init__(self, plans: Iterable[BatchPlan] = ()) -> None:
        self.next = plans

    def __iter__(self) -> Iterator[BatchPlan]:
        return iter(self.next)


class ReadBatch(NamedTuple):
    """A batch as a worker sends it, with the names of the corrupt images met on the way.

    `seconds` is what its making took, by stage.
    """

    images: Tensor
    target: Tensor
    indices: Tensor
    corrupt: list[str]
    seconds: dict[str, float] = {}  # noqa: RUF012 - replaced, never written to


class Reader(Dataset[ReadBatch | DataError | RunError], ABC):
    """Makes batches. Errors are handed over as values: raised, they would arrive as the traceback of a worker.

    Attributes:
        ahead: what fetches that which is read next, where it lies at an address and is known.
    """

    def __init__(self, images: ImageSet, on_corrupt: OnCorrupt) -> None:
        self.images = images
        self.on_corrupt = on_corrupt
        self.ahead: Ahead | None = None

    def __getitem__(self, batch: BatchPlan) -> ReadBatch | DataError | RunError:
        try:
            with READING.timed("views"):
                with READING.timed("reading"):
                    if self.ahead is not None and batch.place is not None:
                        self.ahead.at(batch.epoch, batch.place)
                    self.images.expect(dict.fromkeys([*batch.samples, *batch.partners]))
                made = self.make(batch)
        except DataError as error:
            return error
        made = made._replace(seconds=READING.drained())
        return made if get_worker_info() is None else _shared(made)

    @abstractmethod
    def make(self, batch: BatchPlan) -> ReadBatch:
        """One batch."""

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """The image and its label, or of scenes its mask. Raises CorruptImage."""
        images = self.images
        with READING.timed("decoding"):
            image, _ = images.read_part(index, whole)
            return image, images.read_mask(index) if images.masked else images.labels[index]

    def shown(self, index: int, show: Callable[[int], Shown], corrupt: list[str]) -> Shown | None:
        """What is shown of an image; None where it is corrupt and may be skipped: its name is then in `corrupt`."""
        try:
            return show(index)
        except CorruptImage as error:
            if self.on_corrupt == "stop":
                raise
            corrupt.append(error.name)
            return None

    def readable(self, index: int, shown: dict[int, Shown], show: Callable[[int], Shown], corrupt: list[str]) -> int:
        """The first index from this one on that can be read: what is shown of it is then in `shown`."""
        count = len(self.images)
        for step in range(count):
            candidate = (index + step) % count
            if candidate not in shown:
                found = self.shown(candidate, show, corrupt)
                if found is None:
                    continue
                shown[candidate] = found
            return candidate
        raise DataError(f"None of the {count} images can be read; the first is {self.images.name(0)}.")


class ViewReader(Reader):
    """Makes batches of views. A corrupt image's place is taken by the next readable one, with all that is its own."""

    def __init__(self, images: ImageSet, plan: ViewPlan, num_classes: int, on_corrupt: OnCorrupt, order: Order) -> None:
        super().__init__(images, on_corrupt)
        self.plan = plan
        self.order = order
        self.num_classes = num_classes

    def make(self, batch: BatchPlan) -> ReadBatch:
        plan, epoch = self.plan, batch.epoch
        wanted = list(dict.fromkeys(batch.samples + batch.partners))
        words = dict(zip(wanted, crop_words(plan, epoch, torch.tensor(wanted)), strict=True))
        framed: dict[int, Tensor] = {}
        corrupt: list[str] = []

        def show(index: int) -> Tensor:
            own = words[index] if index in words else crop_words(plan, epoch, torch.tensor([index]))[0]
            with READING.timed("decoding"):
                pixels, extent = self.images.read_part(index, partial(part, plan, own))
            return fitted(plan, pixels, extent)

        samples = [self.readable(index, framed, show, corrupt) for index in batch.samples]
        partners = batch.partners
        if plan.mixes and samples != batch.samples:
            partners = self.order.partners(epoch, torch.tensor(samples)).tolist()
        partners = [self.readable(index, framed, show, corrupt) for index in partners]

        if batch.number is None:
            draws = draw(plan, epoch, torch.tensor(list(framed)))
        else:
            draws = numbered(plan, batch.number, len(framed))
        views = collected(plan, list(framed.values()), draws)
        rows = {index: row for row, index in enumerate(framed)}
        images = views if samples == list(framed) else views[[rows[index] for index in samples]]
        target = self.images.labels[samples]
        if plan.mixes:
            mix = draw_mix(plan, epoch, torch.tensor(samples))
            images = mixing.images(images, views[[rows[index] for index in partners]], mix)
            target = mixing.targets(target, self.images.labels[partners], mix.share, self.num_classes)
        return ReadBatch(images, target, torch.tensor(samples), corrupt)


class EvalReader(Reader):
    """Makes batches of images as they are evaluated; corrupt ones are left out.

    Args:
        show: what makes of an image that which is shown, of one size throughout a batch.
    """

    def __init__(self, images: ImageSet, show: Callable[[Tensor], Tensor], on_corrupt: OnCorrupt) -> None:
        super().__init__(images, on_corrupt)
        self.show = show

    def make(self, batch: BatchPlan) -> ReadBatch:
        corrupt: list[str] = []
        read = {index: self.shown(index, self.read, corrupt) for index in batch.samples}
        found = {index: both for index, both in read.items() if both is not None}
        indices = torch.tensor(list(found), dtype=torch.int64)
        if not found:
            return ReadBatch(torch.empty(0, dtype=torch.uint8), torch.empty(0), indices, corrupt)
        images, targets = zip(*found.values(), strict=True)
        return ReadBatch(torch.stack([*map(self.show, images)]).contiguous(), torch.stack(targets), indices, corrupt)


def worker_count(workers: Workers, batches: int) -> int:
    """How many processes read: as told; auto gives each process of this machine its part of the cores.

    Never more than there are batches; none for a single one, which is waited for whoever reads it.
    """
    if workers != "auto":
        return workers
    if batches == 1:
        return 0
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # as torchrun says
    return max(1, min(machine.cores() // beside, MOST_WORKERS, batches))


def data_loader(
    reader: Reader, plans: BatchPlans, workers: int, *, pin_memory: bool, persistent: bool
) -> DataLoader[ReadBatch | DataError | RunError]:
    """A DataLoader of the batches that are planned, whenever it is iterated."""
    several: dict[str, Any] = {}
    if workers:
        if not isinstance(reader, EvalReader):  # which shows pictures by Pillow alone
            torchvision_guard.functional()  # once here, not in every worker
        several = {"persistent_workers": persistent, "worker_init_fn": _start_worker}
    return DataLoader(
        reader,
        batch_size=None,  # a plan is of a whole batch
        sampler=plans,
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else starting an epoch would move the global generator, and dropout with it
        **several,
    )


def read_batches(loader: DataLoader[ReadBatch | DataError | RunError], corrupt: list[str]) -> Iterator[ReadBatch]:
    """The batches that workers make, in order; names of corrupt images are added to `corrupt`, each once.

    Raises:
        DataError: as the reader met it.
        RunError: a worker process was ended from outside, or has no shared memory for a batch.
    """
    items = iter(loader)
    while True:
        try:
            item = next(items, None)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            cause = first_line(error)
            raise RunError(
                f"A process that reads images has ended: {cause}. "
                "If memory ran out, lower data.workers or train.batch_size."
            ) from error
        if item is None:
            return
        if isinstance(item, DataError | RunError):
            try:
                raise item
            finally:
                del item  # a cycle through this frame would keep the workers until garbage is collected, out of order
        corrupt.extend(name for name in dict.fromkeys(item.corrupt) if name not in corrupt)
        yield item


def _shared(made: ReadBatch) -> ReadBatch | RunError:
    """A batch in the memory that the main process reads it from.

    torch would move it there later, in a thread of its own: where that fails, it drops the batch, and whoever waits
    for that waits for ever.
    """
    try:
        for tensor in (made.images, made.target, made.indices):
            tensor.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        return RunError(
            f"A process that reads images cannot hand over a batch: {first_line(error)}. It does so in shared memory: "
            "give a container more of that (docker run --shm-size 2g), or read without such processes "
            "(--data.workers 0)."
        )
    return made


def _unchanged(item: Any) -> Any:
    return item


def _start_worker(worker: int) -> None:
    """Leave Ctrl-C, and SIGTERM to a whole job, to the main process, which may want another batch before it stops.

    Workers end when the main process ends or drops them; a batch that nobody takes any more is no error to be told.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    tell = Queue._on_queue_feeder_error  # type: ignore[attr-defined]

    def tell_others(error: Exception, item: Any) -> None:
        if not isinstance(error, BrokenPipeError):
            tell(error, item)

    Queue._on_queue_feeder_error = staticmethod(tell_others)  # type: ignore[attr-defined]
    hook = sys.excepthook

    def hook_of_others(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, EOFError | ConnectionError):  # the main process was killed while it took one
            hook(kind, error, trace)

    sys.excepthook = hook_of_others
