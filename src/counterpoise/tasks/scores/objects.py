"""How many objects are found and how well, an object being what hangs together: F1, panoptic quality and AJI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from counterpoise.tasks.scores.base import KINDS, Kind, Seen, share


class Objects(Kind):
    """Counts: objects that are matched, answered alone, true alone, the sum of the IoU of those that are matched; and
    both sides of the aggregated Jaccard index, in pixels.

    Objects are pixels of a class that touch along an edge. Two are matched where their IoU is more than 0.5, which no
    object has with two others (Kirillov et al., arXiv 1801.00868). AJI: Kumar et al. 2017, "A dataset and a technique
    for generalized nuclear segmentation for computational pathology".
    """

    scores: ClassVar = {
        "object_f1": "F1 of objects, which are found where their IoU is above 0.5",
        "pq": "panoptic quality: that F1 times the mean IoU of the objects that are found",
        "aji": "aggregated Jaccard index: what true objects share with the answered ones that overlap them best",
    }
    width = 6
    needs = "masks"

    def count(self, seen: Seen, classes: Sequence[int]) -> Tensor:
        return torch.tensor([_counted(*seen.masks(number)) for number in classes], dtype=torch.float64)

    def values(self, counts: Tensor) -> dict[str, Tensor]:
        found, answered, true, overlap, common, union = counts.unbind(-1)
        every = 2 * found + answered + true
        return {
            "object_f1": share(2 * found, every),
            "pq": share(2 * overlap, every),
            "aji": share(common, union),
        }


def _counted(truth: NDArray[np.bool_], answer: NDArray[np.bool_]) -> tuple[float, ...]:
    """The counts of `Objects`."""
    from scipy.ndimage import label

    (true, trues), (answered, answers) = label(truth), label(answer)
    both = (true > 0) & (answered > 0)
    codes, shared = np.unique(true[both] * np.int64(answers + 1) + answered[both], return_counts=True)
    one, other = np.divmod(codes, answers + 1)
    sizes, sizes_answered = np.bincount(true.ravel()), np.bincount(answered.ravel())
    union = sizes[one] + sizes_answered[other] - shared
    iou = shared / union
    hit = iou > 0.5
    found = float(hit.sum())
    # The best of each true object, of several the first; what no true object has as its best, and true objects
    # without any, are in the union alone.
    order = np.lexsort((other, -iou, one))
    overlapped, first = np.unique(one[order], return_index=True)
    best = order[first]
    alone = sizes[1:].sum() - sizes[overlapped].sum()
    unused = sizes_answered[1:].sum() - sizes_answered[np.unique(other[best])].sum()
    whole = float(union[best].sum() + alone + unused)
    return found, answers - found, trues - found, float(iou[hit].sum()), float(shared[best].sum()), whole


KINDS.add("objects", Objects(), __name__)
