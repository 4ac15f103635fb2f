"""Structured distillation, its pair-wise part: how alike the regions of an image are to each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import register
from counterpoise.objectives.features import FeatureObjective, pool_to_smaller, unit_vectors
from counterpoise.objectives.logits import widen
from counterpoise.objectives.targets import Sum, Target
from counterpoise.outputs import Outputs


@register(
    "skd",
    summary="similarities between the regions of an image agree with the teacher's",
    paper="Liu et al., Structured knowledge distillation for semantic segmentation, arXiv 1903.04197",
    year=2019,
)
class StructuredDistillation(FeatureObjective):
    r"""L = mean_ij (a_ij(s) - a_ij(t))^2, a_ij the cosine of patches i and j of an image. Liu et al. 2019.

    A patch is the maximum of each channel over `patch` x `patch` positions, as in the code of the authors and of the
    comparisons since; of maps of unlike sizes the larger is pooled first, and channels may differ in number. Mean over
    samples. The method's other parts are `forward_kl` at each pixel, and an adversary, which is left out here. Memory
    grows with the square of the number of patches. Weight in the authors' code: 1, beside pixels at 10.

    Args:
        student_feature: module of the student, or stage "@k"; default: the last.
        teacher_feature: the same of the teacher.
        patch: edge of a patch, in positions of the feature. The paper's best is 2; the authors' code takes half the
            map, and so compares four patches.
    """

    def __init__(self, student_feature: str = "@-1", teacher_feature: str = "@-1", patch: int = 2) -> None:
        super().__init__(student_feature, teacher_feature)
        if not isinstance(patch, int) or patch < 1:
            raise ObjectiveError(f"patch must be a whole number above 0, got {patch!r}.")
        self.patch = patch

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        mine, other = self.pairs(student, teacher)[0]
        maps = pool_to_smaller(widen(mine), other)
        with torch.autocast(mine.device.type, enabled=False):
            alike = [self._similarities(feature) for feature in maps]
            return {"": Target(weight=weight).sum((alike[0] - alike[1]).square().mean((1, 2)))}

    def _similarities(self, feature: Tensor) -> Tensor:
        """[N, D, H, W] to the cosines [N, P, P] of its P patches."""
        vectors = unit_vectors(F.max_pool2d(feature, self.patch, ceil_mode=True)).flatten(2)
        return vectors.transpose(1, 2) @ vectors
