"""Runs of several seeds or folds as methods, and what each is to the others: the teacher, the student alone, KD."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from counterpoise import config
from counterpoise.config.keys import asked, dotted, flatten
from counterpoise.errors import CounterpoiseError
from counterpoise.objectives.base import needs_teacher
from counterpoise.pages.report.reading import Reading, mapping
from counterpoise.statistics import Unit, by_fold
from counterpoise.system import own_code

Claim = tuple[str, str, str] | None
"""Pair, method and baseline that a comparison named as the one difference it claims."""
Role = Literal["teacher", "alone", "kd", "student"]
_APART = ("seed", "data.fold")
"""Keys by which the runs of one method differ."""
_TEACHERS = ("teacher.checkpoint", "teacher.store")
"""And those of a method over folds whose teacher must not have seen what is held out: each fold has its own."""
WRAPPING = ("class_weighted", "standardized")
NAMES = {"balance": "Balance", "binary_balance": "Binary Balance", "forward_kl": "KD", "reverse_kl": "Reverse KL"}
KD = {"forward_kl", "kd"}


@dataclass
class Method:
    """Runs that differ in their seed or their fold alone.

    Attributes:
        name: as it is shown.
        role: what it is to the others.
        color: name of its color in the page.
    """

    name: str
    role: Role
    runs: list[Reading]
    color: str = ""

    @property
    def finished(self) -> bool:
        """Whether any of its runs is."""
        return any(run.summary is not None for run in self.runs)

    def is_called(self, pair: str, name: str) -> bool:
        """Whether its runs lie in PAIR/NAME/seed-N, as `counterpoise compare` keeps them."""
        return self.runs[0].folder.resolve().parts[-3:-1] == (pair, name)

    @property
    def network(self) -> str:
        """What the catalog calls the network; empty where no file tells."""
        for run in self.runs:
            name = (run.student or {}).get("architecture") or mapping(run.values.get("student")).get("model")
            if name:
                return str(name)
        return ""

    @property
    def folds(self) -> int:
        """How many its runs are of; 0 where there are none."""
        return self.runs[0].fold[1]

    def values(self, metric: str) -> dict[Unit, float]:
        """The metric of the shown epoch by seed: of the finished runs, or of all so far where none is finished."""
        counted = [run for run in self.runs if run.summary is not None] or self.runs
        return {run.unit: run.scores[metric] for run in counted if metric in run.scores}

    def mean(self, metric: str) -> float | None:
        """Mean over seeds, or folds."""
        found = by_fold(self.values(metric))
        return statistics.fmean(found) if found else None

    def deviation(self, metric: str) -> float | None:
        """Standard deviation (n - 1) over seeds, or folds; None of fewer than two."""
        found = by_fold(self.values(metric))
        return statistics.stdev(found) if len(found) > 1 else None

    def typical(self, metric: str) -> Reading:
        """The run whose metric is the median (the lower one of two): its pictures are neither luck nor bad luck."""
        finished = [run for run in self.runs if metric in run.scores and run.student is not None]
        ranked = sorted(finished or self.runs, key=lambda run: run.scores.get(metric, 0.0))
        return ranked[(len(ranked) - 1) // 2]


def group(readings: Sequence[Reading], claimed: Claim = None) -> list[Method]:
    """Methods, the teacher first, then the student alone, KD and the others in the order that they were given."""
    together: dict[tuple[str, str], list[Reading]] = {}
    key_of = _one_teacher_a_fold(readings)
    data = {key_of[reading.folder]: reading.data for reading in reversed(readings) if reading.data}
    for reading in readings:  # one that is not finished is taken to be of the data of the others
        key = key_of[reading.folder]
        known = str(reading.fold[1]) if reading.fold[1] else reading.data or data.get(key, "")
        together.setdefault((key, known), []).append(reading)
    taught = {reading.teacher_weights for reading in readings} - {""}
    methods = []
    for runs in together.values():
        role, name = _role(runs[0], any(run.weights in taught for run in runs if run.weights))
        methods.append(Method(name, role, runs))
    own = main(methods, claimed).network
    for method in methods:
        if method.role == "alone" and method.network != own:  # not the student that it could be compared with
            method.name = f"{method.network or 'Another network'}, alone"
    _tell_apart(methods)
    order = {"teacher": 0, "alone": 1, "kd": 2, "student": 3}
    methods.sort(key=lambda method: order[method.role])
    colors = {"teacher": "teacher", "alone": "alone", "kd": "kd"}
    others = iter(("other-1", "other-2", "other-3"))
    used: set[str] = set()
    chosen = main(methods, claimed)
    for method in methods:
        color = "student" if method is chosen else colors.get(method.role, "")
        while not color or color in used:
            color = next(others, "other-4")
            if color == "other-4":
                break
        method.color = color
        used.add(color)
    return methods


def main(methods: Sequence[Method], claimed: Claim = None) -> Method:
    """The method that the page is about: that of the claim, else one with Balance, else the last that is no teacher."""
    for method in methods:
        if claimed is not None and method.is_called(claimed[0], claimed[1]):
            return method
    students = [method for method in methods if method.role != "teacher"] or list(methods)
    with_balance = [method for method in students if method.role == "student" and "Balance" in method.name]
    return (with_balance or [method for method in students if method.role == "student"] or students[-1:])[0]


def _one_teacher_a_fold(readings: Sequence[Reading]) -> dict[Path, str]:
    """What tells methods apart, by folder of a run; over folds not the teacher, where each fold has one of its own."""
    alike: dict[str, list[Reading]] = {}
    for reading in readings:
        alike.setdefault(_key(reading, _TEACHERS) if reading.fold[1] else _key(reading), []).append(reading)
    found: dict[Path, str] = {}
    for key, runs in alike.items():
        taught = {(reading.fold, _key(reading)) for reading in runs}
        one_each = len(taught) == len({fold for fold, _ in taught})
        found |= {reading.folder: key if one_each else _key(reading) for reading in runs}
    return found


def _key(reading: Reading, but: Sequence[str] = ()) -> str:
    if reading.run is None:
        return str(reading.folder)
    flat = flatten(reading.run)
    # The student's task and network tell runs apart, and so does everything else but the seed and what may move.
    apart = {*_APART, *but}
    return repr(sorted((key, repr(value)) for key, value in flat.items() if asked(key) and key not in apart))


def _role(reading: Reading, teaches: bool) -> tuple[Role, str]:
    listening = _listening(reading.run)
    if teaches:
        return "teacher", "Teacher"
    if not listening:
        return "alone", "Student alone"
    if set(listening) <= KD:
        return "kd", "KD"
    return "student", " + ".join(dict.fromkeys(NAMES.get(kind, kind.upper()) for kind in listening))


def _listening(run: config.Run | None) -> list[str]:
    """The objectives that listen to the teacher, without what they are wrapped in."""
    kinds = []
    for name, term in (run.objective if run is not None else {}).items():
        kind = term.objective or name
        if term.weight == 0 or not _listens(name, term):
            continue
        if kind == "binary_balance" and term.arguments.get("reverse_weight") == 0:
            kind = "kd"
        kinds.append(str(term.arguments.get("of", kind)) if kind in WRAPPING else kind)
    return kinds


def _listens(name: str, term: config.Term) -> bool:
    if own_code.is_file(term.objective or name):
        return True  # code of the user's own, which is not run for a page
    try:
        return needs_teacher(term.objective or name)
    except CounterpoiseError:
        return False


def _tell_apart(methods: Sequence[Method]) -> None:
    """Names of methods that are called alike get what they differ in, or their folder."""
    for name in {method.name for method in methods}:
        alike = [method for method in methods if method.name == name]
        if len(alike) < 2:
            continue
        differing = different([method.runs[0] for method in alike])
        if 0 < len(differing) <= 2:
            for index, method in enumerate(alike):
                values_of = (f"{key.rpartition('.')[2]} {values[index]}" for key, values in differing)
                method.name += f" ({', '.join(values_of)})"
        if len({method.name for method in alike}) < len(alike):
            for method in alike:
                method.name = f"{name} ({method.runs[0].name})"


def different(readings: Sequence[Reading]) -> list[tuple[str, list[Any]]]:
    """Keys of run files that differ, but for the seed and the folder, each with the value in every one of them."""
    flat = [flatten(reading.run) if reading.run is not None else dotted(reading.values) for reading in readings]
    keys = sorted(set().union(*flat) - {"out", *_APART})
    rows = [(key, [values.get(key) for values in flat]) for key in keys]
    return [(key, values) for key, values in rows if any(value != values[0] for value in values)]
