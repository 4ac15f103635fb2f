"""How many objects are found and how well, an object being what hangs together: F1 and panoptic quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from counterpoise.tasks.scores.base import KINDS, Kind, Seen, share


class Objects(Kind):
    """Counts: objects that are matched, answered alone, true alone, and the sum of the IoU of those that are matched.

    Objects are pixels of a class that touch along an edge. Two are matched where their IoU is more than 0.5, which no
    object has with two others (Kirillov et al., arXiv 1801.00868).
    """

    scores: ClassVar = {
        "object_f1": "F1 of objects, which are found where their IoU is above 0.5",
        "pq": "panoptic quality: that F1 times the mean IoU of the objects that are found",
    }
    width = 4

    def count(self, seen: Seen, classes: Sequence[int]) -> Tensor:
        return torch.tensor([matched(*seen.masks(number)) for number in classes], dtype=torch.float64)

    def values(self, counts: Tensor) -> dict[str, Tensor]:
        found, answered, true, overlap = counts.unbind(-1)
        every = 2 * found + answered + true
        return {"object_f1": share(2 * found, every), "pq": share(2 * overlap, every)}


def matched(truth: NDArray[np.bool_], answer: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """How many objects are matched, answered alone and true alone, and the sum of the IoU of those that are matched."""
    from scipy.ndimage import label

    (true, trues), (answered, answers) = label(truth), label(answer)
    both = (true > 0) & (answered > 0)
    codes, shared = np.unique(true[both] * np.int64(answers + 1) + answered[both], return_counts=True)
    one, other = np.divmod(codes, answers + 1)
    iou = shared / (np.bincount(true.ravel())[one] + np.bincount(answered.ravel())[other] - shared)
    hit = iou > 0.5
    found = float(hit.sum())
    return found, answers - found, trues - found, float(iou[hit].sum())


KINDS.add("objects", Objects(), __name__)
