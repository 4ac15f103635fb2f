"""Intra-class feature variation: how near to the middle of its class each pixel lies."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from counterpoise.objectives.base import register
from counterpoise.objectives.features import FeatureObjective, class_means, pool_to_smaller, unit_vectors
from counterpoise.objectives.logits import widen
from counterpoise.objectives.targets import UNLABELED, Sum, Target, labels_at, one_hot
from counterpoise.outputs import Outputs


@register(
    "ifvd",
    summary="each pixel lies as near to the middle of its class in the image as the teacher's",
    paper="Wang et al., Intra-class feature variation distillation for semantic segmentation, ECCV",
    year=2020,
)
class IntraClassVariation(FeatureObjective):
    r"""L = mean_i (m_i(s) - m_i(t))^2, m_i = cos(f_i, mean of f over the pixels of i's class in the image).

    Mean over all counted positions of the batch; void is left out (the authors' code counts it, at 0). Of maps of
    unlike sizes the larger is pooled first; labels are taken at the feature's size, from the nearest pixel. Channels
    may differ in number. Weight in the authors' code: 200, beside `forward_kl` at 10 and an adversary.

    Args:
        student_feature: module of the student, or stage "@k"; default: the last.
        teacher_feature: the same of the teacher.
        ignore_index: label of pixels that do not count; negative labels (unlabeled) never do.

    Labels: int64 [N, H, W]. Labels [N] or probabilities [N, C] of whole images (the largest counts) make an image one
    class. Wang, Zhou, Jiang, Bai, Xu, ECCV 2020.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "features", "labels"})

    def __init__(
        self, student_feature: str = "@-1", teacher_feature: str = "@-1", ignore_index: int | None = 255
    ) -> None:
        super().__init__(student_feature, teacher_feature)
        self.ignore_index = ignore_index

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        mine, other = self.pairs(student, teacher)[0]
        mine, other = pool_to_smaller(widen(mine), other)
        height, width = mine.shape[2:]
        classes = student.logits.shape[1]
        labels = labels_at(target, (height, width), classes, self.ignore_index, "ifvd")
        with torch.autocast(mine.device.type, enabled=False):
            values = (_nearness(mine, labels, classes) - _nearness(other, labels, classes)).square()
            return {"": Target(labels, weight, UNLABELED).sum(values.view_as(labels))}


def _nearness(feature: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Cosine [N, h * w] of each position of a map [N, D, h, w] with the mean of its class; 0 where it has none."""
    members = one_hot(labels.flatten(1), classes).to(feature.dtype)
    # The mean before lengths are made one, as in the paper.
    means = unit_vectors(class_means(feature, members).transpose(1, 2).unsqueeze(3)).squeeze(3)
    return (unit_vectors(feature).flatten(2) * (means @ members)).sum(1)
