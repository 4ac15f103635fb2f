"""Two students beside one another case by case, where there is one seed of each and nothing tells how seeds differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from counterpoise import statistics
from counterpoise.errors import ConfigError
from counterpoise.statistics import Difference, Unit
from counterpoise.studies.plan import Comparison
from counterpoise.studies.results import Row, plan_hash, read_table

CELL = tuple[str, str]
NOTE = (
    "Differences over cases are paired case by case on the val images, since there is one seed: they are of these very "
    "students on other such cases, and another seed would make other students."
)


def differences(comparison: Comparison, rows: Sequence[Row], cells: Sequence[CELL]) -> dict[CELL, Difference]:
    """The paired difference over cases of these cells (pair, method) to the baseline, of one run each, last epochs.

    Of cells whose runs have not told their cases there is none.
    """
    runs = {plan_hash(job.run): job for job in comparison.jobs}
    found = {}
    for pair, method in cells:
        sides = []
        for one in (method, comparison.plan.baseline):
            jobs = [runs[row["plan_sha256"]] for row in _done(rows, pair, one)]
            sides.append(of_cases(jobs[0].folder, comparison.metric) if len(jobs) == 1 else {})
        common = [name for name in sides[0] if name in sides[1]]
        if len(common) > 1:
            ours, theirs = (dict[Unit, float](enumerate(side[name] for name in common)) for side in sides)
            found[pair, method] = statistics.paired(ours, theirs)
    return found


def _done(rows: Sequence[Row], pair: str, method: str) -> Iterator[Row]:
    return (row for row in rows if (row["pair"], row["method"], row["status"]) == (pair, method, "done"))


def of_cases(folder: Path, metric: str) -> dict[str, float]:
    """A metric of each case of a run's last epoch, by the name of the case: the mean over classes, or that of one.

    Nothing where the run has not told them, or where the metric is none over cases.
    """
    from counterpoise.engine.run_folder import CASES
    from counterpoise.tasks.scores.metrics import metric as named

    try:
        asked = named(metric)
        rows = read_table(folder / CASES)
    except (ConfigError, OSError):
        return {}
    values: dict[str, list[float]] = {}
    for row in rows if asked.over_cases else ():
        if row.get("level") == "case" and asked.label in (None, row.get("class")):
            values.setdefault(row.get("case") or "", []).extend(_number(row.get(asked.score)))
    return {name: fmean(found) for name, found in values.items() if found}


def _number(cell: str | None) -> list[float]:
    """What a cell holds, if anything."""
    try:
        return [float(cell or "")]
    except ValueError:
        return []
