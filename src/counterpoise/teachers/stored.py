"""A teacher that was recorded: read back for the views that a student sees, ahead of the step that needs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.data.epochs import Batch, Epochs
from counterpoise.errors import ConfigError
from counterpoise.outputs import Outputs
from counterpoise.teachers.live import LiveTeacher
from counterpoise.teachers.store import Header, Store, StoreError

AHEAD = 2
"""Batches whose logits are read before they are needed."""


class Read(NamedTuple):
    """What a store says of a batch: float32 logits, and bool [B] where it says anything."""

    logits: Tensor
    known: Tensor


class StoredTeacher:
    """Logits from a store for the views of a loader.

    Args:
        store: the recording.
        loader: of the views that the student sees.
        device: where logits are needed.
        live: the teacher itself, for views that are not in the store; None refuses them.

    Raises:
        StoreError: the store was recorded for other data, classes, views or, where `live` is given, another teacher.
    """

    def __init__(
        self,
        store: Store,
        loader: Epochs,
        device: torch.device,
        *,
        data: str,
        classes: tuple[str, ...],
        teacher: str | None = None,
        live: LiveTeacher | None = None,
    ) -> None:
        self.store = store
        self.loader = loader
        self.device = device
        self.live = live
        header = store.header
        check_countable(header, loader)
        if header.classes and header.shape[0] != len(classes):
            raise StoreError(
                f"Store {store.name} holds logits of {header.shape[0]} classes, and the run has {len(classes)}."
            )
        wanted = replace(
            header,
            data=data,
            classes=classes if header.shape[0] == len(classes) else (),
            views=loader.specification,
            count=len(loader.images),
            teacher=header.teacher if teacher is None else teacher,
        )
        header.require(wanted, store.name)

    def require_epochs(self, epochs: int) -> None:
        """Raise StoreError unless the views of this many epochs are there, or missing ones may be asked for live."""
        header = self.store.header
        if header.kind == "complete":
            missing = set(range(self.loader.countable() or 0)) - set(header.slots)
            unit = "views"
        else:
            missing = set(range(epochs if header.kind == "epochs" else 1)) - set(header.slots)
            unit = "epochs"
        if missing and self.live is None:
            raise StoreError(
                f"Store {self.store.name} lacks {len(missing)} {unit} that the run needs, such as {min(missing)}. "
                "Record them with `counterpoise store extend`, or let the teacher answer: teacher.missing: live."
            )

    def follow(self, epoch: int, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Read]]:
        """Each batch of an epoch with what the store says of it, read while earlier ones are worked on."""
        waiting: deque[tuple[Batch, Future[Read]]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="teacher-store") as reader:
            for batch in batches:
                waiting.append((batch, reader.submit(self._read, epoch, batch.indices)))
                if len(waiting) > AHEAD:
                    ready, answer = waiting.popleft()
                    yield ready, answer.result()
            for ready, answer in waiting:
                yield ready, answer.result()

    def answer(self, images: Tensor, read: Read) -> Outputs:
        """The logits of a batch; those that are not in the store from the teacher itself."""
        if self.live is None or bool(read.known.all()):
            return Outputs(read.logits)
        there = read.known.to(self.device)
        asked = self.live(images[~there]).logits.float()
        logits = asked.new_empty(len(images), *asked.shape[1:])
        logits[there] = read.logits.to(self.device)
        logits[~there] = asked
        return Outputs(logits)

    def _read(self, epoch: int, indices: Tensor) -> Read:
        kind = self.store.header.kind
        if kind == "complete":
            slots = self.loader.numbers(epoch, indices)
        else:
            slots = torch.full_like(indices, epoch if kind == "epochs" else 0)
        known = torch.ones(len(indices), dtype=torch.bool) if self.live is None else self.store.has(indices, slots)
        logits = self.store.logits(indices[known], slots[known])
        return Read(logits.to(self.device, non_blocking=True), known)


def check_countable(header: Header, loader: Epochs) -> None:
    """Raise ConfigError where a complete store is wanted of views that nobody can count."""
    if header.kind == "complete" and loader.countable() is None:
        raise ConfigError(
            "The views of this run cannot be counted (resized crops, RandAugment, mixup, cutmix or scenes), so that no "
            "store holds all of them: record views by epochs."
        )
