"""What belongs together counts once: units are divided whole, and thresholds are tested by bets on their shares.

A unit is what is drawn by itself: a scene, or all pictures of one group (a patient, a video), which err together.
Units are divided at random; on the first third a temperature is fitted and a ladder of thresholds is laid, on the
others it is climbed down as long as a test passes, as `promising` says.

The test bets on each unit in turn that its share of wrong is below the risk. If the mean were not below it, capital
would grow to 1 / (1 - confidence) with a chance of at most 1 - confidence, however shares are distributed (Ville's
inequality; Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", arXiv 2010.09686;
stakes as of Bates et al. 2021, "Distribution-free, risk-controlling prediction sets", arXiv 2101.02703, proposition 5).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

FITTED_ON = 3
"""One unit of so many fits the temperature and lays the ladder."""


class Shares(NamedTuple):
    """What becomes of units at every rung of a ladder, float64 [units, rungs] each.

    Attributes:
        wrong, answered: the mean of the first is to be at most `risk` times that of the second.
    """

    wrong: Floats
    answered: Floats

    def against(self, risk: float) -> Floats:
        """Shares from 0 to 1 whose mean is at most `risk` where that holds: what is not answered counts as `risk`."""
        found: Floats = self.wrong + risk * (1 - self.answered)
        return found

    def of(self, units: Counts) -> Shares:
        """Those of some units."""
        return Shares(self.wrong[units], self.answered[units])


def divided(count: int, seed: int = 0) -> tuple[Counts, Counts]:
    """Numbers of the units that fit temperature and ladder, and of those that test it."""
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // FITTED_ON], order[count // FITTED_ON :]


def members(owners: Counts, units: Counts) -> Counts:
    """Indices of what belongs to some units, unit by unit, by the unit of each, int64 [N]."""
    place = np.full(int(owners.max(initial=-1)) + 1, -1)
    place[units] = np.arange(len(units))
    found = np.flatnonzero(place[owners] >= 0)
    return found[np.argsort(place[owners[found]], kind="stable")]


def means(owners: Counts, columns: Iterable[npt.NDArray[Any]], units: int) -> Floats:
    """The mean over what belongs to each unit, float64 [units, columns] of columns [N] each; 0 of nothing."""
    counts = np.maximum(np.bincount(owners, minlength=units), 1)
    return np.stack([np.bincount(owners, column, units) / counts for column in columns], 1)


def needed(risk: float, confidence: float) -> int:
    """How many answers without a single mistake it takes: the least n with (1 - risk)^n <= 1 - confidence."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-risk))


def units_for(tested: int) -> int:
    """The fewest units of which, divided, so many test."""
    return FITTED_ON * (tested - 1) // (FITTED_ON - 1) + 1


def climbed(first: Shares, second: Shares, risk: float, confidence: float) -> tuple[int | None, float]:
    """The last rung that keeps `risk`, from the one that looks safest on the first units on, and its upper bound.

    None where the first of them keeps it not, with the bound of that.
    """
    begin = _safest(first.against(risk), risk)
    kept, tested = None, second.against(risk)
    for rung in range(begin, tested.shape[1]):
        if not _won(tested[:, rung], risk, confidence):
            break
        kept = rung
    return kept, upper(second, begin if kept is None else kept, confidence)


def upper(shares: Shares, rung: int, confidence: float) -> float:
    """The largest risk that the bets do not rule out, to 1e-4."""
    own = Shares(shares.wrong[:, rung], shares.answered[:, rung])
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if _won(own.against(middle), middle, confidence) else (middle, high)
    return high


def _won(shares: Floats, risk: float, confidence: float) -> bool:
    """Whether bets that the mean of these shares is below `risk` have ever made 1 / (1 - confidence) of 1."""
    count = np.arange(1, len(shares) + 1)
    mean = (0.5 + np.cumsum(shares)) / (1 + count)
    variance = (0.25 + np.cumsum((shares - mean) ** 2)) / (1 + count)
    before = np.append(0.25, variance[:-1])  # a stake may know what came before it alone
    needed_for = -math.log(1 - confidence)
    stake = np.minimum(1.0, np.sqrt(2 * needed_for / (len(shares) * before)))
    return bool(np.cumsum(np.log1p(-stake * (shares - risk))).max() >= needed_for)


def _safest(shares: Floats, risk: float) -> int:
    """The rung at which the test of the other units will most likely pass, by what the first ones say."""
    spread = shares.std(0) + 0.5 / len(shares)
    return int(np.argmax((risk - shares.mean(0)) / spread))
