"""Skewed KL: each side is compared with a mixture of both, which bounds the divergence."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import LogitObjective, register
from counterpoise.objectives.divergence import check_temperature
from counterpoise.objectives.targets import Reduction

PAPER = "Ko et al., DistiLLM: towards streamlined distillation for large language models, arXiv 2402.03898"


def skewed_forward_kl_values(student_logits: Tensor, teacher_logits: Tensor, temperature: float, skew: float) -> Tensor:
    """tau^2 KL(p || skew p + (1 - skew) q) over dim 1: logits [N, C, ...] to [N, ...]; at most -tau^2 log(skew)."""
    log_p = F.log_softmax(teacher_logits / temperature, dim=1)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    return temperature**2 * (log_p.exp() * (log_p - _log_mixture(log_p, log_q, skew))).sum(1)


def skewed_reverse_kl_values(student_logits: Tensor, teacher_logits: Tensor, temperature: float, skew: float) -> Tensor:
    """tau^2 KL(q || skew q + (1 - skew) p) over dim 1: logits [N, C, ...] to [N, ...]; at most -tau^2 log(skew)."""
    return skewed_forward_kl_values(teacher_logits, student_logits, temperature, skew)


def _log_mixture(log_a: Tensor, log_b: Tensor, share: float) -> Tensor:
    """log(share a + (1 - share) b)."""
    if share == 0.0:
        return log_b
    if share == 1.0:
        return log_a
    return torch.logaddexp(log_a + math.log(share), log_b + math.log1p(-share))


class _SkewedKL(LogitObjective):
    def __init__(
        self,
        skew: float = 0.1,
        temperature: float = 1.0,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(ignore_index, reduction)
        if not 0.0 <= skew < 1.0:
            raise ObjectiveError(f"skew must be in [0, 1), got {skew}.")
        self.skew = skew
        self.temperature = check_temperature("temperature", temperature)


@register("skewed_forward_kl", summary="KL of the teacher to a mixture of teacher and student", paper=PAPER, year=2024)
class SkewedForwardKL(_SkewedKL):
    r"""L = \tau^2 KL(p || \alpha p + (1 - \alpha) q); logits [N, C, ...]. Ko et al. 2024 (DistiLLM).

    p and q are the teacher's and the student's probabilities, softened by tau. At alpha = 0 this is forward KL; above,
    no class can cost more than -log(alpha), so a student far from its teacher does not drown in a few classes.

    Args:
        skew: alpha, in [0, 1); the paper's choice is 0.1.
        temperature: tau; the paper has none.
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        return {"": skewed_forward_kl_values(student_logits, teacher_logits, self.temperature, self.skew)}


@register("skewed_reverse_kl", summary="KL of the student to a mixture of student and teacher", paper=PAPER, year=2024)
class SkewedReverseKL(_SkewedKL):
    r"""L = \tau^2 KL(q || (1 - \alpha) p + \alpha q); logits [N, C, ...]. Ko et al. 2024 (DistiLLM).

    p and q are the teacher's and the student's probabilities, softened by tau. At alpha = 0 this is reverse KL.

    Args:
        skew: alpha, in [0, 1); the paper's choice is 0.1.
        temperature: tau; the paper has none.
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        return {"": skewed_reverse_kl_values(student_logits, teacher_logits, self.temperature, self.skew)}
