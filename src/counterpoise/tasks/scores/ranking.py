"""How well pixels are ranked, whatever the threshold: AUROC and AUPRC of the second of two classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from counterpoise.tasks.scores.base import KINDS, Kind, Seen

BINS, RANGE = 2048, 16.0
"""Scores are taken in steps of 1/64 of a logit between -16 and 16, beyond which a probability is under 0.0000002."""


class Ranking(Kind):
    """Counts: pixels that are not of the class by their score, from the lowest on, and those that are.

    Both are exact for scores that are rounded to these steps; pixels of one step are ties.
    """

    scores: ClassVar = {
        "auroc": "area under the curve of recall over 1 - specificity: how often a pixel of the class has a higher "
        "score than another one",
        "auprc": "area under the curve of precision over recall, as average precision",
    }
    width = 2 * BINS
    needs = "pixels"
    two_classes = True

    def count(self, seen: Seen, classes: Sequence[int]) -> Tensor:
        found = []
        for one in classes:
            score, there, known = seen.ranked(one)
            steps = ((score.double() + RANGE) * (BINS / (2 * RANGE))).floor().clamp(0, BINS - 1).long()
            found.append(torch.cat([torch.bincount(steps[known & each], minlength=BINS) for each in (~there, there)]))
        return torch.stack(found)

    def values(self, counts: Tensor) -> dict[str, Tensor]:
        absent, there = counts.reshape(*counts.shape[:-1], 2, BINS).unbind(-2)
        beaten = absent.cumsum(-1) - absent / 2
        pairs = there.sum(-1) * absent.sum(-1)
        auroc = 100 * (there * beaten).sum(-1) / torch.where(pairs > 0, pairs, torch.nan)
        hits, taken = (values.flip(-1).cumsum(-1).flip(-1) for values in (there, there + absent))
        total = there.sum(-1)
        precision = (there * hits / taken.clamp(min=1)).sum(-1)
        return {"auroc": auroc, "auprc": 100 * precision / torch.where(total > 0, total, torch.nan)}


KINDS.add("ranking", Ranking(), __name__)
