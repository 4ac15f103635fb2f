"""Tversky loss: overlap in which what is marked wrongly and what is missed count differently."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import register
from counterpoise.objectives.regions import RegionObjective, Regions
from counterpoise.objectives.targets import Mean


@register(
    "tversky",
    summary="overlap with the labels in which what is missed counts otherwise than what is marked wrongly",
    paper="Salehi, Erdogmus, Gholipour, arXiv 1706.05721",
    year=2017,
)
class Tversky(RegionObjective):
    r"""Tversky loss.

    .. math::
        L = 1 - \frac{1}{|P|} \sum_{c \in P} T_c, \quad
        T_c = \frac{\sum_i p_{ic} g_{ic} + \epsilon}{\sum_i p_{ic} g_{ic}
            + \alpha \sum_i p_{ic} (1 - g_{ic}) + \beta \sum_i (1 - p_{ic}) g_{ic} + \epsilon}

    with p the student's probabilities, g 1 where position i is of class c and else 0, sums over all positions of the
    batch, and P the classes that any of them is of. With alpha = beta = 1/2 it is `dice` of power 1, with 1 and 1 the
    Jaccard index. 0 where no position counts. Under several processes, and with `train.accumulate`, each part of a
    batch is compared alone, as for `dice`.

    Args:
        alpha: what a position counts that is marked wrongly.
        beta: what one counts that is missed; above alpha it favors recall. The paper's best are 0.3 and 0.7.
        smooth: epsilon.
        sigmoid: as for `dice`.
        ignore_index: as for `dice`, and so are target and weight.

    Salehi et al. 2017, for two classes; averaged over classes as for `dice`.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        smooth: float = 0.0,
        sigmoid: bool = False,
        ignore_index: int | None = 255,
    ) -> None:
        super().__init__("tversky", sigmoid, ignore_index)
        self.alpha = check_share("alpha", alpha)
        self.beta = check_share("beta", beta)
        if alpha + beta == 0:
            raise ObjectiveError("alpha and beta are both 0: then every answer would be right.")
        self.smooth = check_share("smooth", smooth)

    def loss(self, regions: Regions) -> Mean:
        index = tversky_index(self.probabilities(regions.logits), regions, self.alpha, self.beta, self.smooth)
        return regions.mean_of_present(1 - index)


def tversky_index(probability: Tensor, regions: Regions, alpha: float, beta: float, smooth: float) -> Tensor:
    """T of each class [C]; anything of a class that is not there."""
    _, truth, share = regions
    hit = (share * probability * truth).sum(regions.positions)
    wrong = (share * probability * (1 - truth)).sum(regions.positions)
    missed = (share * (1 - probability) * truth).sum(regions.positions)
    # Where all there is was missed and beta is 0, hit and size are both 0.
    size = (hit + alpha * wrong + beta * missed + smooth).clamp(min=torch.finfo(hit.dtype).tiny)
    return (hit + smooth) / torch.where(regions.present, size, 1.0)


def check_share(name: str, value: float) -> float:
    """`value`, which must be a finite number from 0 on."""
    if not 0 <= value < float("inf"):
        raise ObjectiveError(f"{name} must be at least 0 and finite, got {value}.")
    return value
