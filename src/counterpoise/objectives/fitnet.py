"""FitNet: the student predicts a feature of the teacher's."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from counterpoise.objectives.base import register
from counterpoise.objectives.features import BatchNorm, FeatureObjective, built, pool_to_smaller, precision_of
from counterpoise.objectives.logits import widen
from counterpoise.objectives.targets import Sum, Target
from counterpoise.outputs import Outputs


@register(
    "fitnet",
    summary="a regressor on a middle feature of the student predicts the teacher's",
    paper="Romero et al., FitNets: hints for thin deep nets, arXiv 1412.6550",
    year=2015,
)
class FitNet(FeatureObjective):
    r"""L = mean over channels and positions of (r(s) - t)^2, and over samples. Romero et al. 2015.

    The regressor r is trained with the student, as in the comparisons since CRD (the paper trained the hint first): a
    convolution, batch norm and ReLU. Its stride is the ratio of the sizes where that is whole (transposed where the
    teacher's map is the larger); 1x1, with the larger map pooled, elsewhere. Weight in those comparisons: 100, beside
    cross-entropy at 1.

    Args:
        student_feature: module of the student, or stage "@k"; default: the last but one.
        teacher_feature: the same of the teacher.
        relu: end r in a ReLU; turn it off where the teacher's feature may be negative.
    """

    def __init__(self, student_feature: str = "@-2", teacher_feature: str = "@-2", relu: bool = True) -> None:
        super().__init__(student_feature, teacher_feature)
        self.relu = relu
        self.regressor: nn.Module | None = None

    def prepare(self, student: Outputs, teacher: Outputs | None, samples: int) -> None:
        mine, other = self.pairs(student, teacher)[0]
        norm = [BatchNorm(other.shape[1]), *([nn.ReLU()] if self.relu else [])]
        self.regressor = nn.Sequential(_regressor(mine.shape, other.shape), *norm).to(widen(mine))

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        mine, other = self.pairs(student, teacher)[0]
        with precision_of(mine):
            predicted = built(self.regressor)(mine)
        predicted, other = pool_to_smaller(widen(predicted), other)
        return {"": Target(weight=weight).sum((predicted - other).square().flatten(1).mean(1))}


def _regressor(student: Sequence[int], teacher: Sequence[int]) -> nn.Module:
    """Convolution between maps of these shapes: by stride where the one is so many times the other, else 1x1."""
    (_, channels, height, width), (_, wanted, teacher_height, teacher_width) = student, teacher
    factor = height // teacher_height
    if (height, width) == (factor * teacher_height, factor * teacher_width):
        return nn.Conv2d(channels, wanted, 2 * factor - 1, stride=factor, padding=factor - 1)
    factor = teacher_height // height
    if (teacher_height, teacher_width) == (factor * height, factor * width):
        return nn.ConvTranspose2d(
            channels, wanted, 2 * factor, stride=factor, padding=(factor + 1) // 2, output_padding=factor % 2
        )
    return nn.Conv2d(channels, wanted, 1)
