"""Transformed teacher matching: the teacher is softened, the student is not."""

from __future__ import annotations

from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import LogitObjective, register
from counterpoise.objectives.divergence import forward_kl_values
from counterpoise.objectives.targets import Reduction


@register(
    "ttm",
    summary="KL of a power-transformed teacher to the student as it is",
    paper="Zheng, Yang, Knowledge distillation based on transformed teacher matching, arXiv 2402.11148",
    year=2024,
)
class TransformedTeacherMatching(LogitObjective):
    r"""L = KL(p^\gamma / \sum_c p_c^\gamma || q); logits [N, C, ...]. Zheng and Yang 2024 (TTM).

    p and q are the teacher's and the student's probabilities at temperature 1. The power gamma is a temperature of
    1 / gamma on the teacher's side alone, which leaves a Rényi entropy of the student in the objective. gamma = 1 is
    forward KL at temperature 1.

    The paper chooses gamma and the weight of the term for each pair of networks, beside cross-entropy at 1: on
    CIFAR-100 gamma 0.1 and weight 100 for ResNet32x4 to ResNet8x4, 45 for VGG13 to VGG8; gamma 0.3, weight 7 for
    ResNet56 to ResNet20.

    Args:
        gamma: power of the teacher's probabilities, above 0.
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    def __init__(self, gamma: float = 0.1, ignore_index: int | None = None, reduction: Reduction = "mean") -> None:
        super().__init__(ignore_index, reduction)
        if not 0.0 < gamma < float("inf"):
            raise ObjectiveError(f"gamma must be above 0 and finite, got {gamma}.")
        self.gamma = gamma

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        # A power of probabilities is a factor on logits: softmax(gamma t) = p^gamma, normalized.
        return {"": forward_kl_values(student_logits, self.gamma * teacher_logits, 1.0)}
