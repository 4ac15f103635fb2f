"""Attention transfer: where the student's maps are strong, as the teacher's are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import register
from counterpoise.objectives.features import FeatureObjective, pool_to_smaller
from counterpoise.objectives.logits import widen
from counterpoise.objectives.targets import Sum, Target
from counterpoise.outputs import Outputs


@register(
    "at",
    summary="attention transfer: maps of where a stage is active agree, whatever the channels",
    paper="Zagoruyko, Komodakis, Paying more attention to attention, arXiv 1612.03928",
    year=2017,
)
class AttentionTransfer(FeatureObjective):
    r"""L = sum over stages of the mean over positions of (Q(s) - Q(t))^2. Zagoruyko and Komodakis 2017.

    Q(a) = mean_c |a_c|^p over the channels, divided by its L2 norm over the positions. Of maps of unlike sizes the
    larger is pooled first. Weight in the authors' code and the comparisons since CRD: 1000, beside cross-entropy at 1.

    Args:
        student_features: modules of the student, or stages "@k"; default: the last three.
        teacher_features: the same of the teacher.
        power: p, at least 1.
    """

    def __init__(
        self,
        student_features: str | Sequence[str] = ("@-3", "@-2", "@-1"),
        teacher_features: str | Sequence[str] = ("@-3", "@-2", "@-1"),
        power: float = 2.0,
    ) -> None:
        super().__init__(student_features, teacher_features)
        if not 1 <= power < float("inf"):
            raise ObjectiveError(f"power must be at least 1 and finite, got {power}.")
        self.power = power

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        maps = [pool_to_smaller(widen(mine), other) for mine, other in self.pairs(student, teacher)]
        stages = [(self._attention(mine) - self._attention(other)).square().mean(1) for mine, other in maps]
        return {"": Target(weight=weight).sum(torch.stack(stages).sum(0))}

    def _attention(self, feature: Tensor) -> Tensor:
        """[N, C, H, W] to [N, H * W] of unit norm; a map of zeros stays zero."""
        # Q does not change with the scale of a map, which without this may leave the range of its dtype.
        scale = feature.detach().abs().amax((1, 2, 3), keepdim=True)
        feature = feature / torch.where(scale > 0, scale, 1.0)
        return F.normalize(feature.abs().pow(self.power).mean(1).flatten(1), dim=1)
