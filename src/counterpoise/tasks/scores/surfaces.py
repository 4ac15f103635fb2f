"""How far apart the outlines of truth and answer are: HD95 and ASSD, defined as MONAI has them, computed by SciPy.

Not by MONAI itself, whose import takes seconds and brings every package in that it can work with; tested against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from counterpoise.tasks.scores.base import KINDS, Kind, Seen

PERCENT = 95


class Surfaces(Kind):
    """Counts: the sums of HD95 and ASSD over pictures, how many have them, and in how many of these truth or answer is
    empty."""

    scores: ClassVar = {
        "hd95": "the 95th percentile of distances from the outline of the answer to that of the truth, or the other "
        "way round if that is more; less is better",
        "assd": "the mean of the distances of both outlines to one another; less is better",
    }
    width = 4
    needs = "masks"
    lower = frozenset(scores)

    def count(self, seen: Seen, classes: Sequence[int]) -> Tensor:
        return torch.tensor([self._of(*seen.masks(number), seen.spacing or (1.0, 1.0)) for number in classes]).double()

    def values(self, counts: Tensor) -> dict[str, Tensor]:
        hd95, assd, pictures, _ = counts.unbind(-1)
        return {
            name: torch.where(pictures > 0, total / pictures, torch.nan)
            for name, total in (("hd95", hd95), ("assd", assd))
        }

    def _of(
        self, truth: NDArray[np.bool_], answer: NDArray[np.bool_], spacing: tuple[float, float]
    ) -> tuple[float, float, float, float]:
        if not truth.any() and not answer.any():
            return 0.0, 0.0, 0.0, 0.0
        if not truth.any() or not answer.any():
            farthest = math.hypot(truth.shape[0] * spacing[0], truth.shape[1] * spacing[1])
            return farthest, farthest, 1.0, 1.0
        there, back = distances(truth, answer, spacing)
        hd95 = max(np.percentile(there, PERCENT), np.percentile(back, PERCENT))
        return float(hd95), float(np.concatenate([there, back]).mean()), 1.0, 0.0


def distances(
    truth: NDArray[np.bool_], answer: NDArray[np.bool_], spacing: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each pixel of the answer's outline the distance to the nearest one of the truth's; and the other way round.

    A pixel is of the outline where one of its four neighbors is not of the mask, beyond the border of the picture, too.
    """
    from scipy.ndimage import distance_transform_edt

    rows, columns = (np.flatnonzero((truth | answer).any(axis)) for axis in (1, 0))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)  # all that counts lies in it
    true, answered = outline(truth)[part], outline(answer)[part]
    to_truth, to_answer = (distance_transform_edt(~edge, sampling=spacing) for edge in (true, answered))
    return to_truth[answered], to_answer[true]


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a mask of which a neighbor is not in it."""
    from scipy.ndimage import binary_erosion

    edge: NDArray[np.bool_] = mask ^ binary_erosion(mask)
    return edge


KINDS.add("surfaces", Surfaces(), __name__)
