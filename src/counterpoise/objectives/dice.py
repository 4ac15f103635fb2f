"""Soft Dice: how far what the student marks as a class overlaps with what is of it."""

from __future__ import annotations

import torch

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import register
from counterpoise.objectives.regions import RegionObjective, Regions
from counterpoise.objectives.targets import Mean


@register(
    "dice",
    summary="overlap with the labels, each class alike however small its share of the pixels",
    paper="Milletari, Navab, Ahmadi, V-Net, arXiv 1606.04797",
    year=2016,
)
class Dice(RegionObjective):
    r"""Soft Dice loss.

    .. math::
        L = 1 - \frac{1}{|P|} \sum_{c \in P}
            \frac{2 \sum_i p_{ic} g_{ic} + \epsilon}{\sum_i p_{ic}^k + \sum_i g_{ic}^k + \epsilon}

    with p the student's probabilities, g 1 where position i is of class c and else 0, sums over all positions of the
    batch, and P the classes that any of them is of. A class is worth the same whether it fills a hundredth of the
    pixels or half of them. Usual beside cross-entropy, each at weight 1. 0 where no position counts. Under several
    processes each sees its own share of the batch alone, and with `train.accumulate` one part at a time; the mean over
    them is by the positions that count.

    Args:
        power: k, at least 1: 2 in V-Net, 1 in many medical segmenters since (nnU-Net).
        smooth: epsilon.
        sigmoid: each class is a question of its own, by a sigmoid in place of the softmax. Logits [N, 1, ...] then take
            labels 0 and 1; several labels at once are a target of floats [N, C, ...], where -1 is unknown.
        ignore_index: label of positions that do not count; negative labels (unlabeled) never do.

    Called with (student_logits, teacher_logits=None, target, weight=None); the teacher is not looked at. Target:
    int64 [N, ...], or floats in [0, 1] of the logits' shape, where without `sigmoid` a position without any mass does
    not count. Weight: [N] or [N, ...].

    Milletari et al. 2016, for two classes; averaged over classes as has become usual.
    """

    def __init__(
        self, power: float = 2.0, smooth: float = 0.0, sigmoid: bool = False, ignore_index: int | None = 255
    ) -> None:
        super().__init__("dice", sigmoid, ignore_index)
        if not 1 <= power < float("inf"):
            raise ObjectiveError(f"power must be at least 1 and finite, got {power}.")
        if not 0 <= smooth < float("inf"):
            raise ObjectiveError(f"smooth must be at least 0 and finite, got {smooth}.")
        self.power = power
        self.smooth = smooth

    def loss(self, regions: Regions) -> Mean:
        logits, truth, share = regions
        probability = self.probabilities(logits)
        overlap = (share * probability * truth).sum(regions.positions)
        size = (share * (probability**self.power + truth**self.power)).sum(regions.positions)
        # Nothing is divided by the size of a class that is not there, which may be next to nothing.
        dice = (2 * overlap + self.smooth) / torch.where(regions.present, size + self.smooth, 1.0)
        return regions.mean_of_present(1 - dice)
