"""Focal Tversky loss: the Tversky loss of a class raised to a power, so that those that overlap badly count more."""

from __future__ import annotations

import torch

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import register
from counterpoise.objectives.regions import RegionObjective, Regions
from counterpoise.objectives.targets import Mean
from counterpoise.objectives.tversky import check_share, tversky_index


@register(
    "focal_tversky",
    summary="tversky to a power, so that its gradient lasts where a small object is nearly found",
    paper="Abraham and Khan, arXiv 1810.07842",
    year=2019,
)
class FocalTversky(RegionObjective):
    r"""Focal Tversky loss.

    .. math:: L = \frac{1}{|P|} \sum_{c \in P} (1 - T_c)^{1 / \gamma}

    with T and P of `tversky`; gamma 1 is that. The paper adds up over the classes, here it is their mean. The slope of
    the power grows without bounds towards T = 1: from 1 - T = 1e-6 on there is no gradient.

    Args:
        alpha: what a position counts that is marked wrongly; the paper's 0.3 (its beta).
        beta: what one counts that is missed; the paper's 0.7 (its alpha).
        gamma: at least 1; the paper's 4/3, of 1 to 3 that it takes.
        smooth: as for `tversky`.
        sigmoid: as for `tversky`.
        ignore_index: as for `tversky`.

    Abraham and Khan 2019 (ISBI).
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 4 / 3,
        smooth: float = 0.0,
        sigmoid: bool = False,
        ignore_index: int | None = 255,
    ) -> None:
        super().__init__("focal_tversky", sigmoid, ignore_index)
        self.alpha = check_share("alpha", alpha)
        self.beta = check_share("beta", beta)
        if alpha + beta == 0:
            raise ObjectiveError("alpha and beta are both 0: then every answer would be right.")
        if not 1 <= gamma < float("inf"):
            raise ObjectiveError(f"gamma must be at least 1 and finite, got {gamma}.")
        self.gamma = gamma
        self.smooth = check_share("smooth", smooth)

    def loss(self, regions: Regions) -> Mean:
        index = tversky_index(self.probabilities(regions.logits), regions, self.alpha, self.beta, self.smooth)
        missing = 1 - index
        if self.gamma != 1:
            found = missing <= NEARLY  # never of NaN, which is to be seen in the loss
            missing = torch.where(found, NEARLY, missing) ** (1 / self.gamma) * ~found
        return regions.mean_of_present(missing)


NEARLY = 1e-6
"""1 - T below which a class is taken for found."""
