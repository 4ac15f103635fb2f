"""Imitation of features alone: for teachers without classes, and for images without labels."""

from __future__ import annotations

from torch import Tensor, nn

from counterpoise.objectives.base import register
from counterpoise.objectives.features import (
    BatchNorm,
    FeatureObjective,
    built,
    laid_out,
    pool_to_smaller,
)
from counterpoise.objectives.logits import widen
from counterpoise.objectives.targets import Sum, Target
from counterpoise.outputs import Outputs


@register(
    "features",
    summary="the teacher's features, pooled or place by place, through a projector: needs no classes and no labels",
    paper="Romero et al., FitNets, arXiv 1412.6550, with standardized targets as in Heo et al., arXiv 1904.01866",
    year=2019,
)
class FeatureImitation(FeatureObjective):
    r"""L = mean over channels and positions of (P s - z(t))^2, and over samples.

    z standardizes each channel of the teacher's feature, to mean 0 and deviation 1 over the batch while training and
    over what was seen so far in evaluation, so that no channel counts more for being large, and 1 - L is the share of
    the teacher's variance that the student explains. P is a linear map of the student's channels to the teacher's,
    which learns with the student and does not ship.

    Args:
        student_feature: module of the student, or stage "@k"; default: the last.
        teacher_feature: the same of the teacher.
        grid: compare place by place, the larger map pooled to the smaller; default: means over all places. Tokens are
            laid out as a square, without those in front of them, which belong to no place.

    Under several processes each standardizes by its own share of the batch, unless train.sync_batch_norm is set.

    Sources: Romero, Ballas, Ebrahimi Kahou, Chassang, Gatta, Bengio, "FitNets", arXiv 1412.6550 (ICLR 2015), for a
    learned map between features; Heo, Kim, Yun, Park, Kwak, Choi, "A comprehensive overhaul of feature distillation",
    arXiv 1904.01866 (ICCV 2019), for targets without the teacher's scale. To standardize each channel is ours.
    """

    def __init__(self, student_feature: str = "@-1", teacher_feature: str = "@-1", grid: bool = False) -> None:
        super().__init__(student_feature, teacher_feature)
        self.grid = grid
        self.projector: nn.Conv2d | None = None
        self.standardized: BatchNorm | None = None

    def prepare(self, student: Outputs, teacher: Outputs | None, samples: int) -> None:
        mine, other = self._pair(student, teacher)
        self.projector = nn.Conv2d(mine.shape[1], other.shape[1], 1).to(widen(mine))
        self.standardized = BatchNorm(other.shape[1], affine=False).to(other)

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        predicted, other = self.sides(student, teacher)
        return {"": Target(weight=weight).sum((predicted - other).square().flatten(1).mean(1))}

    def sides(self, student: Outputs, teacher: Outputs | None) -> tuple[Tensor, Tensor]:
        """P s and z(t), [N, C, h, w]."""
        mine, other = self._pair(student, teacher)
        # In float32: nothing holds the student's features, and so the gradients of P, within the range of a half.
        return pool_to_smaller(built(self.projector)(widen(mine)), built(self.standardized)(other))

    def _pair(self, student: Outputs, teacher: Outputs | None) -> tuple[Tensor, Tensor]:
        mine, other = (laid_out(feature, self.grid) for feature in self.pairs(student, teacher)[0])
        return (mine, other) if self.grid else (mine.mean((2, 3), keepdim=True), other.mean((2, 3), keepdim=True))
