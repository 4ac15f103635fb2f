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
    check_no_class,
    may_be_out,
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

    Classes whose logit is -inf have no part in the softmax; where one of them is the label, the loss is infinite.

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
        return {"": cross_entropy_values(student_logits, target, ignore, self.label_smoothing)}

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
            return reduce(values, None, self._labeled(target, weight), None, self.reduction)
        return super().forward(student_logits, None, target, weight)

    def sums(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        weight = weigh_by_class(self.class_weight, student.logits, target, weight)
        if target is not None and target.is_floating_point():
            values = self._checked_values(student.logits, None, target.to(widen(student.logits).dtype))[""]
            return {"": summed(values, None, self._labeled(target, weight), None, self.reduction)}
        return super().sums(student, teacher, target, weight)

    def _labeled(self, target: Tensor, weight: Tensor | None) -> Tensor:
        """Weight of each position. Probabilities [N, C] carry no ignore index: a row without any mass has no label."""
        check_no_class(self.ignore_index, target)
        labeled = (target.sum(1) > 0).to(torch.float32)
        return labeled if weight is None else labeled * weight


def cross_entropy_values(logits: Tensor, target: Tensor, ignore_index: int, smoothing: float) -> Tensor:
    """Cross-entropy at each position [N, ...]: logits [N, C, ...], a target of classes [N, ...] or probabilities.

    Smoothing spreads over the classes that are not at -inf. A label at -inf costs infinitely much.
    """
    mixed = target.is_floating_point()
    ignore_index = -100 if mixed else ignore_index  # torch refuses any other
    some_out = may_be_out(logits)
    if some_out:  # where no class remains, the gradient of a softmax is NaN: what has no label shall not have it
        unlabeled = target.sum(1) == 0 if mixed else target == ignore_index
        logits = logits.masked_fill(unlabeled.unsqueeze(1), 0.0)
    if not (mixed or smoothing) or not some_out:
        return F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none", label_smoothing=smoothing)
    kept = logits > -torch.inf
    log_q = F.log_softmax(logits, dim=1).masked_fill(~kept, 0.0)
    spread = -log_q.sum(1) / kept.sum(1)
    if mixed:
        impossible = ((target > 0) & ~kept).any(1)
        hit = torch.where(impossible, torch.inf, -(target * log_q).sum(1))
        spread = spread * target.sum(1)
    else:
        hit = F.cross_entropy(logits, target, ignore_index=ignore_index, reduction="none")
        spread = spread.masked_fill(target == ignore_index, 0.0)
    return (1 - smoothing) * hit + smoothing * spread
