"""How training went: scores, terms, learning rate, speed, and what moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from counterpoise.engine.waiting import Times, readers_in_words, shares
from counterpoise.pages.report import charts
from counterpoise.pages.report.charts import Chart
from counterpoise.pages.report.methods import Method
from counterpoise.pages.report.reading import Reading, numbers
from counterpoise.pages.report.words import first_up, number, plain
from counterpoise.pages.report.words import metric as in_words

SERIES = ("series-1", "series-2", "series-3", "series-4", "series-5", "series-6", "series-7", "series-8")
"""Colors of curves that are no method's."""


def curves(methods: Sequence[Method], reading: Reading, metric: str) -> list[Chart]:
    """The charts that the logs of the runs have numbers for."""
    found = [
        _scores(methods, reading, metric),
        _terms(reading),
        _gauge(reading),
        _one(reading, "rate", "Learning rate", "learning_rate", "Of each step that was logged."),
        _one(reading, "speed", "Images a second", "images_per_second", "In training, between two logged steps."),
        _moving(reading),
    ]
    return [chart for chart in found if chart is not None]


def time_spent(reading: Reading) -> str:
    """Where the time of the steps went, and what would help; empty where the run was not asked, as earlier ones."""
    times, workers = Times(), 0.0
    for line in reading.epochs or reading.steps:
        readers = numbers(line.get("readers"))
        workers = readers.pop("workers", 0.0)
        times.add(Times(numbers(line.get("stages")), readers))
    seconds = times.steps
    spent = ", ".join(f"{share:.0f}% {plain(stage, 20)}" for stage, share in shares(seconds).items() if share >= 0.5)
    told = plain(str(reading.epochs[-1].get("advice", "")), 200) if reading.epochs else ""
    who = readers_in_words(seconds, {"workers": workers, **times.reading})
    return f"Time of the steps: {spent}. {f'{first_up(who)}. ' if who else ''}{told}".rstrip() if spent else ""


def _scores(methods: Sequence[Method], reading: Reading, metric: str) -> Chart | None:
    series = []
    for method in methods:
        run = reading if reading in method.runs else method.typical(metric)
        points = _points(run.epochs, "epoch", metric, "val")
        if len(points) > 1 and (method.role != "teacher" or len(methods) == 1):
            series.append({"name": method.name, "color": method.color, "points": points})
    if not series:
        return None
    level = reading.teacher.get(metric)
    levels = [] if level is None else [{"name": "Teacher", "color": "teacher", "y": level}]
    ends = "; ".join(f"{one['name']} ends at {one['points'][-1][1]:.1f}" for one in series)
    return charts.lines(
        "scores",
        f"{first_up(in_words(metric))} by epoch, %",
        f"On the evaluation images, of the middle run of each method. {ends}.",
        series,
        across="epoch",
        levels=levels,
    )


def _points(lines: Sequence[Mapping[str, Any]], across: str, name: str, group: str = "") -> list[tuple[float, float]]:
    """(epoch from 1, or step, value) of the lines of the log that hold a number, in a group where one is given."""
    start = 1 if across == "epoch" else 0
    return [
        (numbers(line).get(across, 0.0) + start, values[name])
        for line in lines
        if name in (values := numbers(line.get(group) if group else line))
    ]


def _terms(reading: Reading) -> Chart | None:
    series = _grouped(reading.epochs, "epoch", "terms")
    across = "epoch"
    if len(reading.epochs) < 3:
        series, across = _grouped(reading.steps, "step", "terms"), "step"
    if not series:
        return None
    says = "Each term with its weight; together they are the loss."
    return charts.lines(
        "terms",
        "Loss by term",
        says + (" Means over an epoch." if across == "epoch" else ""),
        [{**one, "name": plain(one["name"].replace("/", ", ").replace("_", " "), 40)} for one in series],
        across=across,
        log=True,
    )


def _grouped(lines: Sequence[Mapping[str, Any]], across: str, group: str) -> list[dict[str, Any]]:
    """Curves of what lines of the log hold in a group by name."""
    names = dict.fromkeys(name for line in lines for name in numbers(line.get(group)))
    series = [
        {"name": name, "color": color, "points": _points(lines, across, name, group)}
        for name, color in zip(names, SERIES, strict=False)
    ]
    return [one for one in series if len(one["points"]) > 1]


def _gauge(reading: Reading) -> Chart | None:
    sides = {"missed": "missed: what the teacher believes", "excess": "made up: what it rules out"}
    found = {key: _points(reading.epochs, "epoch", key, "gauge") for key in sides}
    series = [{"name": sides[key], "color": key, "points": points} for key, points in found.items() if len(points) > 1]
    if len(series) < 2:
        return None
    before, after = ([points[end][1] for points in found.values()] for end in (0, -1))
    return charts.lines(
        "balance-by-epoch",
        "The balance while training, nats",
        f"From the first evaluation to the last: missed {number(before[0])} to {number(after[0])}, "
        f"made up {number(before[1])} to {number(after[1])}.",
        series,
        across="epoch",
    )


def _one(reading: Reading, id: str, title: str, key: str, says: str) -> Chart | None:
    points = _points(reading.steps, "step", key)
    if len(points) < 2:
        return None
    return charts.lines(id, title, says, [{"name": title, "color": "ink", "points": points}])


def _moving(reading: Reading) -> Chart | None:
    series = [{**one, "name": plain(one["name"], 40)} for one in _grouped(reading.steps, "step", "moving")]
    if not series:
        return None
    return charts.lines("moving", "Weights and temperatures that move", "As they were at each logged step.", series)


def balance(findings: dict[str, Any], chosen: Method, methods: Sequence[Method]) -> dict[str, Any] | None:
    """The gauge of the student beside that of the student alone and of KD, which is what it was before."""
    gauges = findings.get("gauges") or {}
    if "student" not in gauges:
        return None
    colors = {method.name: method.color for method in methods}
    sides = [(name, colors.get(name, "alone"), gauge) for name, gauge in gauges.items() if name != "student"]
    sides.append((chosen.name if len(methods) > 1 else "Student", "student", gauges["student"]))
    before = next((gauge for name, color, gauge in sides if color == "alone"), None)
    words = gauges["student"]["summary"]
    if before is not None:
        words += f" The student alone: {before['agreement']['top1']:.1f} of 100."
    keys = ("forward_kl", "reverse_kl", "missed", "excess")
    return {
        "words": words,
        "charts": [charts.masses(sides), charts.split(sides)],
        "rows": [
            {"name": name, "color": color, "agreement": gauge["agreement"]["top1"], **{key: gauge[key] for key in keys}}
            for name, color, gauge in sides
        ],
    }
