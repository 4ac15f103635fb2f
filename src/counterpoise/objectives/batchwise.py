"""Objectives that compare a batch as a whole, not position by position."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from counterpoise.objectives.base import Objective, Sum, check_logits, reduce, remaining, widen
from counterpoise.outputs import Outputs


class BatchObjective(Objective):
    """An objective on logits whose positions are compared with each other. Subclasses implement `relations`.

    Positions of dense logits [N, C, ...] are all compared with all. Under several processes each compares the positions
    of its own share of the batch alone, as if that were the whole; the mean over processes is taken, each with the
    weight of the positions that it counts. Classes at -inf in either are left out of both, as in `LogitObjective`.
    Called with logits it returns the loss, as that does.
    """

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    @abstractmethod
    def relations(self, student: Tensor, teacher: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Named scalars from logits [M, C] of all M positions in float32 or float64; `weight` [M] is 0 where a position
        does not count."""

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None = None,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar: [N, C, ...] logits, target [N, ...] beside `ignore_index`, weight [N] or [N, ...]."""
        values, _ = self._relations(student_logits, teacher_logits, target, weight)
        return torch.stack(list(values.values())).sum()

    def parts(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Tensor]:
        return self._relations(student.logits, None if teacher is None else teacher.logits, target, weight)[0]

    def sums(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        teacher_logits = None if teacher is None else teacher.logits
        values, count = self._relations(student.logits, teacher_logits, target, weight)
        return {name: Sum(value * count, count) for name, value in values.items()}

    def _relations(
        self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None, weight: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """What `relations` finds, and how many positions count."""
        check_logits(student_logits, teacher_logits)
        assert teacher_logits is not None
        with torch.autocast(student_logits.device.type, enabled=False):
            student, teacher = map(_rows, remaining(widen(student_logits), widen(teacher_logits.detach())))
            positions = student.new_ones(student_logits.shape[:1] + student_logits.shape[2:])
            counted = reduce(positions, target, weight, self.ignore_index, "none").flatten()
            if (target is not None and self.ignore_index is not None) or weight is not None:
                # An ignored position may hold anything, and zero times that is not always zero.
                ignored = (counted == 0).unsqueeze(1)
                student, teacher = student.masked_fill(ignored, 0.0), teacher.masked_fill(ignored, 0.0)
            return self.relations(student, teacher, counted), counted.sum()


def _rows(logits: Tensor) -> Tensor:
    """[N, C, ...] to [M, C]."""
    return logits.movedim(1, -1).reshape(-1, logits.shape[1])
