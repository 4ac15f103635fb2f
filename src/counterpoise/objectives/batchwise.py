"""Objectives that compare a batch as a whole, not position by position."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from counterpoise.objectives.base import Objective
from counterpoise.objectives.logits import LEFT_OUT, check_logits, remaining, widen
from counterpoise.objectives.targets import Mean, Target
from counterpoise.outputs import Outputs


class BatchObjective(Objective):
    """An objective on logits whose positions are compared with each other. Subclasses implement `relations`.

    Positions of dense logits [N, C, ...] are all compared with all. Under several processes each compares the positions
    of its own share of the batch alone, and with `train.accumulate` those of one part, as if that were the whole; the
    mean over these is taken, each with the weight of the positions that it counts. Classes at -inf in either are left
    out of both, as in `LogitObjective`.
    Called with logits it returns the loss, as that does.
    """

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    @abstractmethod
    def relations(self, student: Tensor, teacher: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Named scalars from logits [M, C] of all M positions in float32 or float64; `weight` [M] is 0 where a position
        does not count."""

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Mean]:
        student_logits, teacher_logits = student.logits, None if teacher is None else teacher.logits
        check_logits(student_logits, teacher_logits)
        assert teacher_logits is not None
        with torch.autocast(student_logits.device.type, enabled=False):
            mine, other = map(_rows, remaining(widen(student_logits), widen(teacher_logits.detach())))
            positions = mine.new_ones(student_logits.shape[:1] + student_logits.shape[2:])
            counted = Target(target, weight, self.ignore_index).reduce(positions, "none").flatten()
            if (target is not None and self.ignore_index is not None) or weight is not None:
                # An ignored position may hold anything, and zero times that is not always zero.
                ignored = (counted == 0).unsqueeze(1)
                mine, other = mine.masked_fill(ignored, 0.0), other.masked_fill(ignored, 0.0)
            return {name: Mean(value, counted.sum()) for name, value in self.relations(mine, other, counted).items()}


def compared(teacher: Tensor, weight: Tensor) -> Tensor:
    """What each class [M, C] of each position counts, from the positions' weights [M]: 0 where it is left out."""
    return weight.unsqueeze(1) * (teacher > LEFT_OUT)


def classes_of(weights: Tensor) -> Tensor:
    """1 for each class [C] that counts somewhere, else 0, from what `compared` says; all 1 where none does."""
    some = (weights > 0).any(0)
    return (some | ~some.any()).to(weights.dtype)


def _rows(logits: Tensor) -> Tensor:
    """[N, C, ...] to [M, C]."""
    return logits.movedim(1, -1).reshape(-1, logits.shape[1])
