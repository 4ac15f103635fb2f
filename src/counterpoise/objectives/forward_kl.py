"""Forward KL: Hinton's knowledge distillation."""

from __future__ import annotations

from torch import Tensor

from counterpoise.objectives.base import LogitObjective, register
from counterpoise.objectives.divergence import check_temperature, forward_kl_values
from counterpoise.objectives.targets import Reduction


@register(
    "forward_kl",
    summary="KL(teacher || student) at one temperature: knowledge distillation as it began",
    paper="Hinton, Vinyals, Dean, Distilling the knowledge in a neural network, arXiv 1503.02531",
    year=2015,
)
class ForwardKL(LogitObjective):
    r"""L = \tau^2 KL(softmax(t/\tau) || softmax(s/\tau)); logits [N, C, ...]. Hinton et al. 2015.

    Args:
        temperature: tau.
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    def __init__(
        self, temperature: float = 4.0, ignore_index: int | None = None, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(ignore_index, reduction)
        self.temperature = check_temperature("temperature", temperature)

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        return {"": forward_kl_values(student_logits, teacher_logits, self.temperature)}
