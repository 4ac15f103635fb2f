"""What is done to a command while it runs: drawn by a seed, so that one seed gives one sequence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from soaking import jobs


@dataclass(frozen=True)
class Part:
    """One start of a command, and what is done to it.

    Attributes:
        what: kill, interrupt, terminate, pause; fill, the disk, to that `share` of all bytes; limit, files, to that
            share of the largest.
        share: when, of the time that the twin took; where `change` is given, it comes so soon after that.
        change: right after so many changes to its folder.
        world: processes that do this part.
        to: which of them is killed.
    """

    what: str
    share: float
    change: int | None
    world: int
    to: int


@dataclass(frozen=True)
class Plan:
    """A job, what is done to it in turn, and how many processes bring it to its end.

    Attributes:
        again: whether it is called once more when it is done, and must leave all as it is.
    """

    number: int
    job: jobs.Job
    parts: tuple[Part, ...]
    last: int
    again: bool


KINDS = {"kill": 6, "interrupt": 2, "terminate": 2, "pause": 2, "fill": 2, "limit": 1}


def draw(seed: int, number: int, ground: Path) -> Plan:
    """The plan of this number."""
    random = Random(f"{seed} {number}")
    job = jobs.draw(random, ground)
    parts = tuple(_part(random, job) for _ in range(random.randint(1, 6)))
    return Plan(number, job, parts, random.choice(job.worlds), random.random() < 0.3)


def _part(random: Random, job: jobs.Job) -> Part:
    (what,) = random.choices(list(KINDS), list(KINDS.values()))
    by_change = what not in ("fill", "limit") and random.random() < 0.4
    share = random.uniform(0, 0.003) if by_change else random.uniform(0.02, 0.7)
    change = random.randint(1, 12) if by_change else None
    return Part(what, share, change, random.choice(job.worlds), random.randrange(2))
