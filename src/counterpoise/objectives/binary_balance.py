"""Balance Divergence where each class is a question of its own: two classes by one logit, or several labels at once."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from counterpoise.objectives.base import LogitObjective, register
from counterpoise.objectives.divergence import check_temperature
from counterpoise.objectives.targets import Reduction


@register(
    "binary_balance",
    summary="forward and reverse KL of sigmoids, class by class: for masks of one logit and for several labels at once",
    paper="Qi et al., Balance divergence, arXiv 2501.07804, by label as in Yang et al., arXiv 2308.06453",
    year=2025,
)
class BinaryBalance(LogitObjective):
    r"""Balance Divergence between Bernoulli distributions.

    .. math::
        L = \sum_c a \tau_f^2 KL(B(t_c/\tau_f) \| B(s_c/\tau_f)) + b \tau_r^2 KL(B(s_c/\tau_r) \| B(t_c/\tau_r))

    with B(x) the Bernoulli distribution of probability sigmoid(x), which is that of a softmax over (x, 0). The sum over
    the classes is the divergence of their joint distributions, each label being independent of the others. By the
    student's logit, forward KL has the gradient tau_f (q - p), and reverse KL q (1 - q) (s_c - t_c).

    Args:
        forward_weight: a, weight of forward KL.
        reverse_weight: b, weight of reverse KL.
        forward_temperature: tau_f.
        reverse_temperature: tau_r.
        ignore_index: positions whose target [N, ...] holds this value are not counted. Leave it out where the target is
            one a class [N, C, ...].
        reduction: "mean" over counted positions, "sum" or "none".

    Called with (student_logits, teacher_logits, target=None, weight=None); see `LogitObjective.forward` for shapes.

    Sources: Qi, Wang, Zhang, Liu, Zhang, "Balance divergence for knowledge distillation", arXiv 2501.07804 (2025), for
    the two divergences; Yang, Xie, Zong, Feng, Niu, Sugiyama, Huang, "Multi-label knowledge distillation", arXiv
    2308.06453 (ICCV 2023), for one Bernoulli distribution a label. To combine them is ours, as are the defaults.
    """

    sigmoid = True

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
        forward = _bernoulli_kl_values(teacher_logits, student_logits, self.forward_temperature)
        reverse = _bernoulli_kl_values(student_logits, teacher_logits, self.reverse_temperature)
        return {"forward": self.forward_weight * forward, "reverse": self.reverse_weight * reverse}


def _bernoulli_kl_values(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """tau^2 sum_c KL(B(first_c / tau) || B(second_c / tau)): logits [N, C, ...] to [N, ...]."""
    x, y = first / temperature, second / temperature
    # Of no as of yes by its own logarithm: 1 - p has lost its digits where p is near 1.
    yes, no = ((F.logsigmoid(sign * x), F.logsigmoid(sign * y)) for sign in (1, -1))
    divergence = yes[0].exp() * (yes[0] - yes[1]) + no[0].exp() * (no[0] - no[1])
    return temperature**2 * divergence.sum(1)
