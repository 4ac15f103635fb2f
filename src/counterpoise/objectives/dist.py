"""DIST: the student keeps the teacher's relations between probabilities, not their values."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import register
from counterpoise.objectives.batchwise import BatchObjective, classes_of, compared
from counterpoise.objectives.divergence import check_temperature


@register(
    "dist",
    summary="correlation with the teacher, over the classes of a sample and over the samples of a class",
    paper="Huang et al., Knowledge distillation from a stronger teacher, arXiv 2205.10536",
    year=2022,
)
class Dist(BatchObjective):
    r"""Distillation from a stronger teacher.

    .. math::
        L = \tau^2 \left[ \beta \frac{1}{N} \sum_i (1 - \rho(q_{i:}, p_{i:}))
          + \gamma \frac{1}{C} \sum_c (1 - \rho(q_{:c}, p_{:c})) \right]

    with rho Pearson's correlation, p and q the teacher's and the student's probabilities [N, C], softened by tau: which
    classes a sample is like (inter-class), and which samples a class is like (intra-class). A scale and a shift of the
    probabilities cost nothing, as long as epsilon is negligible. What does not vary (one class, a batch of one)
    correlates with nothing: rho is 0.

    Huang et al. 2022 on CIFAR-100: weight 2 for the term beside cross-entropy at 1, beta = gamma = 1, tau 4; on
    ImageNet and for segmentation tau 1.

    Args:
        inter_weight: beta.
        intra_weight: gamma.
        temperature: tau.
        epsilon: stands beside the product of norms in rho, as in the authors' code: what hardly varies (a class that is
            likely nowhere) hardly counts. 0 is the formula as printed.
        ignore_index: positions whose target holds this value are not counted.

    What it sees: inter-class one sample, intra-class all samples of the batch; under several processes those of each
    one's own share, and with `train.accumulate` those of one part.

    Called with (student_logits, teacher_logits, target=None, weight=None); dense logits [N, C, ...] are taken as a
    batch of their positions.
    """

    def __init__(
        self,
        inter_weight: float = 1.0,
        intra_weight: float = 1.0,
        temperature: float = 4.0,
        epsilon: float = 1e-8,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(ignore_index)
        if not 0.0 <= epsilon < float("inf"):
            raise ObjectiveError(f"epsilon must be at least 0 and finite, got {epsilon}.")
        self.inter_weight = inter_weight
        self.intra_weight = intra_weight
        self.temperature = check_temperature("temperature", temperature)
        self.epsilon = epsilon

    def relations(self, student: Tensor, teacher: Tensor, weight: Tensor) -> dict[str, Tensor]:
        q, p = (student / self.temperature).softmax(1), (teacher / self.temperature).softmax(1)
        count = weight.sum()
        share = weight / torch.where(count == 0, 1.0, count)
        inter = (share * (1 - correlation(q, p, compared(teacher, torch.ones_like(weight)), 1, self.epsilon))).sum()
        weights = compared(teacher, weight)
        classes = classes_of(weights)
        intra = classes * (1 - correlation(q, p, weights, 0, self.epsilon))
        intra = intra.sum() / classes.sum() * (count > 0)
        scale = self.temperature**2
        return {"inter": self.inter_weight * scale * inter, "intra": self.intra_weight * scale * intra}


def correlation(a: Tensor, b: Tensor, weight: Tensor, dim: int, epsilon: float) -> Tensor:
    """Pearson's correlation of `a` and `b` along `dim`, weighted; 0 where either does not vary.

    A norm is never taken to be less than a thousandth of the norm before centering, as the gradient grows without bound
    where a student's probabilities are all alike.
    """
    total = weight.sum(dim, keepdim=True)
    total = torch.where(total == 0, 1.0, total)
    root = weight.sqrt()
    centered_a = (a - (weight * a).sum(dim, keepdim=True) / total) * root
    centered_b = (b - (weight * b).sum(dim, keepdim=True) / total) * root
    norms = [
        torch.maximum(torch.linalg.vector_norm(centered, dim=dim), 1e-3 * torch.linalg.vector_norm(raw * root, dim=dim))
        for centered, raw in ((centered_a, a.detach()), (centered_b, b.detach()))
    ]
    product = norms[0] * norms[1] + epsilon
    # So small a product is rounding, and its inverse would overflow in the gradient.
    return (centered_a * centered_b).sum(dim) / torch.where(product < 1e-30, 1.0, product)
