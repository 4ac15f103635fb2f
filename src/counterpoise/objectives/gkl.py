"""Generalized KL divergence: the difference of logits by its weighted variance, beside forward KL."""

from __future__ import annotations

from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import LogitObjective, register
from counterpoise.objectives.divergence import check_temperature, forward_kl_values
from counterpoise.objectives.logits import LEFT_OUT
from counterpoise.objectives.targets import Reduction


@register(
    "gkl",
    summary="half the weighted variance of the logits' difference, and forward KL; what both KLs tend to when softened",
    paper="Cui et al., Generalized Kullback-Leibler divergence loss, arXiv 2503.08038",
    year=2025,
)
class GeneralizedKL(LogitObjective):
    r"""Generalized Kullback-Leibler divergence.

    .. math::
        L = \frac{1}{4} \sum_{ij} w_i w_j \left[ (t_i - t_j) - (s_i - s_j) \right]^2 + \lambda KL(p^\tau \| q^\tau),
        \quad w_c = \frac{(p^\tau_c)^\gamma}{\sum_k (p^\tau_k)^\gamma}

    with t and s the logits [N, C, ...] of teacher and student, p and q their probabilities, softened by tau. The double
    sum over pairs of classes is half the variance of t - s under the weights w, and is computed as that: a shift of all
    logits costs nothing. With gamma = 0 all classes weigh alike, and the first part is what tau^2 KL tends to at high
    temperature, forward and reverse alike: `{power: 0, soft_weight: 0}` is the control for both.

    Cui et al. 2025 on CIFAR-100: 8 times the first part, 1 times the second, gamma 0.2, tau 4, cross-entropy at 1,
    warm-up over 20 of 240 epochs: here `weight: 8` with lambda = 1/8. Unlike our other objectives, the second part has
    no factor tau^2, as in the authors' code; they give it as a cross-entropy with soft labels, which differs by what
    the student does not move. The paper prints the weights as products w_i w_j; that these sum to 1 is from the code,
    too. It also takes weights from the mean probabilities of all samples of a class; here they are the sample's own.

    Args:
        power: gamma, at least 0.
        temperature: tau, of the weights and of the second part.
        soft_weight: lambda.
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    def __init__(
        self,
        power: float = 0.2,
        temperature: float = 4.0,
        soft_weight: float = 0.125,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(ignore_index, reduction)
        if not 0.0 <= power < float("inf"):
            raise ObjectiveError(f"power must be at least 0 and finite, got {power}.")
        self.power = power
        self.temperature = check_temperature("temperature", temperature)
        self.soft_weight = soft_weight

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        soft = forward_kl_values(student_logits, teacher_logits, self.temperature) / self.temperature**2
        return {
            "difference": half_variance(student_logits, teacher_logits, self.power / self.temperature),
            "soft": self.soft_weight * soft,
        }


def half_variance(student_logits: Tensor, teacher_logits: Tensor, sharpness: float) -> Tensor:
    """Half the variance of t - s over dim 1 under softmax(sharpness t): logits [N, C, ...] to [N, ...].

    Gradient by the student's logits: w (m - d), with d = t - s, and m its mean under w.
    """
    out = teacher_logits == LEFT_OUT
    # Not of LEFT_OUT itself: with a sharpness of 0 it would weigh as much as any.
    weights = (sharpness * teacher_logits).masked_fill(out, LEFT_OUT).softmax(1)
    difference = teacher_logits - student_logits
    centered = difference - (weights * difference).sum(1, keepdim=True)
    return (weights * centered.square()).sum(1) / 2
