"""Cross-entropy with the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import LogitObjective, register
from counterpoise.objectives.logits import may_be_out, widen
from counterpoise.objectives.targets import (
    UNLABELED,
    Reduction,
    Target,
    check_class_prior,
    check_class_weight,
    check_known,
    check_no_class,
    check_target,
    weight_by_class,
)


@register("cross_entropy", summary="the labels; samples without a label are not counted")
class CrossEntropy(LogitObjective):
    """L = -log softmax(s)[target], or -sum_c target_c log softmax(s)_c where the target holds probabilities.

    Classes whose logit is -inf have no part in the softmax; where one of them is the label, the loss is infinite.

    With `class_prior` it is the logit-adjusted loss of Menon et al. 2021 (arXiv 2007.07314): s + a log(prior) stand in
    the place of s, so that a student trained where some classes are rare answers as if all were alike. Logits are
    adjusted in this loss alone: what is evaluated, distilled and shipped are the student's own.

    Args:
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2016).
        ignore_index: target of positions without a label. In a target of probabilities [N, C] such a row is all zero.
        class_weight: a number for each class, by which its positions count in the mean; in a run file also
            "frequency" or "effective", by which rare classes count more, or numbers by name, {name: number}, the
            others being 1.
        class_prior: how frequent each class is, a number for each; in a run file also "frequency", as counted in the
            training data.
        adjustment: a; 1 is the paper's, 0 none.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    log_prior: Tensor | None

    def __init__(
        self,
        label_smoothing: float = 0.0,
        ignore_index: int | None = -1,
        class_weight: Sequence[float] | None = None,
        class_prior: Sequence[float] | None = None,
        adjustment: float = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(ignore_index, reduction)
        if not 0.0 <= label_smoothing < 1.0:
            raise ObjectiveError(f"label_smoothing must be in [0, 1), got {label_smoothing}.")
        self.label_smoothing = label_smoothing
        self.class_weight = check_class_weight(class_weight)
        self.class_prior = check_class_prior(class_prior)
        self.adjustment = adjustment
        prior = None if self.class_prior is None else torch.tensor(self.class_prior).log()
        self.register_buffer("log_prior", prior, persistent=False)

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        target = check_target("cross_entropy", target, student_logits)
        if not target.is_floating_point():
            target = target.long()
            check_known(target, student_logits.shape[1], self.ignore_index)
        if self.log_prior is not None:
            student_logits = self._adjusted(student_logits, self.log_prior)
        ignore = -100 if self.ignore_index is None else self.ignore_index
        return {"": cross_entropy_values(student_logits, target, ignore, self.label_smoothing)}

    def _adjusted(self, logits: Tensor, log_prior: Tensor) -> Tensor:
        if len(log_prior) != logits.shape[1]:
            raise ObjectiveError(f"class_prior has {len(log_prior)} numbers, and the logits {logits.shape[1]} classes.")
        return logits + self.adjustment * log_prior.to(logits).view(-1, *(1,) * (logits.ndim - 2))

    def target(self, logits: Tensor, target: Tensor | None, weight: Tensor | None) -> Target:
        weight = weight_by_class(self.class_weight, logits, target, weight)
        if target is None or not target.is_floating_point():
            return Target(target, weight, self.ignore_index)
        check_no_class(self.ignore_index, target)
        return Target(target.to(widen(logits).dtype), weight, UNLABELED)


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
