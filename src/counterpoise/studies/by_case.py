"""Two students beside one another case by case, where there is one seed of each and nothing tells how seeds differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from counterpoise import statistics
from counterpoise.engine.case_files import of_cases
from counterpoise.statistics import Difference, Unit
from counterpoise.studies.plan import Comparison
from counterpoise.studies.results import Row, key, key_of

CELL = tuple[str, str]
NOTE = (
    "Differences over cases are paired case by case on the val images, since there is one seed: they are of these very "
    "students on other such cases, and another seed would make other students."
)


def differences(comparison: Comparison, rows: Sequence[Row], cells: Sequence[CELL]) -> dict[CELL, Difference]:
    """The paired difference over cases of these cells (pair, method) to the baseline, of one run each, last epochs.

    Of cells whose runs have not told their cases there is none.
    """
    runs = {key_of(job): job for job in comparison.jobs}
    found = {}
    for pair, method in cells:
        sides = []
        for one in (method, comparison.plan.baseline):
            jobs = [runs[key(row)] for row in _done(rows, pair, one)]
            sides.append(of_cases(jobs[0].folder, comparison.metric) if len(jobs) == 1 else {})
        common = [name for name in sides[0] if name in sides[1]]
        if len(common) > 1:
            ours, theirs = (dict[Unit, float](enumerate(side[name] for name in common)) for side in sides)
            found[pair, method] = statistics.paired(ours, theirs)
    return found


def _done(rows: Sequence[Row], pair: str, method: str) -> Iterator[Row]:
    return (row for row in rows if (row["pair"], row["method"], row["status"]) == (pair, method, "done"))
