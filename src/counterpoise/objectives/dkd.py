"""Decoupled knowledge distillation: the target class and the others, each with its own weight."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import LEFT_OUT, LogitObjective, Reduction, Sum, readable, register
from counterpoise.objectives.divergence import check_temperature, forward_kl_values
from counterpoise.outputs import Outputs

UNLABELED = -1


@register(
    "dkd",
    summary="forward KL split into target class and the other classes; needs labels",
    paper="Zhao et al., Decoupled knowledge distillation, arXiv 2203.08679",
    year=2022,
)
class DecoupledDistillation(LogitObjective):
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

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "labels"})

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        warmup: float = 20 / 240,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(UNLABELED, reduction)
        if not 0.0 <= warmup <= 1.0:
            raise ObjectiveError(f"warmup is a share of the run and must be in [0, 1], got {warmup}.")
        self.alpha = alpha
        self.beta = beta
        self.temperature = check_temperature("temperature", temperature)
        self.warmup = warmup
        self.also_ignored = ignore_index
        self._ramp = 1.0

    def set_progress(self, progress: float) -> None:
        self._ramp = min(progress / self.warmup, 1.0) if self.warmup > 0 else 1.0

    def logged(self) -> dict[str, float]:
        return {"warmup": self._ramp} if self._ramp < 1 else {}

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None = None,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        return super().forward(student_logits, teacher_logits, self._labels(student_logits, target), weight)

    def sums(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        return super().sums(student, teacher, self._labels(student.logits, target), weight)

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        assert target is not None
        classes = torch.arange(student_logits.shape[1], device=target.device)
        is_target = classes.view(1, -1, *[1] * (target.ndim - 1)) == target.unsqueeze(1)
        student_pair, student_others = self._split(student_logits, is_target)
        teacher_pair, teacher_others = self._split(teacher_logits, is_target)
        scale = self._ramp * self.temperature**2
        return {
            "target": self.alpha * scale * forward_kl_values(student_pair, teacher_pair, 1.0),
            "others": self.beta * scale * forward_kl_values(student_others, teacher_others, 1.0),
        }

    def _split(self, logits: Tensor, is_target: Tensor) -> tuple[Tensor, Tensor]:
        """Softened logits of (target, all others) [N, 2, ...], and of the others alone [N, C, ...]."""
        softened = logits / self.temperature
        others = softened.masked_fill(is_target, LEFT_OUT)
        target = softened.masked_fill(~is_target, 0.0).sum(1)
        return torch.stack([target, others.logsumexp(1)], dim=1), others

    def _labels(self, logits: Tensor, target: Tensor | None) -> Tensor:
        """int64 [N, ...] with UNLABELED wherever a position does not count."""
        if target is None:
            raise ObjectiveError("dkd needs a target, got none.")
        if target.is_floating_point():
            if target.shape != logits.shape:
                raise ObjectiveError(
                    f"a target of probabilities must have the logits' shape {list(logits.shape)}, "
                    f"got {list(target.shape)}."
                )
            labels = target.argmax(1).masked_fill(target.sum(1) <= 0, UNLABELED)
            return labels if self.also_ignored is None else labels.masked_fill(labels == self.also_ignored, UNLABELED)
        positions = logits.shape[:1] + logits.shape[2:]
        if target.shape != positions:
            raise ObjectiveError(f"target must have shape {list(positions)}, got {list(target.shape)}.")
        ignored = target < 0 if self.also_ignored is None else (target < 0) | (target == self.also_ignored)
        labels = target.masked_fill(ignored, UNLABELED)
        # Not looked at on a GPU, which would have to wait for the answer.
        if readable(labels) and labels.numel() and labels.max() >= logits.shape[1]:
            raise ObjectiveError(
                f"target holds label {int(labels.max())}, but the logits have {logits.shape[1]} classes (0 to "
                f"{logits.shape[1] - 1}). Is it an ignore_index?"
            )
        return labels
