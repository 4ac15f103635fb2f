"""Objectives as users write them in a file of their own."""

from __future__ import annotations

from torch import Tensor

from counterpoise.objectives.base import LogitObjective, Objective
from counterpoise.outputs import Outputs


class SquaredDistance(LogitObjective):
    """Gives a value at every position, and leaves the mean to the base class."""

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        return {"": (student_logits - teacher_logits).square().mean(1)}


class Mean(Objective):
    """Takes the mean over samples itself."""

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Tensor]:
        assert teacher is not None
        return {"": (student.logits - teacher.logits).square().sum(1).mean()}
