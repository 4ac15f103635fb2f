"""From which probability on a student may answer, so that few answers are wrong; and which classes to name else.

Pictures are divided at random. On the first third a temperature is fitted, and a ladder of thresholds is laid, each
with the share of pictures that it would answer. On the others the ladder is climbed down from the rung that looked
safest: as long as an exact binomial test says that at most so many answers are wrong, the next rung answers more.

Tests in a fixed order, each made only where all before it passed, keep their level together without a correction
(Angelopoulos et al. 2021, "Learn then test", arXiv 2110.01052, section 3; selection by a threshold: Geifman and
El-Yaniv 2017, arXiv 1705.08500). The order depends on the first third alone, so the promise holds for pictures that are
drawn as these were, whatever the network.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import beta, binom

from counterpoise.errors import DataError

Floats = npt.NDArray[np.float64]
RUNGS = 50
FITTED_ON = 3
"""One picture of so many fits the temperature and lays the ladder."""


class Chosen(NamedTuple):
    """Of a threshold and of sets of classes.

    Attributes:
        answered, wrong: share of all pictures that are answered, and of these the share that is wrong.
        bound: Clopper-Pearson upper bound of the latter, on the pictures that tested it.
        least: the probability from which on a class is in the set of a picture.
        set_size: how many classes are in it, on average.
    """

    temperature: float
    threshold: float
    answered: float
    wrong: float
    bound: float
    least: float
    set_size: float


def choose(
    logits: Floats,
    labels: npt.NDArray[np.int64],
    risk: float,
    confidence: float = 0.95,
    coverage: float = 0.9,
    seed: int = 0,
) -> Chosen:
    """The lowest threshold at which at most `risk` of the answers are wrong, as sure as `confidence`; and the sets.

    The true class is in so many of the sets: `coverage`, by split conformal prediction. Of the n pictures that fit
    nothing, the probability of the true class that ceil((n + 1) coverage) of them reach is the least of a member
    (Sadinle, Lei and Wasserman 2019, arXiv 1609.00451; the score lac of mapie).

    Args:
        logits: [N, C], of labeled pictures that the student has not been trained on.
        labels: [N].

    Raises:
        DataError: too few pictures to promise anything, or no threshold keeps it; with what could be promised.
    """
    first, second = _divided(len(labels), seed)
    enough = needed(risk, confidence)
    rank = math.ceil((len(second) + 1) * coverage)
    if len(second) < enough or rank > len(second):
        least = max(enough, math.ceil(coverage / (1 - coverage)))
        raise DataError(
            f"{len(labels)} labeled pictures cannot promise that at most {risk:.2%} of the answers are wrong at "
            f"{confidence:.1%} confidence, even if none were, and that sets hold the true class of {coverage:.1%}: "
            f"{math.ceil(least * FITTED_ON / (FITTED_ON - 1))} are needed at least. Give more (--data), or a larger "
            "--risk."
        )
    temperature = fitted_temperature(logits[first], labels[first])
    shares = probabilities(logits, temperature)
    sure, right = shares.max(1), logits.argmax(1) == labels
    ladder = _ladder(sure[first], len(second), enough)
    kept, best = None, 1.0
    for threshold in ladder[_safest(ladder, sure[first], right[first], len(second), risk) :]:
        there = sure[second] >= threshold
        count, wrong = int(there.sum()), int((there & ~right[second]).sum())
        best = min(best, upper(wrong, count, confidence))
        if count == 0 or binom.cdf(wrong, count, risk) > 1 - confidence:
            break
        kept = float(threshold), upper(wrong, count, confidence)
    if kept is None:
        raise DataError(
            f"No threshold keeps {risk:.2%} of wrong answers at {confidence:.1%} confidence on these {len(labels)} "
            f"pictures: where the student looked safest, up to {best:.2%} may be wrong. Give a larger --risk, more "
            "pictures (--data), or a better student."
        )
    there = sure >= kept[0]
    member = float(np.sort(shares[second, labels[second]])[::-1][rank - 1])
    size = float(np.maximum((shares[second] >= member).sum(1), 1).mean())
    return Chosen(temperature, kept[0], float(there.mean()), float((~right[there]).mean()), kept[1], member, size)


def needed(risk: float, confidence: float) -> int:
    """How many answers without a single mistake it takes: the least n with (1 - risk)^n <= 1 - confidence."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-risk))


def upper(wrong: int, count: int, confidence: float) -> float:
    """One-sided Clopper-Pearson bound of a share."""
    return 1.0 if wrong >= count else float(beta.ppf(confidence, wrong + 1, count - wrong))


def probabilities(logits: Floats, temperature: float) -> Floats:
    """Softmax of logits [N, C] that are divided by a temperature, in float32: what answers is compared in.

    Where logits are large, many of the largest probabilities are 1 there, and no threshold tells them apart.
    """
    found: Floats = (torch.from_numpy(logits).float() / temperature).softmax(1).double().numpy()
    return found


def fitted_temperature(logits: Floats, labels: npt.NDArray[np.int64]) -> float:
    """That of the least cross-entropy (Guo et al. 2017, arXiv 1706.04599), from 1/1000 to 1000."""

    def cross_entropy(log: float) -> float:
        return -float(log_softmax(logits / math.exp(log), axis=1)[np.arange(len(labels)), labels].mean())

    return math.exp(minimize_scalar(cross_entropy, bounds=(-6.9, 6.9), method="bounded").x)


def _divided(count: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    order = np.random.default_rng(seed).permutation(count)
    return order[: count // FITTED_ON], order[count // FITTED_ON :]


def _ladder(sure: Floats, others: int, enough: int) -> Floats:
    """Thresholds from high to low, each of another share of pictures, down to that which answers all."""
    least = min(1.0, 1.2 * enough / others)
    shares = np.linspace(least, 1.0, RUNGS)
    rungs = np.append(np.quantile(sure, 1 - shares[:-1]), 0.0).astype(np.float32)  # as it is compared
    return np.unique(rungs.astype(np.float64))[::-1]


def _safest(ladder: Floats, sure: Floats, right: npt.NDArray[np.bool_], others: int, risk: float) -> int:
    """The rung at which the test of the other pictures will most likely pass, by what the first ones say."""
    chance = []
    for threshold in ladder:
        there = sure >= threshold
        rate = (int((there & ~right).sum()) + 0.5) / (int(there.sum()) + 1)
        count = round(float(there.mean()) * others)
        chance.append(binom.cdf(round(rate * count), count, risk) if count else 1.0)
    return int(np.argmin(chance))
