"""Decoupled knowledge distillation: the target class and the others, each with its own weight."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import register
from counterpoise.objectives.divergence import check_temperature, forward_kl_values
from counterpoise.objectives.labeled import LabeledObjective
from counterpoise.objectives.logits import LEFT_OUT
from counterpoise.objectives.targets import Reduction, one_hot


@register(
    "dkd",
    summary="forward KL split into target class and the other classes; needs labels",
    paper="Zhao et al., Decoupled knowledge distillation, arXiv 2203.08679",
    year=2022,
)
class DecoupledDistillation(LabeledObjective):
    r"""Decoupled Knowledge Distillation.

    .. math::
        L = r \tau^2 [\alpha KL(b^t \| b^s) + \beta KL(\hat p^t \| \hat p^s)]

    where b is the pair (probability of the target class, probability of all others), p hat the distribution over the
    others alone, both softened by tau; logits [N, C, ...]. Forward KL is the same with alpha = 1 and beta = 1 minus the
    teacher's probability of the target: there a sure teacher silences its knowledge of the other classes. The ramp r
    rises linearly from 0 to 1 over the first `warmup` of the run; outside of a run it is 1.

    The target is int64 [N, ...], or probabilities [N, C] of which the largest is the target; rows of zeros, labels
    below 0 and `ignore_index` have no label and are not counted.

    Zhao et al. 2022: alpha 1, tau 4, cross-entropy at weight 1; beta 8, but 6 for VGG13 and WRN-40-2 with students of
    their family and 2 for ResNet56 and ResNet110; warm-up 20 of 240 epochs (the paper's ImageNet recipe: beta 0.5,
    tau 1, one epoch of warm-up).

    Args:
        alpha: weight of the target class.
        beta: weight of the other classes.
        temperature: tau.
        warmup: share of the run over which the objective rises to its weight, in [0, 1].
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    named: ClassVar[str] = "dkd"

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        warmup: float = 20 / 240,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(ignore_index, reduction)
        if not 0.0 <= warmup <= 1.0:
            raise ObjectiveError(f"warmup is a share of the run and must be in [0, 1], got {warmup}.")
        self.alpha = alpha
        self.beta = beta
        self.temperature = check_temperature("temperature", temperature)
        self.warmup = warmup
        self._ramp = 1.0

    def set_progress(self, progress: float) -> None:
        self._ramp = min(progress / self.warmup, 1.0) if self.warmup > 0 else 1.0

    def logged(self) -> dict[str, float]:
        return {"warmup": self._ramp} if self._ramp < 1 else {}

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        assert target is not None
        is_target = one_hot(target, student_logits.shape[1])
        student, teacher = student_logits / self.temperature, teacher_logits / self.temperature
        return self._weighed(
            forward_kl_values(pair(student, is_target), pair(teacher, is_target), 1.0),
            forward_kl_values(without(student, is_target), without(teacher, is_target), 1.0),
        )

    def _weighed(self, target: Tensor, others: Tensor) -> dict[str, Tensor]:
        scale = self._ramp * self.temperature**2
        return {"target": self.alpha * scale * target, "others": self.beta * scale * others}


def pair(logits: Tensor, is_target: Tensor) -> Tensor:
    """Logits [N, C, ...] of (the class that `is_target` marks, all others together): [N, 2, ...]."""
    target = logits.masked_fill(~is_target, 0.0).sum(1)
    return torch.stack([target, without(logits, is_target).logsumexp(1)], dim=1)


def without(logits: Tensor, which: Tensor) -> Tensor:
    """Logits [N, C, ...] with the classes that `which` marks left out."""
    return logits.masked_fill(which, LEFT_OUT)
