"""Focal loss: cross-entropy in which what the student is sure of counts little."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import register
from counterpoise.objectives.regions import RegionObjective, Regions
from counterpoise.objectives.targets import Sum


@register(
    "focal",
    summary="cross-entropy in which what is easy counts little: for objects of few pixels",
    paper="Lin, Goyal, Girshick, He, Dollar, Focal loss for dense object detection, arXiv 1708.02002",
    year=2017,
)
class Focal(RegionObjective):
    r"""Focal loss.

    .. math:: L = -(1 - p_y)^\gamma \log p_y

    with p_y the student's probability of the label: of the softmax, or with `sigmoid` of each yes and no, summed over
    the classes, the yes times alpha and the no times 1 - alpha. With gamma 0, and without alpha, it is cross-entropy,
    or with `sigmoid` binary cross-entropy. Mean over the positions that count (the paper divides by the number of its
    anchors with an object).

    Args:
        gamma: how little what is easy counts; the paper's 2.
        alpha: with `sigmoid`, the part of yes against no, 0 to 1; the paper's 0.25, beside gamma 2. None: each counts
            once.
        sigmoid: as for `dice`.
        ignore_index: as for `dice`, and so are target and weight.

    Lin et al. 2017, by sigmoids; by a softmax as has become usual.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | None = None,
        sigmoid: bool = False,
        ignore_index: int | None = 255,
    ) -> None:
        super().__init__("focal", sigmoid, ignore_index)
        if not 0 <= gamma < float("inf"):
            raise ObjectiveError(f"gamma must be at least 0 and finite, got {gamma}.")
        if alpha is not None and not 0 <= alpha <= 1:
            raise ObjectiveError(f"alpha must be 0 to 1, got {alpha}.")
        if alpha is not None and not sigmoid:
            raise ObjectiveError("alpha weighs yes against no, which a softmax does not have: say sigmoid: true, too.")
        self.gamma = gamma
        self.alpha = alpha

    def loss(self, regions: Regions) -> Sum:
        logits, truth, share = regions
        if self.sigmoid:
            yes, no = (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)
            values = yes * self._values(F.logsigmoid(logits), (-logits).sigmoid(), truth)
            values = values + no * self._values(F.logsigmoid(-logits), logits.sigmoid(), 1 - truth)
        else:
            log_p = F.log_softmax(logits, 1)
            values = self._values(log_p, -torch.expm1(log_p), truth)
        return Sum((share * values).sum(), regions.counted)

    def _values(self, log_p: Tensor, rest: Tensor, truth: Tensor) -> Tensor:
        """-truth rest^gamma log p, where rest is 1 - p; what is not true costs nothing, even at -inf."""
        # Below gamma 1 the slope of the power at 0 is infinite, and times 0 would be NaN.
        eased = rest.clamp(min=torch.finfo(rest.dtype).tiny) ** self.gamma
        return -truth * eased * torch.where(truth > 0, log_p, 0.0)
