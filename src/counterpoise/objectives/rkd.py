"""Relational knowledge distillation: distances and angles among the samples of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import register
from counterpoise.objectives.features import FeatureObjective
from counterpoise.objectives.logits import widen
from counterpoise.outputs import Outputs


@register(
    "rkd",
    summary="distances and angles among the embeddings of a batch agree with the teacher's",
    paper="Park, Kim, Lu, Cho, Relational knowledge distillation, arXiv 1904.05068",
    year=2019,
)
class RelationalDistillation(FeatureObjective):
    r"""L = w_d mean_ij h(d_ij(s) - d_ij(t)) + w_a mean_ijk h(a_ijk(s) - a_ijk(t)). Park et al. 2019.

    d_ij = |x_i - x_j| / mu, with mu the mean of the distances above zero; a_ijk is the cosine of the angle at x_j
    between x_i and x_k; h the Huber loss with its corner at 1. Means are over all pairs and triples of the batch, as in
    the authors' code; the paper writes sums. Under several processes each sees the pairs and triples of its own share
    of the batch alone, and with `train.accumulate` of one part, as if that were the whole. Memory grows with the cube
    of the batch. Features are averaged over positions. Weight in the comparisons since CRD: 1, beside cross-entropy at
    1.

    Args:
        student_feature: module of the student, or stage "@k"; default: the last. Name the module that pools where the
            network normalizes after its last stage.
        teacher_feature: the same of the teacher.
        distance_weight: w_d.
        angle_weight: w_a.
    """

    def __init__(
        self,
        student_feature: str = "@-1",
        teacher_feature: str = "@-1",
        distance_weight: float = 25.0,
        angle_weight: float = 50.0,
    ) -> None:
        super().__init__(student_feature, teacher_feature)
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Tensor]:
        if weight is not None:
            raise ObjectiveError("rkd compares samples with each other and takes no weights of samples.")
        mine, other = (widen(value).mean((2, 3)) for value in self.pairs(student, teacher)[0])
        other = other.to(mine.dtype)
        with torch.autocast(mine.device.type, enabled=False):
            return {
                "distance": self.distance_weight * F.smooth_l1_loss(_distances(mine), _distances(other)),
                "angle": self.angle_weight * F.smooth_l1_loss(_angles(mine), _angles(other)),
            }


def _distances(x: Tensor) -> Tensor:
    """[N, N] from embeddings [N, C], in units of their mean."""
    # Not by |x|^2 + |y|^2 - 2xy, which loses the small distances.
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    positive = distances > 0
    mean = distances.sum() / positive.sum().clamp(min=1)
    return distances / torch.where(mean > 0, mean, 1.0)


def _angles(x: Tensor) -> Tensor:
    """Cosines [N, N, N], by the sample at the vertex first, from embeddings [N, C]; 0 where two of the three agree."""
    rays = x - x.unsqueeze(1)
    square = rays.square().sum(2, keepdim=True)
    # A root has no gradient at zero: there, take that of a constant.
    unit = rays / torch.where(square > 0, square, 1.0).sqrt()
    return unit @ unit.transpose(1, 2)
