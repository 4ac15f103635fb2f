"""Two methods of one run each beside one another case by case, where nothing tells how seeds differ."""

from __future__ import annotations

from typing import NamedTuple

from counterpoise import statistics
from counterpoise.engine.case_files import of_cases
from counterpoise.errors import ConfigError
from counterpoise.pages.report.methods import Method
from counterpoise.pages.report.reading import Reading
from counterpoise.pages.report.words import metric as in_words
from counterpoise.statistics import Difference, Unit
from counterpoise.tasks.scores.metrics import CASE
from counterpoise.tasks.scores.metrics import metric as named


class ByCase(NamedTuple):
    """A paired difference over cases. metric: of which score, in words."""

    difference: Difference
    metric: str


def by_case(one: Method, other: Method) -> ByCase | None:
    """The difference over the cases of both last epochs, by the first score that both runs told by case.

    None where they told none, or another epoch is shown than the last, whose cases are kept.
    """
    sides = [_run(method) for method in (one, other)]
    both = [side for side in sides if side is not None and side.shown == "last"]
    if len(both) < 2:
        return None
    for name in _told(both[0]):
        ours, theirs = (of_cases(side.folder, name) for side in both)
        common = [case for case in ours if case in theirs]
        if len(common) > 1:
            first, second = (dict[Unit, float](enumerate(found[case] for case in common)) for found in (ours, theirs))
            return ByCase(statistics.paired(first, second), in_words(name))
    return None


def _run(method: Method) -> Reading | None:
    """The only run of a method that is finished."""
    finished = [run for run in method.runs if run.summary is not None]
    return finished[0] if len(finished) == 1 else None


def _told(reading: Reading) -> list[str]:
    """The scores in percent that a run tells by case, as metrics over cases."""
    found = []
    for name in reading.run.train.scores if reading.run is not None else ():
        try:
            metric = named(name)
        except ConfigError:
            continue
        if not metric.less_is_better:
            found.append(name if metric.over_cases else f"{CASE}{name}")
    return found
