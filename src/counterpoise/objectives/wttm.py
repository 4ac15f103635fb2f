"""Weighted transformed teacher matching: samples on which the teacher is unsure count for more."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from counterpoise.objectives.base import register
from counterpoise.objectives.ttm import TransformedTeacherMatching


@register(
    "wttm",
    summary="ttm, each sample weighted by the power sum of the teacher's probabilities",
    paper="Zheng, Yang, Knowledge distillation based on transformed teacher matching, arXiv 2402.11148",
    year=2024,
)
class WeightedTransformedTeacherMatching(TransformedTeacherMatching):
    r"""L = U KL(p^\gamma / U || q) with U = \sum_c p_c^\gamma; logits [N, C, ...]. Zheng and Yang 2024 (WTTM).

    p and q are the teacher's and the student's probabilities at temperature 1. U lies between 1, where the teacher is
    sure, and C^(1 - gamma), where it knows nothing, so the term wants a smaller weight than `ttm`: in the paper, on
    CIFAR-100, gamma 0.1 and weight 3 for ResNet32x4 to ResNet8x4, 2.25 for VGG13 to VGG8; gamma 0.3, weight 1.5 for
    ResNet56 to ResNet20; on ImageNet gamma 0.8, weight 1.6 for ResNet34 to ResNet18. gamma = 1 is forward KL at
    temperature 1.

    Args:
        gamma: power of the teacher's probabilities, above 0.
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        power_sum = (self.gamma * F.log_softmax(teacher_logits, dim=1)).exp().sum(1)
        return {"": power_sum * super().values(student_logits, teacher_logits, target)[""]}
