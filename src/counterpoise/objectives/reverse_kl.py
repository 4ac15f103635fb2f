"""Reverse KL: what the student believes, judged by the teacher."""

from __future__ import annotations

from torch import Tensor

from counterpoise.objectives.base import LogitObjective, register
from counterpoise.objectives.divergence import check_temperature, reverse_kl_values
from counterpoise.objectives.targets import Reduction


@register(
    "reverse_kl",
    summary="KL(student || teacher) at one temperature; add it to any other objective",
    paper="Gu et al., MiniLLM: knowledge distillation of large language models, arXiv 2306.08543",
    year=2023,
)
class ReverseKL(LogitObjective):
    r"""L = \tau^2 KL(softmax(s/\tau) || softmax(t/\tau)); logits [N, C, ...].

    Args:
        temperature: tau.
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    def __init__(
        self, temperature: float = 2.0, ignore_index: int | None = None, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(ignore_index, reduction)
        self.temperature = check_temperature("temperature", temperature)

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        return {"": reverse_kl_values(student_logits, teacher_logits, self.temperature)}
