"""Successive halving: all begin with few epochs, and the better part goes on to more.

Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization". A rung is decided
when all its runs are in: what comes out does not depend on what was killed on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar

from pydantic import AfterValidator

if TYPE_CHECKING:
    from counterpoise.studies.plan import TrainingJob


def _rising(rungs: Sequence[int]) -> Sequence[int]:
    if not rungs or rungs[0] < 1 or any(a >= b for a, b in pairwise(rungs)):
        raise ValueError(f"rungs are epochs that rise from 1 on, got {rungs}")
    return rungs


Rungs = Annotated[Sequence[int], AfterValidator(_rising)]
Entrant = TypeVar("Entrant", bound=Hashable)


@dataclass
class Race(Generic[Entrant]):
    """What the rungs came to.

    Attributes:
        scores: on held-out images, by group, entrant and epochs; nan where a run diverged.
        kept: who is left of each group, in order; its winner alone when all rungs are in.
        left: names of runs that are left for another call.
        errors: messages of those that cannot go on, by name.
    """

    scores: dict[str, dict[Entrant, dict[int, float]]]
    kept: dict[str, list[Entrant]]
    left: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether nothing is left to be trained."""
        return not self.left and not self.errors


def race(
    groups: Mapping[str, Sequence[Entrant]],
    rungs: Sequence[int],
    keep: float,
    *,
    jobs_of: Callable[[str, Entrant, int], Sequence[TrainingJob]],
    score: Callable[[str, Entrant, Sequence[TrainingJob]], float],
    train: Callable[[Sequence[TrainingJob]], tuple[list[TrainingJob], dict[str, str]]],
    tell: Callable[[str], None],
    decided: Callable[[Race[Entrant]], None] = lambda race: None,
) -> Race[Entrant]:
    """Train the entrants of each group rung after rung, the share `keep` going on, until one is left or time is up.

    Args:
        jobs_of: the runs of an entrant for so many epochs; two entrants may share one.
        train: trains jobs that are not done; those that are left, and errors by name.
        decided: called after each rung.
    """
    kept = {group: list(entrants) for group, entrants in groups.items()}
    found = Race({group: {one: {} for one in entrants} for group, entrants in groups.items()}, kept)
    for number, epochs in enumerate(rungs, 1):
        jobs = {(group, one): jobs_of(group, one, epochs) for group in kept for one in kept[group]}
        every = {job.name: job for own in jobs.values() for job in own}
        tell(f"rung {number} of {len(rungs)}: {epochs} epochs, {len(every)} runs")
        left, found.errors = train(list(every.values()))
        found.left = [job.name for job in left]
        if not found.over:
            break
        for (group, one), own in jobs.items():
            found.scores[group][one][epochs] = score(group, one, own)
        share = keep if number < len(rungs) else 0.0
        for group, entrants in kept.items():
            kept[group] = halve({one: found.scores[group][one][epochs] for one in entrants}, share)
        decided(found)
    return found


def halve(scores: Mapping[Entrant, float], keep: float) -> list[Entrant]:
    """The best share `keep` of them, at least one, in their order; of equals the earlier. nan is the worst."""
    count = max(math.ceil(len(scores) * keep - 1e-9), 1)
    best = sorted(scores, key=lambda one: math.inf if math.isnan(scores[one]) else -scores[one])[:count]
    return [one for one in scores if one in best]
