"""Cross-entropy with the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import (
    LogitObjective,
    Reduction,
    Sum,
    check_class_weight,
    reduce,
    register,
    summed,
    weigh_by_class,
    widen,
)
from counterpoise.outputs import Outputs


@register("cross_entropy", summary="the labels; samples without a label are not counted")
class CrossEntropy(LogitObjective):
    """L = -log softmax(s)[target], or -sum_c target_c log softmax(s)_c where the target holds probabilities.

    Args:
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2016).
        ignore_index: target of positions without a label. In a target of probabilities [N, C] such a row is all zero.
        class_weight: a number for each class, by which its positions count in the mean; in a run file also
            "frequency", by which rare classes count more, or numbers by name, {name: number}, the others being 1.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    def __init__(
        self,
        label_smoothing: float = 0.0,
        ignore_index: int | None = -1,
        class_weight: Sequence[float] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(ignore_index, reduction)
        if not 0.0 <= label_smoothing < 1.0:
            raise ObjectiveError(f"label_smoothing must be in [0, 1), got {label_smoothing}.")
        self.label_smoothing = label_smoothing
        self.class_weight = check_class_weight(class_weight)

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        if target is None:
            raise ObjectiveError("cross_entropy needs a target, got none.")
        ignore = -100 if self.ignore_index is None else self.ignore_index
        values = F.cross_entropy(
            student_logits,
            target,
            ignore_index=ignore,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return {"": values}

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None = None,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        weight = weigh_by_class(self.class_weight, student_logits, target, weight)
        if target is not None and target.is_floating_point():
            values = self._checked_values(student_logits, None, target.to(widen(student_logits).dtype))[""]
            return reduce(values, None, _labeled(target, weight), None, self.reduction)
        return super().forward(student_logits, None, target, weight)

    def sums(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        weight = weigh_by_class(self.class_weight, student.logits, target, weight)
        if target is not None and target.is_floating_point():
            values = self._checked_values(student.logits, None, target.to(widen(student.logits).dtype))[""]
            return {"": summed(values, None, _labeled(target, weight), None, self.reduction)}
        return super().sums(student, teacher, target, weight)


def _labeled(target: Tensor, weight: Tensor | None) -> Tensor:
    """Weight of each position. Probabilities [N, C] carry no ignore index: a row without any mass has no label."""
    labeled = (target.sum(1) > 0).to(torch.float32)
    return labeled if weight is None else labeled * weight
