"""A teacher asked once more for views that were recorded: whether it is the one that answered then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from counterpoise.data.epochs import Epochs
from counterpoise.errors import StoreError
from counterpoise.models.network import are_probabilities
from counterpoise.teachers import identity
from counterpoise.teachers.live import LiveTeacher
from counterpoise.teachers.store import Header, Recorded
from counterpoise.teachers.store.format import CHUNKS, present

ASKED = 8
"""Samples that are asked once more."""
TOLERANCE = {"float32": 0.01}
COARSE = 0.05
"""How far answers may lie apart on another machine, as a share of their length; COARSE in lower precision."""
ROUNDED = 0.02
"""How far a store's coarser precisions may move a probability."""


def recorded(path: Path, header: Header) -> tuple[int, Tensor] | None:
    """A view slot and the logits of its first samples in a folder, finished or not; None where there are none."""
    sizes = present(path)
    for chunk in header.chunks():
        if chunk.start == 0 and sizes.get(chunk.name) == header.chunk_size(chunk):
            rows = min(ASKED, chunk.stop)
            size = header.codec.row_bytes
            records = np.fromfile(path / CHUNKS / chunk.name, np.uint8, rows * size).reshape(rows, size)
            return chunk.slot, header.codec.decode(torch.from_numpy(records))
    return None


def read(store: Recorded, positions: Tensor | None) -> tuple[int, Tensor]:
    """The first view slot of a store, and the logits of the first samples of a loader; `positions` are theirs in it."""
    slot = store.header.slots[0]
    samples = torch.arange(min(ASKED, store.header.count)) if positions is None else positions[:ASKED]
    return slot, store.logits(samples, torch.full_like(samples, slot))


def require_same(name: object, header: Header, slot: int, logits: Tensor, teacher: LiveTeacher, loader: Epochs) -> None:
    """Raises StoreError where the teacher answers otherwise than these logits of the loader's first samples."""
    first = [torch.arange(len(logits))]
    by_number = header.kind == "complete"
    views = next(loader.views_of(first, slot if header.kind == "epochs" else 0, slot if by_number else None))
    answers = header.codec.decode(header.codec.encode(teacher(views).logits.float().cpu()))
    both = answers.isfinite() & logits.isfinite()
    apart = float((answers - logits)[both].norm() / logits[both].norm().clamp(min=1e-12))
    if apart > TOLERANCE.get(header.notes.get("computed_in", "float32"), COARSE):
        raise StoreError(
            f"Store {name} was recorded by an earlier version, which knew a teacher by its weights alone. Asked once "
            f"more for {len(logits)} of its views, the teacher answers otherwise: {apart:.0%} apart (largest logit "
            f"{_largest(logits):.3g} there, {_largest(answers):.3g} now). Its normalization, input size or classes are "
            "not those of then: give them as they were (teacher.mean, teacher.std, teacher.input_size, "
            "teacher.classes), or record into another folder."
        )


def require_logits(store: Recorded, positions: Tensor | None) -> None:
    """Raises StoreError where the first answers of a store are probabilities, which losses would take for logits."""
    _, answers = read(store, positions)
    if are_probabilities(answers, ROUNDED):
        raise StoreError(
            f"Store {store.name} holds probabilities, from 0 on with a sum of 1, and losses take the softmax of what "
            "it holds. Record it again with teacher.outputs: probabilities, which takes their logarithm; where these "
            "are its logits, say teacher.outputs: logits."
        )


def notes(store: Recorded, asked: bool) -> list[str]:
    """What is to be said of a store that knows its teacher by weights alone."""
    if identity.whole(store.header.identity):
        return []
    seen = "asked once more, it answers the same" if asked else "its normalization and classes are not known"
    return [f"store {store.name}: recorded by an earlier version, which knew a teacher by its weights alone; {seen}"]


def _largest(logits: Tensor) -> float:
    return float(logits[logits.isfinite()].abs().max())
