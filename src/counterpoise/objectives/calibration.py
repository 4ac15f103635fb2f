"""How far confidence is from accuracy, by bins of confidence."""

from __future__ import annotations

import torch
from torch import Tensor

CALIBRATION_BINS = 15


def calibration_bins(probabilities: Tensor, answers: Tensor, labels: Tensor) -> Tensor:
    """Count, sum of confidence and sum of hits of each bin of confidence: float64 [3, bins], on the CPU.

    Bins are open below, (0, 1/15], (1/15, 2/15], and so on: those of torchmetrics.

    Args:
        probabilities: [N, C].
        answers: int64 [N], whose probability is the confidence.
        labels: int64 [N].
    """
    confidence = probabilities.gather(1, answers[:, None])[:, 0].cpu().double()
    hits = (answers == labels).cpu().double()
    place = (confidence * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS) - 1
    empty = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    return torch.stack([empty.index_add(0, place, values) for values in (torch.ones_like(hits), confidence, hits)])


def calibration_error(bins: Tensor) -> float:
    """ECE = sum over bins of |confidence - accuracy| * share of the answers, of bins [3, bins] (Guo et al. 2017)."""
    count, confidence, hits = bins
    return float((confidence - hits).abs().sum() / count.sum())
