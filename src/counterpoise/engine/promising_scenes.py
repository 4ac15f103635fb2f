"""From which probability on a student may answer a pixel, so that few of the pixels that it answers are wrong.

Pixels of one scene err together, so scenes are what is drawn: what is promised is the mean over scenes of the share of
wrong pixels among those that are answered. Where scenes are of groups (the slices of a volume), these are what is
drawn, and the mean is over groups of the mean over their scenes. `betting` divides and tests them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from counterpoise.engine.betting import Counts, Floats, Shares, climbed, divided, means, needed, units_for
from counterpoise.errors import DataError

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
    groups: int | None


def choose(
    marked: Marked,
    edges: Floats,
    risk: float,
    confidence: float = 0.95,
    seed: int = 0,
    owners: Counts | None = None,
) -> Chosen:
    """The lowest threshold at which the mean share of wrong pixels is at most `risk`, as sure as `confidence`.

    Args:
        marked: pixels by probabilities of the temperature that was fitted on the first units of `betting.divided`.
        edges: thresholds, from 0 up.
        owners: int64 [scenes], from 0 on, which scenes err together; None: none do.

    Raises:
        DataError: too few scenes or groups to promise anything, or no threshold keeps it; with what could be promised.
    """
    there: npt.NDArray[np.bool_] = (marked.right + marked.wrong).sum(1) > 0
    owners = np.arange(len(there)) if owners is None else owners
    units, count = int(owners.max(initial=-1)) + 1, len(np.unique(owners[there]))
    known = np.bincount(owners[there], minlength=units) > 0
    first, second = (part[known[part]] for part in divided(units, seed))  # as those that fitted the temperature
    scenes, grouped = int(there.sum()), units < len(there)
    of = f"{count} groups of {scenes} scenes" if grouped else f"{scenes} scenes"
    enough = needed(risk, confidence)
    if len(second) < enough:
        why = "scenes of one group err together" if grouped else "pixels of one scene err together"
        raise DataError(
            f"{of} cannot promise that at most {risk:.2%} of the answered pixels are wrong at "
            f"{confidence:.1%} confidence, even if none were: {units_for(enough)} "
            f"{'groups ' if grouped else ''}are needed at least, since {why}. Give more (--data), or a larger --risk."
        )
    answered, wrong = (_from(counts) for counts in (marked.right + marked.wrong, marked.wrong))
    by_scene = np.divide(wrong, answered, out=np.zeros(wrong.shape), where=answered > 0)
    shares = means(owners[there], by_scene[there].T, units)
    ladder = _ladder(answered[np.isin(owners, first)])
    tried = Shares(shares[:, ladder], np.ones((units, len(ladder))))
    rung, bound = climbed(tried.of(first), tried.of(second), risk, confidence)
    if rung is None:
        raise DataError(
            f"No threshold keeps {risk:.2%} of wrong pixels at {confidence:.1%} confidence on these {of}: "
            f"where the student looked safest, up to {bound:.2%} may be wrong. Give a larger --risk, more "
            f"{'groups' if grouped else 'scenes'} (--data), or a better student."
        )
    kept = ladder[rung]
    of_class = _from(marked.by_class)
    with np.errstate(invalid="ignore"):
        unsure = 1 - of_class[:, kept] / of_class[:, 0]
    return Chosen(
        float(edges[kept]),
        float(answered[:, kept].sum() / answered[:, 0].sum()),
        float(shares[known, kept].mean()),
        bound,
        unsure,
        count if grouped else None,
    )


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
