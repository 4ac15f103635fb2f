"""Why a run cannot take the fast step, in words that finish a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from counterpoise.data.loader import TrainLoader
from counterpoise.engine.processes import Processes
from counterpoise.objectives.base import Objective
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.confident import left_out
from counterpoise.objectives.wrappers import Wrapper
from counterpoise.teachers import resident
from counterpoise.teachers.store import Resident

if TYPE_CHECKING:
    from counterpoise.engine.parts import Parts

MOMENTS = 64
"""Moments of training at which an objective is asked whether it has moved."""
LATEST = 0.5
"""Share of training after which an objective must not move any more: until then steps are not captured."""


def find_obstacle(parts: Parts, processes: Processes) -> str | None:
    """What is in the way of the fast step, None where nothing is."""
    objective, loader, stored, epochs = parts.objective, parts.train, parts.stored, parts.run.train.epochs
    if processes.world > 1:
        return "several processes train together"
    if parts.run.train.accumulate > 1:
        return "train.accumulate takes a batch in parts"
    if left_out(objective) is not None:
        return "teacher.minimum_confidence counts what it leaves out"
    if parts.run.teacher is not None and parts.run.teacher.combine == "right":
        return "teacher.combine: right looks at the labels of each batch"
    if processes.device.type not in ("cuda", "cpu"):
        return f"there are no graphs on {processes.device.type}"
    if not isinstance(loader, TrainLoader) or not loader.static:
        return "the images do not lie in memory in the size of a view, or RandAugment treats each in its own way"
    if stored is not None and stored.missing(epochs):
        return "the store lacks views, which the live teacher is asked for one by one"
    if stored is not None and not isinstance(stored.source, Resident):
        size = stored.store.header.bytes / 1e9
        return f"the store takes {size:.3g} GB, more than {resident.SHARE:.0%} of the memory that is free"
    for name in objective.terms:
        if any(map(_wants_indices, objective.objective(name).modules())):
            return f"objective.{name} is told the samples of each batch"
    for module in parts.student.modules():
        if _draws(module):
            return f"{type(module).__name__} in the student draws random numbers"
    if last_move(objective, loader.steps_per_epoch * epochs) > LATEST:
        return "weights or arguments of the objective move while it trains"
    return None


def numbers(objective: WeightedSum) -> tuple[Any, ...]:
    """All plain numbers that an objective computes with: what a graph of it holds fast."""
    found: list[Any] = list(objective.weights.values())
    for module in objective.modules():
        if module is not objective:
            found.extend(value for value in vars(module).values() if _plain(value))
    return tuple(found)


def last_move(objective: WeightedSum, steps: int) -> float:
    """The share of training after which no number of an objective changes; 0 where none ever does."""
    objective.set_progress(0.0)
    last, before = 0.0, numbers(objective)
    # The second step, too: a short ramp moves at once.
    for progress in sorted({1 / max(steps - 1, 1), *(moment / MOMENTS for moment in range(1, MOMENTS + 1))}):
        objective.set_progress(progress)
        if (now := numbers(objective)) != before:
            last, before = progress, now
    objective.set_progress(0.0)
    return last


def _wants_indices(module: nn.Module) -> bool:
    """Whether it is told which samples are coming for a use of its own, and not to hand it on."""
    own = isinstance(module, Objective) and type(module).set_batch is not Objective.set_batch
    return own and not isinstance(module, Wrapper)


def _draws(module: nn.Module) -> bool:
    """Whether it is a layer known to draw; others are found out when a step is watched."""
    share = getattr(module, "p", None) or getattr(module, "drop_prob", None) or 0.0
    depth = type(module).__name__ in ("DropPath", "StochasticDepth")
    known = depth or isinstance(module, nn.modules.dropout._DropoutNd)
    return known and isinstance(share, float | int) and share > 0


def _plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return isinstance(value, int | float) and not isinstance(value, torch.Tensor)
