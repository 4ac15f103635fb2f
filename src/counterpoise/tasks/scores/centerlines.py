"""How much of thin structures is found along their center lines: clDice (Shit et al., arXiv 2003.07311)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from counterpoise.tasks.scores.base import KINDS, Kind, Seen


class Centerlines(Kind):
    """Counts: pixels of the answer's skeleton, how many of them are true; of the truth's, how many are answered."""

    scores: ClassVar = {
        "cldice": "harmonic mean of how much of the answer's center line lies in the truth, and of the truth's in the "
        "answer"
    }
    width = 4
    needs = "masks"
    packages = ("skimage",)

    def count(self, seen: Seen, classes: Sequence[int]) -> Tensor:
        from skimage import morphology

        skeletonize: Any = morphology.skeletonize
        found = []
        for truth, answer in map(seen.masks, classes):
            of_answer, of_truth = skeletonize(answer), skeletonize(truth)
            shared = [(of_answer & truth).sum(), (of_truth & answer).sum()]
            found.append([of_answer.sum(), shared[0], of_truth.sum(), shared[1]])
        return torch.tensor(found, dtype=torch.float64)

    def values(self, counts: Tensor) -> dict[str, Tensor]:
        answered, right, true, found = counts.unbind(-1)
        precision, recall = right / answered.clamp(min=1), found / true.clamp(min=1)
        both = 100 * 2 * precision * recall / (precision + recall).clamp(min=1e-300)
        return {"cldice": torch.where(answered + true > 0, both, torch.nan)}


KINDS.add("centerlines", Centerlines(), __name__)
