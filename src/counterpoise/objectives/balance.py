"""Balance Divergence: forward KL for what the teacher believes, reverse KL for what it rules out."""

from __future__ import annotations

from torch import Tensor

from counterpoise.objectives.base import LogitObjective, Reduction, register
from counterpoise.objectives.divergence import check_temperature, forward_kl_values, reverse_kl_values


@register(
    "balance",
    summary="forward KL and reverse KL, each with its own weight and temperature",
    paper="Qi et al., Balance divergence for knowledge distillation, arXiv 2501.07804",
    year=2025,
)
class BalanceDivergence(LogitObjective):
    r"""Balance Divergence Distillation.

    .. math::
        L = a \tau_f^2 KL(softmax(t/\tau_f) \| softmax(s/\tau_f))
          + b \tau_r^2 KL(softmax(s/\tau_r) \| softmax(t/\tau_r))

    with student logits s and teacher logits t. Forward KL weighs each class by the teacher's probability, and so
    hardly feels the classes that the teacher finds impossible; reverse KL weighs by the student's, and so punishes the
    student for believing in exactly those. The factor tau^2 keeps gradients comparable between
    temperatures (Hinton et al. 2015).

    Computed in float32 log space (float64 stays float64): finite in value and gradient for logits to +-1e4 and
    temperatures from 0.05 to 20. The teacher receives no gradient.

    Args:
        forward_weight: a, weight of forward KL.
        reverse_weight: b, weight of reverse KL.
        forward_temperature: tau_f.
        reverse_temperature: tau_r.
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum", or "none" for one value a position.

    Called with (student_logits, teacher_logits, target=None, weight=None); see `LogitObjective.forward` for shapes.

    Source: Qi, Wang, Zhang, Liu, Zhang, "Balance divergence for knowledge distillation", arXiv 2501.07804 (2025). The
    paper's own weights and temperatures could not be obtained; these defaults are ours.
    """

    def __init__(
        self,
        forward_weight: float = 1.0,
        reverse_weight: float = 1.0,
        forward_temperature: float = 4.0,
        reverse_temperature: float = 2.0,
        ignore_index: int | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(ignore_index, reduction)
        self.forward_weight = forward_weight
        self.reverse_weight = reverse_weight
        self.forward_temperature = check_temperature("forward_temperature", forward_temperature)
        self.reverse_temperature = check_temperature("reverse_temperature", reverse_temperature)

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        forward = forward_kl_values(student_logits, teacher_logits, self.forward_temperature)
        reverse = reverse_kl_values(student_logits, teacher_logits, self.reverse_temperature)
        return {"forward": self.forward_weight * forward, "reverse": self.reverse_weight * reverse}


def balance_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    target: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    forward_weight: float = 1.0,
    reverse_weight: float = 1.0,
    forward_temperature: float = 4.0,
    reverse_temperature: float = 2.0,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """`BalanceDivergence` as a function, with the same arguments."""
    objective = BalanceDivergence(
        forward_weight, reverse_weight, forward_temperature, reverse_temperature, ignore_index, reduction
    )
    loss: Tensor = objective(student_logits, teacher_logits, target, weight)
    return loss
