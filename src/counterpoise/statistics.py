"""Paired differences over common seeds or folds, their intervals, and what may be said of several of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95
Unit = int | tuple[int, int]
"""What methods have in common run by run: a seed, or a fold and a seed."""


@dataclass(frozen=True)
class Difference:
    """A method's mean difference to a baseline.

    Attributes:
        count: common seeds, or folds where there are some.
        low, high: 95% confidence interval of the mean difference; nan where it cannot be estimated.
        p: of the paired t-test, two-sided, not corrected; nan likewise.
    """

    mean: float
    low: float
    high: float
    p: float
    count: int


def by_fold(values: Mapping[Unit, float]) -> list[float]:
    """The mean of each fold over its seeds, in order; each seed's value where there are no folds."""
    folds: dict[int, list[float]] = {}
    for unit, value in values.items():
        folds.setdefault(unit[0] if isinstance(unit, tuple) else unit, []).append(value)
    return [math.fsum(found) / len(found) for _, found in sorted(folds.items())]


def over_seeds(values: Mapping[Unit, float]) -> float | None:
    """How far seeds spread within a fold: their standard deviation, pooled over folds by degrees of freedom.

    None where no fold has two seeds, or there are no folds.
    """
    folds: dict[int, list[float]] = {}
    for unit, value in values.items():
        if isinstance(unit, tuple):
            folds.setdefault(unit[0], []).append(value)
    several = [found for found in folds.values() if len(found) > 1]
    freedom = sum(len(found) - 1 for found in several)
    squares = math.fsum(statistics.variance(found) * (len(found) - 1) for found in several)
    return math.sqrt(squares / freedom) if several else None


def paired(values: Mapping[Unit, float], baseline: Mapping[Unit, float], folds: int = 0) -> Difference:
    """Student's paired t over the seeds that both have (scipy.stats.ttest_rel), or over folds.

    Of `folds` each is the mean over its common seeds, and since any two train on images that they share, the variance
    of the mean is s^2 (1 / n + 1 / (folds - 1)): Nadeau and Bengio 2003, "Inference for the generalization error".

    One common seed has no spread, and neither have differences that are all alike but for rounding: their interval
    and p are nan, for a width of zero would claim a certainty that a few seeds do not give. All equal to zero is p = 1.
    """
    from scipy import stats

    common = values.keys() & baseline.keys()
    ours, theirs = (by_fold({unit: found[unit] for unit in common}) for found in (values, baseline))
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    count = len(differences)
    if not count:
        return Difference(math.nan, math.nan, math.nan, math.nan, 0)
    mean = math.fsum(differences) / count
    scale = max(map(abs, (*ours, *theirs)))
    if count < 2 or max(differences) - min(differences) <= 1e-12 * scale:
        if count > 1 and abs(mean) <= 1e-12 * scale:
            return Difference(0.0, 0.0, 0.0, 1.0, count)
        return Difference(mean, math.nan, math.nan, math.nan, count)
    if folds:
        error = statistics.stdev(differences) * math.sqrt(1 / count + 1 / (folds - 1))
        width = float(stats.t.ppf(0.5 + LEVEL / 2, count - 1)) * error
        p = 2 * float(stats.t.sf(abs(mean) / error, count - 1))
        return Difference(mean, mean - width, mean + width, p, count)
    test = stats.ttest_rel(ours, theirs)
    interval = test.confidence_interval(LEVEL)
    return Difference(mean, float(interval.low), float(interval.high), float(test.pvalue), count)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of m comparisons, corrected such that the chance of any false claim among them stays below the level.

    Step-down: the k-th smallest is multiplied by m - k + 1, and none falls below the one before it (Holm 1979, "A
    simple sequentially rejective multiple test procedure"). nan stays, and counts as a comparison that was made.
    """
    order = sorted(range(len(p_values)), key=lambda i: 1.0 if math.isnan(p_values[i]) else p_values[i])
    corrected, highest = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        if not math.isnan(p_values[i]):
            highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
            corrected[i] = highest
    return corrected


def verdict(difference: Difference, corrected: float, over: str = "seeds") -> str:
    """What may be said of a difference, in words.

    Args:
        corrected: its p value after correction.
        over: what both sides have in common: seeds, folds or cases.
    """
    if difference.count == 0:
        return f"no common {over}"
    if math.isnan(difference.p):
        one = difference.count == 1
        return (
            f"cannot be said: one common {over.removesuffix('s')}" if one else f"cannot be said: no spread over {over}"
        )
    if difference.low <= 0 <= difference.high:
        return "no difference shown"
    if corrected >= 1 - LEVEL:
        return "no difference shown after correction"
    return "higher" if difference.mean > 0 else "lower"
