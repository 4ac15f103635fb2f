"""Risk against coverage: how many answers are wrong where only the surest are given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterpoise.models.promise import Promise

POINTS = 50
"""Of a curve."""


def curve(sure: NDArray[np.float32], right: NDArray[np.bool_]) -> dict[str, Any]:
    """The selective risk of every coverage, both in percent, where the surest are answered first.

    Of pictures that are equally sure each order is as good: they count with the share of them that is wrong. Many are,
    for the largest probability of a sure answer is 1 in float32.

    Args:
        sure: [N], the largest probability of each picture.
        right: [N].

    Returns:
        "points" [(coverage, risk)], evenly over coverage, at most POINTS, and "aurc": the mean risk over the coverages
        of 1 to N pictures (Geifman, Uziel and El-Yaniv 2018, arXiv 1805.08206).
    """
    _, level, size = np.unique(-sure, return_inverse=True, return_counts=True)
    wrong = np.repeat(np.bincount(level, weights=~right) / size, size)
    counts = np.arange(1, len(wrong) + 1)
    risk = 100 * np.cumsum(wrong) / counts
    at = np.unique(np.linspace(0, len(counts), min(POINTS, len(counts)) + 1).round().astype(int)[1:])
    points = [(round(100 * int(k) / len(counts), 2), round(float(risk[k - 1]), 3)) for k in at]
    return {"points": points, "aurc": float(risk.mean())}


def kept(sure: NDArray[np.float32], right: NDArray[np.bool_], promise: Promise) -> dict[str, Any]:
    """What has become of a promise on these pictures: shares in percent; "wrong" is None where none is answered."""
    there = sure >= promise.threshold
    return {
        "threshold": promise.threshold,
        "answered": 100 * float(there.mean()),
        "wrong": 100 * float((~right[there]).mean()) if there.any() else None,
        "risk": 100 * promise.risk,
        "bound": 100 * promise.bound,
        "confidence": 100 * promise.confidence,
        "groups": promise.groups,
    }
