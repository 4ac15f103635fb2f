"""Alpha-beta divergence: a plane of divergences with forward and reverse KL at two of its points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import LogitObjective, register
from counterpoise.objectives.divergence import check_temperature
from counterpoise.objectives.targets import Reduction


@register(
    "abkd",
    summary="alpha-beta divergence: forward KL at (1, 0), reverse KL at (0, 1)",
    paper="Wang et al., ABKD: pursuing a proper allocation of the probability mass in knowledge distillation via "
    "alpha-beta-divergence, arXiv 2505.04560",
    year=2025,
)
class AlphaBetaDivergence(LogitObjective):
    r"""Knowledge distillation by the alpha-beta divergence of Cichocki et al.

    .. math::
        L = \frac{\tau^2}{\alpha \beta} \sum_c \left[ \frac{\alpha}{\alpha + \beta} p_c^{\alpha + \beta}
          + \frac{\beta}{\alpha + \beta} q_c^{\alpha + \beta} - p_c^\alpha q_c^\beta \right]

    with p and q the teacher's and the student's probabilities, softened by tau; logits [N, C, ...]. Where alpha or beta
    is 0 it is the limit there: forward KL at (1, 0), reverse KL at (0, 1). A larger alpha heeds classes with a large
    error less, a larger beta heeds classes that the student believes in more (Wang et al. 2025).

    The defaults are those of the authors' example on CIFAR-100 (ResNet56 to ResNet20), where the weight of the term is
    32 without the factor tau^2: weight 2 here.

    Args:
        alpha: at least 0.
        beta: at least 0; alpha + beta at least 0.01, as smaller sums no longer tell likely from impossible classes.
        temperature: tau.
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    def __init__(
        self,
        alpha: float = 0.8,
        beta: float = 0.3,
        temperature: float = 4.0,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(ignore_index, reduction)
        if not (0.0 <= alpha < float("inf") and 0.0 <= beta < float("inf") and alpha + beta >= 0.01):
            raise ObjectiveError(
                f"alpha and beta must be at least 0 and their sum at least 0.01, got alpha {alpha} and beta {beta}."
            )
        self.alpha = alpha
        self.beta = beta
        self.temperature = check_temperature("temperature", temperature)

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        log_p = F.log_softmax(teacher_logits / self.temperature, dim=1)
        log_q = F.log_softmax(student_logits / self.temperature, dim=1)
        return {"": self.temperature**2 * _divergence(log_p, log_q, self.alpha, self.beta).sum(1)}


def _divergence(log_p: Tensor, log_q: Tensor, alpha: float, beta: float) -> Tensor:
    """By class, as p^s [expm1(s d) / s - expm1(beta d) / beta] / alpha with d = log q/p and s = alpha + beta.

    The formula's difference of powers leaves rounding alone where alpha or beta is close to 0, this leaves the limit.
    """
    if alpha < beta:  # the same with sides swapped, and then it is alpha that may be divided by
        return _divergence(log_q, log_p, beta, alpha)
    total = alpha + beta
    start, difference = total * log_p, log_q - log_p
    return (_growth(start, difference, total) - _growth(start, difference, beta)) / alpha


def _growth(start: Tensor, difference: Tensor, rate: float) -> Tensor:
    """(exp(start + rate * difference) - exp(start)) / rate, and its limit close to rate 0."""
    if rate < torch.finfo(start.dtype).eps:
        return start.exp() * difference
    step = rate * difference
    # expm1 overflows where its factor is 0, and is needed for small steps alone.
    near = start.exp() * step.clamp(-1.0, 1.0).expm1()
    return torch.where(step.abs() <= 1.0, near, (start + step).exp() - start.exp()) / rate
