"""Balance Divergence: forward KL for what the teacher believes, reverse KL for what it rules out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.objectives.arguments import check_finite, check_number, check_tensors
from counterpoise.objectives.base import LogitObjective, register
from counterpoise.objectives.divergence import check_temperature, forward_kl_values, reverse_kl_values
from counterpoise.objectives.kernels.function import fused
from counterpoise.objectives.kernels.mixture import Divergence, Inputs, Mixture
from counterpoise.objectives.logits import check_device, check_logits, remaining, widen
from counterpoise.objectives.targets import Reduction, Target, check_reduction
from counterpoise.objectives.weighting.base import TEMPERATURE_RULES, WEIGHTINGS, Side, build


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
    temperatures from 0.05 to 20. A class whose logit is -inf, in the student, in the teacher or in both, is left out of
    both softmaxes at that position; the gradient there is 0, whatever the other side gives it. The teacher receives no
    gradient. Nothing is compiled, but `torch.compile`, fullgraph too, works over it.

    Args:
        forward_weight: a, weight of forward KL.
        reverse_weight: b, weight of reverse KL.
        forward_temperature: tau_f.
        reverse_temperature: tau_r.
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum", or "none" for one value a position.
        rule: how a and b move while training: "fixed", "entropy" (by sample), "head_tail" (by sample), "class_ratio"
            (by class) or "self_tuning" (b alone); see `objectives/weighting/`. Schedules of a run file need no rule.
        rule_arguments: arguments of that rule, by name.
        temperature_rule: "fixed", or "per_sample", by the spread of the teacher's logits.
        temperature_arguments: arguments of that rule, by name.

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
        rule: str = "fixed",
        rule_arguments: Mapping[str, Any] | None = None,
        temperature_rule: str = "fixed",
        temperature_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(ignore_index, reduction)
        self.forward_weight = forward_weight
        self.reverse_weight = reverse_weight
        self.forward_temperature = check_temperature("forward_temperature", forward_temperature)
        self.reverse_temperature = check_temperature("reverse_temperature", reverse_temperature)
        self.rule = build(WEIGHTINGS, rule, rule_arguments)
        self.temperature_rule = build(TEMPERATURE_RULES, temperature_rule, temperature_arguments)
        self.fixed = rule == temperature_rule == "fixed"
        """Whether weights and temperatures are the same for all classes and positions."""

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        if not self.fixed:
            return self._moving_values(student_logits, teacher_logits, self._counted(target))
        return _mixed(self._mixture(1.0), student_logits, teacher_logits)

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None = None,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        mixture = self.mixture()
        fast = None if mixture is None else fused(mixture, Inputs(student_logits, teacher_logits, target, weight))
        return super().forward(student_logits, teacher_logits, target, weight) if fast is None else fast[0]

    def mixture(self, factor: float = 1.0) -> Mixture | None:
        """`factor` times this objective as the fast forms take it; None where a rule moves its weights."""
        # A subclass may compute anything.
        return self._mixture(factor) if self.fixed and type(self) is BalanceDivergence else None

    def _mixture(self, factor: float) -> Mixture:
        forward = Divergence(factor * self.forward_weight, self.forward_temperature)
        reverse = Divergence(factor * self.reverse_weight, self.reverse_temperature)
        return Mixture(forward, reverse, ignore_index=self.ignore_index, reduction=self.reduction)

    def logged(self) -> dict[str, float]:
        logged: dict[str, float] = {**self.rule.logged(), **self.temperature_rule.logged()}
        return logged

    def _counted(self, target: Tensor | None) -> Tensor | None:
        if self.ignore_index is None or target is None or target.is_floating_point():
            return None
        return target != self.ignore_index

    def _moving_values(
        self, student_logits: Tensor, teacher_logits: Tensor, counted: Tensor | None
    ) -> dict[str, Tensor]:
        factor = self.temperature_rule(teacher_logits, counted)
        forward = Side(self.forward_weight, self.forward_temperature * factor)
        reverse = Side(self.reverse_weight, self.reverse_temperature * factor)
        weights = self.rule(student_logits, teacher_logits, forward, reverse, counted)
        return {
            "forward": _weighted_kl(teacher_logits, student_logits, forward.temperature, weights[0]),
            "reverse": _weighted_kl(student_logits, teacher_logits, reverse.temperature, weights[1]),
        }


def _weighted_kl(first: Tensor, second: Tensor, temperature: float | Tensor, weight: float | Tensor) -> Tensor:
    """sum_c weight_c tau^2 p_c log(p_c / q_c): logits of p and of q [N, C, ...] to [N, ...]."""
    log_p = F.log_softmax(first / temperature, dim=1)
    log_q = F.log_softmax(second / temperature, dim=1)
    return (temperature**2 * weight * (log_p.exp() * (log_p - log_q))).sum(1)


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
    """`BalanceDivergence` as a function, with weights and temperatures as given: rules that move them keep a state."""
    for name, value in (("forward_weight", forward_weight), ("reverse_weight", reverse_weight)):
        check_number(name, value)
        check_finite(name, value)
    mixture = Mixture(
        Divergence(forward_weight, check_temperature("forward_temperature", forward_temperature)),
        Divergence(reverse_weight, check_temperature("reverse_temperature", reverse_temperature)),
        ignore_index=ignore_index,
        reduction=reduction,
    )
    check_reduction(reduction)
    check_tensors(student_logits=student_logits, teacher_logits=teacher_logits, target=target, weight=weight)
    check_logits(student_logits, teacher_logits)
    fast = fused(mixture, Inputs(student_logits, teacher_logits, target, weight))
    if fast is not None:
        return fast[0]
    check_device(student_logits, "target", target)
    with torch.autocast(student_logits.device.type, enabled=False):
        values = _mixed(mixture, *remaining(widen(student_logits), widen(teacher_logits.detach())))
        return Target(target, weight, ignore_index).reduce(values["forward"] + values["reverse"], reduction)


def _mixed(mixture: Mixture, student_logits: Tensor, teacher_logits: Tensor) -> dict[str, Tensor]:
    """Both divergences at every position, weights included."""
    assert mixture.forward is not None
    assert mixture.reverse is not None
    forward = forward_kl_values(student_logits, teacher_logits, mixture.forward.temperature)
    reverse = reverse_kl_values(student_logits, teacher_logits, mixture.reverse.temperature)
    return {"forward": mixture.forward.weight * forward, "reverse": mixture.reverse.weight * reverse}
