"""From which probability on a student may answer a pixel, so that few of the pixels that it answers are wrong.

Pixels of one scene err together, so scenes are what is drawn: what is promised is the mean over scenes of the share of
wrong pixels among those that are answered. Scenes are divided at random. On the first third a temperature is fitted,
and a ladder of thresholds is laid; on the others it is climbed down as in `promising`, each rung by a test of that
mean.

The test bets on each scene in turn that its share is below the risk. If the mean were not below it, capital would
grow to 1 / (1 - confidence) with a chance of at most 1 - confidence, however shares are distributed (Ville's
inequality; Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", arXiv 2010.09686;
stakes as of Bates et al. 2021, "Distribution-free, risk-controlling prediction sets", arXiv 2101.02703, proposition 5).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from counterpoise.engine.promising import FITTED_ON, needed
from counterpoise.errors import DataError

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

RUNGS = 50


class Marked(NamedTuple):
    """Pixels of scenes whose class is known, by their largest probability.

    Attributes:
        right, wrong: int64 [scenes, edges], pixels whose probability lies between an edge and the next one. A scene
            whose mask knows no pixel has none, and is left out.
        by_class: int64 [classes, edges], of all scenes together, by the true class.
    """

    right: Counts
    wrong: Counts
    by_class: Counts


class Chosen(NamedTuple):
    """Of a threshold; as in `models.promise.ScenePromise`, and `unsure` by class, NaN of one that no mask holds."""

    threshold: float
    answered: float
    wrong: float
    bound: float
    unsure: Floats


def divided(count: int, seed: int = 0) -> tuple[Counts, Counts]:
    """Numbers of the scenes that fit temperature and ladder, and of those that test it."""
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // FITTED_ON], order[count // FITTED_ON :]


def choose(marked: Marked, edges: Floats, risk: float, confidence: float = 0.95, seed: int = 0) -> Chosen:
    """The lowest threshold at which the mean share of wrong pixels is at most `risk`, as sure as `confidence`.

    Args:
        marked: pixels by probabilities of the temperature that was fitted on the first scenes of `divided`.
        edges: thresholds, from 0 up.

    Raises:
        DataError: too few scenes to promise anything, or no threshold keeps it; with what could be promised.
    """
    there: npt.NDArray[np.bool_] = (marked.right + marked.wrong).sum(1) > 0
    first, second = (part[there[part]] for part in divided(len(there), seed))  # as those that fitted the temperature
    scenes = int(there.sum())
    enough = needed(risk, confidence)
    if len(second) < enough:
        raise DataError(
            f"{scenes} scenes cannot promise that at most {risk:.2%} of the answered pixels are wrong at "
            f"{confidence:.1%} confidence, even if none were: {math.ceil(enough * FITTED_ON / (FITTED_ON - 1))} are "
            "needed at least, since pixels of one scene err together. Give more (--data), or a larger --risk."
        )
    answered, wrong = (_from(counts) for counts in (marked.right + marked.wrong, marked.wrong))
    shares = np.divide(wrong, answered, out=np.zeros(wrong.shape), where=answered > 0)
    ladder = _ladder(answered[first])
    kept, best = None, 1.0
    for rung in ladder[_safest(shares[first][:, ladder], risk) :]:
        if not _won(shares[second, rung], risk, confidence):
            best = min(best, upper(shares[second, rung], confidence))
            break
        kept = int(rung)
    if kept is None:
        raise DataError(
            f"No threshold keeps {risk:.2%} of wrong pixels at {confidence:.1%} confidence on these {scenes} scenes: "
            f"where the student looked safest, up to {best:.2%} may be wrong. Give a larger --risk, more scenes "
            "(--data), or a better student."
        )
    of_class = _from(marked.by_class)
    with np.errstate(invalid="ignore"):
        unsure = 1 - of_class[:, kept] / of_class[:, 0]
    return Chosen(
        float(edges[kept]),
        float(answered[:, kept].sum() / answered[:, 0].sum()),
        float(shares[there, kept].mean()),
        upper(shares[second, kept], confidence),
        unsure,
    )


def _won(shares: Floats, risk: float, confidence: float) -> bool:
    """Whether bets that the mean of these shares is below `risk` have ever made 1 / (1 - confidence) of 1."""
    count = np.arange(1, len(shares) + 1)
    mean = (0.5 + np.cumsum(shares)) / (1 + count)
    variance = (0.25 + np.cumsum((shares - mean) ** 2)) / (1 + count)
    before = np.append(0.25, variance[:-1])  # a stake may know what came before it alone
    needed_for = -math.log(1 - confidence)
    stake = np.minimum(1.0, np.sqrt(2 * needed_for / (len(shares) * before)))
    return bool(np.cumsum(np.log1p(-stake * (shares - risk))).max() >= needed_for)


def upper(shares: Floats, confidence: float) -> float:
    """The largest mean that the bets do not rule out, to 1e-4."""
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if _won(shares, middle, confidence) else (middle, high)
    return high


def _from(counts: Counts) -> Counts:
    """How many have a probability of each edge or more."""
    found: Counts = counts[:, ::-1].cumsum(1)[:, ::-1]
    return found


def _ladder(answered: Counts) -> Counts:
    """Rungs, as numbers of edges, from a threshold that answers a fiftieth of the pixels down to that of all."""
    share = answered.sum(0) / answered[:, 0].sum()
    wanted = np.linspace(1 / RUNGS, 1.0, RUNGS)
    # shares fall from edge to edge
    return np.unique([int(np.flatnonzero(share >= least).max()) for least in wanted])[::-1]


def _safest(shares: Floats, risk: float) -> int:
    """The rung at which the test of the other scenes will most likely pass, by what the first ones say."""
    spread = shares.std(0) + 0.5 / len(shares)
    return int(np.argmax((risk - shares.mean(0)) / spread))
