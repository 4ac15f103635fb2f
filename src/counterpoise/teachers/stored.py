"""A teacher that was recorded: read back for the views that a student sees, ahead of the step that needs it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.data import contents
from counterpoise.data.epochs import Batch, Epochs
from counterpoise.data.sources.base import ImageSet
from counterpoise.errors import ConfigError, StoreError
from counterpoise.outputs import Outputs
from counterpoise.teachers.identity import Identity
from counterpoise.teachers.live import LiveTeacher
from counterpoise.teachers.store import Recorded, Resident, Store
from counterpoise.teachers.store.format import words

DRAWN_AT_ONCE = 2**20
"""Samples whose views of an epoch are drawn all at once: for a batch alone it takes as long as all else done here.

Of larger sets it would take seconds, and memory.
"""
AHEAD = 2
"""Batches whose logits are read before they are needed."""


class Read(NamedTuple):
    """What a store says of a batch: float32 logits, and bool [B] where it says anything."""

    logits: Tensor
    known: Tensor

    def part(self, rows: slice) -> Read:
        """The same of some of its samples."""
        before = int(self.known[: rows.start].sum())
        known = self.known[rows]
        return Read(self.logits[before : before + int(known.sum())], known)


class StoredTeacher:
    """A recorded teacher for any training loop: logits by sample and view.

    Args:
        store: a store, its folder, or an address that fsspec knows.
        device: where logits are needed.

    Attributes:
        views: the numbers of the views that are there. Of a store by epochs they are the epochs, of a plain one 0
            alone, of a complete one ((2 * padding + 1) * top + left) * 2 + mirrored, where top and left are the first
            row and column of the padded image that are seen; without `flip`, the same without "* 2 + mirrored".

    Raises:
        StoreError: no finished store is there.
    """

    def __init__(self, store: Store | str | os.PathLike[str], device: torch.device | str = "cpu") -> None:
        self.store = store if isinstance(store, Store) else Store.open(store)
        self.device = torch.device(device)
        self.views = self.store.header.slots

    def __call__(self, index: Tensor | Sequence[int] | int, view: Tensor | Sequence[int] | int = 0) -> Tensor:
        """float32 [*, C], or [*, C, h, w] of scenes: logits of samples, numbered as the source lists them.

        Args:
            index: int64 [*], the samples.
            view: int64 [*], the view of each, or one for all.

        Raises:
            StoreError: a view is not in the store; no whole numbers; a chunk is damaged or cannot be read.
        """
        samples, views = (torch.as_tensor(given).cpu() for given in (index, view))
        if any(given.dtype == torch.bool or given.is_floating_point() for given in (samples, views)):
            raise StoreError(f"index and view must be whole numbers, got {samples.dtype} and {views.dtype}.")
        if views.ndim == 0:
            views = views.expand(samples.shape)
        if samples.shape != views.shape:
            raise StoreError(f"index and view must be of one shape, got {list(samples.shape)} and {list(views.shape)}.")
        logits = self.store.logits(samples.flatten().long(), views.flatten().long())
        return logits.reshape(*samples.shape, *logits.shape[1:]).to(self.device)


class LoaderTeacher:
    """Logits from a store for the views of a loader.

    Args:
        store: the recording.
        loader: of the views that the student sees.
        data: the images of the loader, as the data source gives them; a complete store serves a part of its set, too.
        device: where logits are needed.
        teacher: the identity of the run's own, where it is there, too.
        live: the teacher itself, for views that are not in the store; None refuses them.

    Attributes:
        source: where logits are read: the store, or a copy of it in memory.
        positions: int64 [N], the store's own numbers of the loader's samples; None where they are the same.

    Raises:
        StoreError: the store was recorded for other data, classes, views or, where `live` is given, another teacher.
    """

    def __init__(
        self,
        store: Recorded,
        loader: Epochs,
        device: torch.device,
        *,
        data: ImageSet,
        classes: tuple[str, ...],
        teacher: Identity | None = None,
        live: LiveTeacher | None = None,
    ) -> None:
        self.store = store
        self.source: Recorded = store
        self.loader = loader
        self.device = device
        self.live = live
        header = store.header
        self.positions: Tensor | None = None
        recorded = data
        if header.kind != "epochs" and len(data) == len(loader.images):
            # Views by epochs are drawn for an index, which in a part is another one.
            recorded, self.positions = _divided_from(data, header.data)
        check_countable(header.kind, loader)
        if header.classes and header.shape[0] != len(classes):
            raise StoreError(
                f"Store {store.name} holds logits of {header.shape[0]} classes, and the run has {len(classes)}."
            )
        wanted = replace(
            header.sampled(None if header.sample is None else contents.sample(recorded)),
            data=loader.images.fingerprint() if recorded is data else recorded.fingerprint(),
            classes=classes if header.shape[0] == len(classes) else (),
            views=loader.specification if recorded is data else {**loader.specification, "count": len(recorded)},
            count=len(loader.images) if recorded is data else len(recorded),
        )
        if teacher is not None:
            wanted = wanted.answered_by(teacher)
        header.require(wanted, store.name)

    def missing(self, epochs: int) -> set[int]:
        """The views, or for views by epochs the epochs, that this many epochs need and the store has not."""
        header = self.store.header
        if header.kind == "complete":
            return set(range(self.loader.countable() or 0)) - set(header.slots)
        return set(range(epochs if header.kind == "epochs" else 1)) - set(header.slots)

    def require_epochs(self, epochs: int) -> None:
        """Raise StoreError unless the views of this many epochs are there, or missing ones may be asked for live."""
        missing = self.missing(epochs)
        unit = "views" if self.store.header.kind == "complete" else "epochs"
        if missing and self.live is None:
            raise StoreError(
                f"Store {self.store.name} lacks {unit} that the run needs: {words(sorted(missing))}. "
                "Record them with `counterpoise store extend`, or let the teacher answer: teacher.missing: live."
            )

    def follow(self, epoch: int, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Read]]:
        """Each batch of an epoch with what the store says of it, read while earlier ones are worked on."""
        if isinstance(self.source, Resident):
            slots = self.slots(epoch)
            for batch in batches:
                yield batch, self._read(slots.__getitem__, batch.indices)
            return
        waiting: deque[tuple[Batch, Future[Read]]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="teacher-store") as reader:
            views = partial(self._slots, epoch)
            if len(self.loader.images) <= DRAWN_AT_ONCE:
                views = partial(_part, reader.submit(self.slots, epoch))
            for batch in batches:
                waiting.append((batch, reader.submit(self._read, views, batch.indices)))
                if len(waiting) > AHEAD:
                    ready, answer = waiting.popleft()
                    yield ready, answer.result()
            for ready, answer in waiting:
                yield ready, answer.result()

    def answer(self, images: Tensor, read: Read) -> Outputs:
        """The logits of a batch; those that are not in the store from the teacher itself."""
        if self.live is None:
            return Outputs(read.logits)
        there = read.known.to(self.device)
        asked: Tensor | None = None
        with self.live.model.together():  # other processes may lack none
            if not bool(read.known.all()):
                asked = self.live(images[~there]).logits.float()
        if asked is None:
            return Outputs(read.logits)
        logits = asked.new_empty(len(images), *asked.shape[1:])
        logits[there] = read.logits.to(self.device)
        logits[~there] = asked
        return Outputs(logits)

    def slots(self, epoch: int) -> Tensor:
        """The view of the store that each sample shows in an epoch, int64 [N]."""
        return self._slots(epoch, torch.arange(len(self.loader.images)))

    def _slots(self, epoch: int, indices: Tensor) -> Tensor:
        kind = self.store.header.kind
        if kind == "complete":
            return self.loader.numbers(epoch, indices)
        return torch.tensor(epoch if kind == "epochs" else 0).expand(len(indices))

    def _read(self, slots_of: Callable[[Tensor], Tensor], indices: Tensor) -> Read:
        slots = slots_of(indices)
        indices = indices if self.positions is None else self.positions[indices]
        known = torch.ones(len(indices), dtype=torch.bool) if self.live is None else self.store.has(indices, slots)
        logits = self.source.logits(indices[known], slots[known])
        return Read(logits.to(self.device, non_blocking=True), known)


def _divided_from(data: ImageSet, fingerprint: str) -> tuple[ImageSet, Tensor | None]:
    """The set of this fingerprint that a part, or a part of a part, was divided from, and where its images are in it.

    The part itself, and nothing, where it was divided from none such.
    """
    part, positions = data, None
    while part.split_from is not None and part.positions is not None:
        positions = part.positions if positions is None else part.positions[positions]
        part = part.split_from
        if part.fingerprint() == fingerprint:
            return part, positions
    return data, None


def _part(whole: Future[Tensor], indices: Tensor) -> Tensor:
    return whole.result()[indices]


def check_countable(kind: str, loader: Epochs) -> None:
    """Raise ConfigError where a complete store is wanted of views that nobody can count."""
    if kind == "complete" and loader.countable() is None:
        raise ConfigError(
            "The views of this run cannot be counted (resized crops, RandAugment, mixup, cutmix or scenes), so that no "
            "store holds all of them: record views by epochs (--views epochs)."
        )
