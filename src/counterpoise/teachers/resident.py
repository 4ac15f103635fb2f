"""A store held in the memory of a device: read once, then looked up there by every batch."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from counterpoise.errors import StoreError
from counterpoise.teachers.store import Resident, Store
from counterpoise.teachers.stored import LoaderTeacher

SHARE = 0.5
"""Of a device's free memory, what a store may take at most: the rest is for the training itself."""


def hold(stored: LoaderTeacher) -> bool:
    """Let a teacher read from a copy of its store in the memory of its device, where that has room for one.

    Records lie there as on disk, in the store's own precision; the logits of a batch are decoded as they are needed.
    """
    header, free = stored.store.header, free_memory(stored.device)
    if isinstance(stored.source, Store) and (free is None or header.bytes <= SHARE * free):
        stored.source = stored.source.on(stored.device)
        stored.store.close()
    return isinstance(stored.source, Resident)


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a GPU, or of the machine; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a Linux machine
        return None


class ResidentTeacher:
    """The logits of a teacher whose store is held, by rows that are found for a whole epoch at once.

    Args:
        stored: after `hold`.
    """

    def __init__(self, stored: LoaderTeacher) -> None:
        assert isinstance(stored.source, Resident)
        self.stored = stored
        self.resident = stored.source
        slots = self.resident.header.slots
        self._slot_numbers = torch.full((slots[-1] + 1,), -1)
        self._slot_numbers[list(slots)] = torch.arange(len(slots))

    def rows(self, epoch: int, indices: Tensor) -> Tensor:
        """Which record holds each sample's view in an epoch: int64 [n]; indices int64 [n] on the CPU.

        Raises:
            StoreError: a view is not in the store.
        """
        slots = self.stored.slots(epoch)[indices]
        samples = indices if self.stored.positions is None else self.stored.positions[indices]
        if not bool(self.resident.has(samples, slots).all()):
            raise StoreError(f"Store {self.resident.name} lacks views that epoch {epoch} shows.")
        return self._slot_numbers[slots] * self.resident.header.count + samples

    def logits(self, rows: Tensor) -> Tensor:
        """float32 [n, *shape] of records; rows int64 [n] on the device. Waits for nothing."""
        return self.resident.header.codec.decode(self.resident.data.index_select(0, rows))
