"""Soft Dice: how far what the student marks as a class overlaps with what is of it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import Objective, register
from counterpoise.objectives.logits import check_logits, widen
from counterpoise.objectives.targets import UNLABELED, Mean, Target, check_labels, check_target, labels_of, one_hot
from counterpoise.outputs import Outputs


@register(
    "dice",
    summary="overlap with the labels, each class alike however small its share of the pixels",
    paper="Milletari, Navab, Ahmadi, V-Net, arXiv 1606.04797",
    year=2016,
)
class Dice(Objective):
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
            labels 0 and 1; several labels at once are a target of floats [N, C, ...].
        ignore_index: label of positions that do not count; negative labels (unlabeled) never do.

    Called with (student_logits, teacher_logits=None, target, weight=None); the teacher is not looked at. Target:
    int64 [N, ...], or floats in [0, 1] of the logits' shape, where without `sigmoid` a position without any mass does
    not count. Weight: [N] or [N, ...].

    Milletari et al. 2016, for two classes; averaged over classes as has become usual.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    def __init__(
        self, power: float = 2.0, smooth: float = 0.0, sigmoid: bool = False, ignore_index: int | None = 255
    ) -> None:
        super().__init__()
        if not 1 <= power < float("inf"):
            raise ObjectiveError(f"power must be at least 1 and finite, got {power}.")
        if not 0 <= smooth < float("inf"):
            raise ObjectiveError(f"smooth must be at least 0 and finite, got {smooth}.")
        self.power = power
        self.smooth = smooth
        self.sigmoid = sigmoid
        self.ignore_index = ignore_index

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Mean]:
        check_logits(student.logits, None, needs_teacher=False)
        with torch.autocast(student.logits.device.type, enabled=False):
            return {"": self._loss(widen(student.logits), target, weight)}

    def _loss(self, logits: Tensor, target: Tensor | None, weight: Tensor | None) -> Mean:
        """Raises ObjectiveError for a missing target, shapes that do not fit, a label too large."""
        truth, counted = self._truth(logits, check_target("dice", target, logits))
        # An ignored position may hold anything, and zero times that is not always zero.
        logits = logits.masked_fill(~counted.unsqueeze(1), 0.0)
        share = Target(weight=weight).reduce(counted.to(logits.dtype), "none").unsqueeze(1)
        probability = logits.sigmoid() if self.sigmoid else logits.softmax(1)
        positions = [d for d in range(logits.ndim) if d != 1]
        overlap = (share * probability * truth).sum(positions)
        size = (share * (probability**self.power + truth**self.power)).sum(positions)
        present = (share * truth).sum(positions) > 0
        # Nothing is divided by the size of a class that is not there, which may be next to nothing.
        dice = (2 * overlap + self.smooth) / torch.where(present, size + self.smooth, 1.0)
        return Mean((present * (1 - dice)).sum() / present.sum().clamp(min=1), share.sum())

    def _truth(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """g of the logits' shape, and bool [N, ...], whether a position counts."""
        if target.is_floating_point():
            truth = target.to(logits.dtype)
            return truth, torch.ones_like(truth[:, 0], dtype=torch.bool) if self.sigmoid else truth.sum(1) > 0
        labels, classes = labels_of(target, self.ignore_index), logits.shape[1]
        binary = self.sigmoid and classes == 1
        check_labels(labels, 2 if binary else classes)
        # The one class of a binary mask is 1.
        return one_hot(labels, classes, int(binary)).to(logits.dtype), labels != UNLABELED
