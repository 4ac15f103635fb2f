"""How training went: scores, terms, learning rate, speed, and what moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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


def _scores(methods: Sequence[Method], reading: Reading, metric: str) -> Chart | None:
    series = []
    for method in methods:
        run = reading if reading in method.runs else method.typical(metric)
        points = _by_epoch(run, "val", metric)
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


def _by_epoch(reading: Reading, group: str, name: str) -> list[tuple[float, float]]:
    """A number of each evaluation, where it was logged."""
    return [
        (_at(line, "epoch") + 1, values[name])
        for line in reading.epochs
        if name in (values := numbers(line.get(group)))
    ]


def _at(line: Mapping[str, Any], key: str) -> float:
    """Where a line of the log belongs."""
    return numbers(line).get(key, 0.0)


def _terms(reading: Reading) -> Chart | None:
    names = list(dict.fromkeys(name for line in reading.epochs for name in numbers(line.get("terms"))))
    lines, across = reading.epochs, "epoch"
    if len(lines) < 3:
        names = list(dict.fromkeys(name for line in reading.steps for name in numbers(line.get("terms"))))
        lines, across = reading.steps, "step"
    series = []
    for name, color in zip(names, SERIES, strict=False):
        points = [
            (_at(line, "epoch") + 1 if across == "epoch" else _at(line, "step"), values[name])
            for line in lines
            if name in (values := numbers(line.get("terms")))
        ]
        if len(points) > 1:
            series.append(
                {"name": plain(name.replace("/", ", ").replace("_", " "), 40), "color": color, "points": points}
            )
    if not series:
        return None
    return charts.lines(
        "terms",
        "Loss by term",
        "Each term with its weight; together they are the loss."
        + (" Means over an epoch." if across == "epoch" else ""),
        series,
        across=across,
        log=True,
    )


def _gauge(reading: Reading) -> Chart | None:
    sides = {"missed": "missed: what the teacher believes", "excess": "made up: what it rules out"}
    found = {key: _by_epoch(reading, "gauge", key) for key in sides}
    series = [{"name": sides[key], "color": key, "points": points} for key, points in found.items() if len(points) > 1]
    if len(series) < 2:
        return None
    before, after = ([points[place][1] for points in found.values()] for place in (0, -1))
    return charts.lines(
        "balance-by-epoch",
        "The balance while training, nats",
        f"From the first evaluation to the last: missed {number(before[0])} to {number(after[0])}, "
        f"made up {number(before[1])} to {number(after[1])}.",
        series,
        across="epoch",
    )


def _one(reading: Reading, id: str, title: str, key: str, says: str) -> Chart | None:
    points = [(_at(line, "step"), values[key]) for line in reading.steps if key in (values := numbers(line))]
    if len(points) < 2:
        return None
    return charts.lines(id, title, says, [{"name": title, "color": "ink", "points": points}])


def _moving(reading: Reading) -> Chart | None:
    names = list(dict.fromkeys(name for line in reading.steps for name in numbers(line.get("moving"))))
    series = [
        {
            "name": plain(name, 40),
            "color": color,
            "points": [
                (_at(line, "step"), values[name])
                for line in reading.steps
                if name in (values := numbers(line.get("moving")))
            ],
        }
        for name, color in zip(names, SERIES, strict=False)
    ]
    series = [one for one in series if len(one["points"]) > 1]
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
    return {
        "words": in_plain_words(gauges["student"], before),
        "charts": [charts.masses(sides), charts.split(sides)],
        "rows": [
            {
                "name": name,
                "color": color,
                **{key: gauge[key] for key in ("forward_kl", "reverse_kl", "missed", "excess")},
            }
            | {"agreement": gauge["agreement"]["top1"]}
            for name, color, gauge in sides
        ],
        "pixels": findings.get("pixels", False),
    }


def in_plain_words(gauge: dict[str, Any], before: dict[str, Any] | None) -> str:
    """What the gauge says, and how the student alone does beside it."""
    words: str = gauge["summary"]
    if before is None:
        return words
    return f"{words} The student alone: {before['agreement']['top1']:.1f} of 100."
