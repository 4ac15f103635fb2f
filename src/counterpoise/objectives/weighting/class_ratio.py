"""Per class, by a sigmoid of the log ratio: ToDi."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from counterpoise.objectives.weighting.base import PositionWeighting, Side, check_range, register


@register(
    "class_ratio",
    summary="per class: forward where the student gives too little, reverse where it gives too much",
    paper="Jung et al., ToDi: Token-wise distillation via fine-grained divergence control, arXiv 2505.16297",
    year=2025,
)
class ClassRatio(PositionWeighting):
    r"""ToDi, with classes in the place of tokens.

    .. math::
        L = \sum_c \alpha_c p_c \log\frac{p_c}{q_c} + (1 - \alpha_c) q_c \log\frac{q_c}{p_c}, \quad
        \alpha_c = \sigma\left(\beta \log\frac{p_c}{q_c}\right)

    with p the teacher's and q the student's probabilities and alpha a constant to the gradient. Each divergence takes
    the ratio at its own temperature, which keeps it at least half of the plain one, and so above 0; in the paper both
    are 1. The factors multiply the two given weights.

    Args:
        sharpness: beta, 1 in the paper; 0 halves both divergences.

    Source: Jung, Yoon, Kim, Lee, "ToDi: Token-wise Distillation via Fine-Grained Divergence Control", arXiv 2505.16297
    (EMNLP 2025).
    """

    def __init__(self, sharpness: float = 1.0) -> None:
        super().__init__()
        self.sharpness = check_range("sharpness", sharpness, 0.0, float("inf"), "[)")

    def shares(
        self, student_logits: Tensor, teacher_logits: Tensor, forward: Side, reverse: Side
    ) -> tuple[Tensor, Tensor]:
        at_forward, at_reverse = (
            F.log_softmax(teacher_logits / side.temperature, dim=1)
            - F.log_softmax(student_logits / side.temperature, dim=1)
            for side in (forward, reverse)
        )
        return (self.sharpness * at_forward).sigmoid(), (-self.sharpness * at_reverse).sigmoid()
