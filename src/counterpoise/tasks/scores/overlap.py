"""How far truth and answer overlap: Dice, IoU, precision, recall and specificity of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from counterpoise.tasks.scores.base import KINDS, Kind, Seen, share


class Overlap(Kind):
    """Counts: pixels that are hit, true, answered, and known."""

    scores: ClassVar = {
        "dice": "2 |T and A| / (|T| + |A|) of the pixels T where a class is true and A where it is answered",
        "iou": "|T and A| / |T or A|",
        "precision": "|T and A| / |A|",
        "recall": "|T and A| / |T|, also called sensitivity",
        "specificity": "of the pixels of other classes, how many are not answered as this one",
    }
    width = 4
    needs = "pixels"
    of_objects = False

    def count(self, seen: Seen, classes: Sequence[int]) -> Tensor:
        return seen.cells[list(classes)]

    def values(self, counts: Tensor) -> dict[str, Tensor]:
        hit, truth, answered, known = counts.unbind(-1)
        others = known - truth
        return {
            "dice": share(2 * hit, truth + answered),
            "iou": share(hit, truth + answered - hit),
            "precision": share(hit, answered),
            "recall": share(hit, truth),
            "specificity": share(others - answered + hit, others),
        }


OVERLAP = Overlap()
KINDS.add("overlap", OVERLAP, __name__)
