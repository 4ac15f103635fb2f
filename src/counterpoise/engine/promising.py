"""From which probability on a student may answer, so that few answers are wrong; and which classes to name else.

Pictures are divided at random. On the first third a temperature is fitted, and a ladder of thresholds is laid, each
with the share of pictures that it would answer. On the others the ladder is climbed down from the rung that looked
safest: as long as an exact binomial test says that at most so many answers are wrong, the next rung answers more.

Tests in a fixed order, each made only where all before it passed, keep their level together without a correction
(Angelopoulos et al. 2021, "Learn then test", arXiv 2110.01052, section 3; selection by a threshold: Geifman and
El-Yaniv 2017, arXiv 1705.08500). The order depends on the first third alone, so the promise holds for pictures that are
drawn as these were, whatever the network.

Pictures of one group (a patient, a video) err together, so where there are groups these are what is drawn: they are
divided whole, and the test is that of `betting`. What is promised is then the share of wrong among the answers where
each group counts as much as any other, whatever the number of its pictures.
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

from counterpoise.engine.betting import Counts, Floats, Shares, climbed, divided, means, members, needed, units_for
from counterpoise.errors import DataError

RUNGS = 50


class Chosen(NamedTuple):
    """Of a threshold and of sets of classes.

    Attributes:
        answered, wrong: share of all pictures that are answered, and of these the share that is wrong.
        bound: upper bound of the latter on the pictures that tested it: Clopper-Pearson, or of groups by bets.
        least: the probability from which on a class is in the set of a picture.
        set_size: how many classes are in it, on average.
        groups: how many there are, where pictures are of groups; all shares then are means over groups.
    """

    temperature: float
    threshold: float
    answered: float
    wrong: float
    bound: float
    least: float
    set_size: float
    groups: int | None


def choose(
    logits: Floats,
    labels: Counts,
    risk: float,
    confidence: float = 0.95,
    coverage: float = 0.9,
    seed: int = 0,
    owners: Counts | None = None,
) -> Chosen:
    """The lowest threshold at which at most `risk` of the answers are wrong, as sure as `confidence`; and the sets.

    The true class is in so many of the sets: `coverage`, by split conformal prediction. Of the n pictures that fit
    nothing, the probability of the true class that ceil((n + 1) coverage) of them reach is the least of a member
    (Sadinle, Lei and Wasserman 2019, arXiv 1609.00451; the score lac of mapie). Of groups each weighs as much as a
    picture does else, shared by its pictures (Lee, Barber and Willett 2023, arXiv 2306.06342).

    Args:
        logits: [N, C], of labeled pictures that the student has not been trained on.
        labels: [N].
        owners: int64 [N], which pictures err together; None: none do.

    Raises:
        DataError: too few pictures or groups to promise anything, or no threshold keeps it; with what could be.
    """
    owners = np.arange(len(labels)) if owners is None else np.unique(owners, return_inverse=True)[1].reshape(-1)
    units = int(owners.max(initial=-1)) + 1
    grouped = units < len(labels)
    parts = divided(units, seed)
    first, second = (members(owners, part) for part in parts)
    enough = needed(risk, confidence)
    of, what = (f"{units} groups of {len(labels)}", "groups") if grouped else (f"{len(labels)}", "pictures")
    if len(parts[1]) < enough or math.ceil((len(parts[1]) + 1) * coverage) > len(parts[1]):
        least = max(enough, math.ceil(coverage / (1 - coverage)))
        raise DataError(
            f"{of} labeled pictures cannot promise that at most {risk:.2%} of the answers are wrong at "
            f"{confidence:.1%} confidence, even if none were, and that sets hold the true class of {coverage:.1%}: "
            f"{units_for(least)} {'groups ' if grouped else ''}are needed at least"
            f"{', since pictures of one group err together' if grouped else ''}. Give more (--data), or a larger "
            "--risk."
        )
    temperature = fitted_temperature(logits[first], labels[first])
    shares = probabilities(logits, temperature)
    sure, right = shares.max(1), logits.argmax(1) == labels
    ladder = _ladder(sure[first], len(parts[1]), enough)
    if grouped:
        tried = Shares(
            means(owners, ((sure >= threshold) & ~right for threshold in ladder), units),
            means(owners, (sure >= threshold for threshold in ladder), units),
        )
        rung, bound = climbed(tried.of(parts[0]), tried.of(parts[1]), risk, confidence)
        kept = None if rung is None else float(ladder[rung])
    else:
        kept, bound = _climbed(ladder, sure, right, first, second, risk, confidence)
    if kept is None:
        raise DataError(
            f"No threshold keeps {risk:.2%} of wrong answers at {confidence:.1%} confidence on these {of} pictures: "
            f"where the student looked safest, up to {bound:.2%} may be wrong. Give a larger --risk, more "
            f"{what} (--data), or a better student."
        )
    weights = 1 / np.bincount(owners)[owners]  # each group weighs 1
    member = _reached(shares[second, labels[second]], weights[second], coverage * (len(parts[1]) + 1))
    size = float(np.average(np.maximum((shares[second] >= member).sum(1), 1), weights=weights[second]))
    there = sure >= kept
    answered, wrong = (
        float(np.average(there, weights=weights)),
        float(np.average(~right[there], weights=weights[there])),
    )
    return Chosen(temperature, kept, answered, wrong, bound, member, size, units if grouped else None)


def _climbed(
    ladder: Floats,
    sure: Floats,
    right: npt.NDArray[np.bool_],
    first: Counts,
    second: Counts,
    risk: float,
    confidence: float,
) -> tuple[float | None, float]:
    """As `betting.climbed`, of pictures that err each by itself, by the exact test; a threshold in place of a rung."""
    kept, best = None, 1.0
    for threshold in ladder[_safest(ladder, sure[first], right[first], len(second), risk) :]:
        there = sure[second] >= threshold
        count, wrong = int(there.sum()), int((there & ~right[second]).sum())
        bound = upper(wrong, count, confidence)
        if count == 0 or binom.cdf(wrong, count, risk) > 1 - confidence:
            best = min(best, bound)
            break
        kept, best = float(threshold), bound
    return kept, best


def _reached(own: Floats, weights: Floats, enough: float) -> float:
    """The largest probability that true classes [N] of so much weight in all reach."""
    order = np.argsort(-own, kind="stable")
    return float(own[order][np.flatnonzero(np.cumsum(weights[order]) >= enough - 1e-9)[0]])


def upper(wrong: int, count: int, confidence: float) -> float:
    """One-sided Clopper-Pearson bound of a share."""
    return 1.0 if wrong >= count else float(beta.ppf(confidence, wrong + 1, count - wrong))


def probabilities(logits: Floats, temperature: float) -> Floats:
    """Softmax of logits [N, C] that are divided by a temperature, in float32: what answers is compared in.

    Where logits are large, many of the largest probabilities are 1 there, and no threshold tells them apart.
    """
    found: Floats = (torch.from_numpy(logits).float() / temperature).softmax(1).double().numpy()
    return found


def fitted_temperature(logits: Floats, labels: Counts) -> float:
    """That of the least cross-entropy (Guo et al. 2017, arXiv 1706.04599), from 1/1000 to 1000."""

    def cross_entropy(log: float) -> float:
        return -float(log_softmax(logits / math.exp(log), axis=1)[np.arange(len(labels)), labels].mean())

    return math.exp(minimize_scalar(cross_entropy, bounds=(-6.9, 6.9), method="bounded").x)


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
