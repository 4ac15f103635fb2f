"""What charts show, as plain values that report.js hands to Observable Plot, each with the same as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from counterpoise.pages.report.words import number, signed

POINTS = 240
"""Of a curve; longer ones are thinned to the means of neighbors."""
ROWS = 40
"""Of a table beside a curve."""


@dataclass
class Chart:
    """One chart.

    Attributes:
        id: unique in the page.
        kind: of the function in report.js that draws it.
        title: what is shown.
        says: what it shows, in a sentence for those who cannot see it and for those who can.
        data: for the function.
        head, rows: the same as a table.
        legend: (color, name) of what is told apart by color.
        wide: whether it takes a row of its own.
    """

    id: str
    kind: str
    title: str
    says: str
    data: dict[str, Any]
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    legend: Sequence[tuple[str, str]] = field(default_factory=list)
    wide: bool = False


def standing(methods: Sequence[Mapping[str, Any]], unit: str) -> Chart:
    """The metric of every method: a dot a seed, a tick for the mean."""
    return Chart(
        "standing",
        "standing",
        f"{unit[:1].upper()}{unit[1:]}",
        "A dot is a run, a bar the mean of a method.",
        {"unit": unit, "methods": methods},
        ("method", "mean", "runs"),
        [(row["name"], number(row["mean"]), ", ".join(number(v) for v in row["values"])) for row in methods],
        wide=True,
    )


def lines(
    id: str,
    title: str,
    says: str,
    series: Sequence[Mapping[str, Any]],
    *,
    across: str = "step",
    up: str = "",
    log: bool = False,
    levels: Sequence[Mapping[str, Any]] = (),
) -> Chart:
    """Curves: each of `series` has name, color and points [(x, y)]; `levels` are horizontal lines at `y`."""
    thin = [{**one, "points": thinned(one["points"])} for one in series]
    heights = [y for one in thin for _, y in one["points"]]
    wide = min(heights, default=0.0) > 0 and max(heights) > 10 * min(heights)  # else a linear scale is read easier
    xs = sorted({x for one in thin for x, _ in one["points"]})
    shown = xs[:: max(1, math.ceil(len(xs) / ROWS))]
    columns = [dict(one["points"]) for one in thin]
    return Chart(
        id,
        "lines",
        title,
        says,
        {"series": thin, "across": across, "up": up, "log": log and wide, "levels": list(levels)},
        (across, *(one["name"] for one in thin)),
        [(number(x), *(number(column.get(x)) for column in columns)) for x in shown],
        [(one["color"], one["name"]) for one in (*thin, *levels)],
    )


def masses(gauges: Sequence[tuple[str, str, Mapping[str, Any]]]) -> Chart:
    """Probability over the teacher's ranked classes: the teacher's own, and that of each student (name, color)."""
    bands = gauges[0][2]["bands"]
    rows = [
        {"ranks": band["ranks"], "who": "Teacher", "color": "teacher", "mass": band["teacher_mass"]} for band in bands
    ]
    for name, color, gauge in gauges:
        rows += [
            {"ranks": band["ranks"], "who": name, "color": color, "mass": band["student_mass"]}
            for band in gauge["bands"]
        ]
    return Chart(
        "masses",
        "masses",
        "Who believes what",
        "The probability, in percent, that each gives to the classes of a rank; rank 1 is the teacher's first class. "
        "The scale is logarithmic.",
        {"rows": rows, "ranks": [band["ranks"] for band in bands]},
        ("rank", "teacher %", *(f"{name} %" for name, _, _ in gauges)),
        [
            (
                band["ranks"],
                number(band["teacher_mass"]),
                *(number(gauge["bands"][index]["student_mass"]) for _, _, gauge in gauges),
            )
            for index, band in enumerate(bands)
        ],
        [("teacher", "Teacher"), *((color, name) for name, color, _ in gauges)],
    )


def split(gauges: Sequence[tuple[str, str, Mapping[str, Any]]]) -> Chart:
    """Forward and reverse KL over the teacher's ranked classes, for each student."""
    sides = (("forward_kl", "forward KL: what is missed"), ("reverse_kl", "reverse KL: what is made up"))
    rows = [
        {"ranks": band["ranks"], "side": title, "who": name, "color": color, "nats": band[key]}
        for key, title in sides
        for name, color, gauge in gauges
        for band in gauge["bands"]
    ]
    bands = gauges[0][2]["bands"]
    return Chart(
        "split",
        "split",
        "Where they differ",
        "The part of each divergence, in nats, that lies on the classes of a rank. Shorter is nearer to the teacher.",
        {
            "rows": rows,
            "ranks": [band["ranks"] for band in bands],
            "sides": [t for _, t in sides],
            "who": [g[0] for g in gauges],
        },
        ("rank", *(f"{name}, {key.replace('_kl', ' KL')}" for key, _ in sides for name, _, _ in gauges)),
        [
            (band["ranks"], *(number(gauge["bands"][index][key]) for key, _ in sides for _, _, gauge in gauges))
            for index, band in enumerate(bands)
        ],
        [(color, name) for name, color, _ in gauges],
    )


def reliability(sides: Sequence[tuple[str, str, Sequence[Mapping[str, float]]]], promised: bool = False) -> Chart:
    """How often answers of some confidence are right; sides are (name, color, bins).

    Args:
        promised: whether a promise has a temperature by which confidence is divided after this.
    """
    rows = [
        {"who": name, "color": color, **{key: bin_[key] for key in ("confidence", "accuracy", "count")}}
        for name, color, bins in sides
        for bin_ in bins
    ]
    errors = "; ".join(f"{name} {_calibration_error(bins):.3f}" for name, _, bins in sides)
    return Chart(
        "reliability",
        "reliability",
        "Can its confidence be trusted?",
        "Dots below the dashed line: answers that are surer than right. The larger a dot, the more of them. "
        f"Calibration error (ECE): {errors}.{' Before the temperature of its promise.' if promised else ''}",
        {"rows": rows},
        ("model", "confidence %", "right %", "answers"),
        [
            (name, number(100 * bin_["confidence"]), number(100 * bin_["accuracy"]), number(bin_["count"]))
            for name, _, bins in sides
            for bin_ in bins
        ],
        [(color, name) for name, color, _ in sides],
    )


def risk(sides: Sequence[tuple[str, str, Mapping[str, Any]]], promised_on: bool) -> Chart:
    """How many answers are wrong where only the surest are given.

    Args:
        sides: (name, color, found) of each model, the student first, as `findings.risk` has them: "points", "aurc" and
            "promise".
        promised_on: whether the same images chose the student's promise.
    """
    areas = "; ".join(f"{name} {number(found['aurc'])}" for name, _, found in sides)
    says = f"The surest answers are given first. Lower is better. Mean over all shares (AURC): {areas}."
    promise = sides[0][2]["promise"]
    if promise is not None:
        most, bound, sure = (number(promise[key]) for key in ("risk", "bound", "confidence"))
        says += (
            f" Dashed: the promise, at most {most}% wrong; its bound, where the bar ends, is {bound}% ({sure}% sure)."
        )
        where = "these pictures, which chose it," if promised_on else "these pictures"
        here = "" if promise["wrong"] is None else f", {number(promise['wrong'])}% of them wrong"
        says += f" Dot: at its threshold {number(promise['answered'])}% of {where} are answered{here}."
        if promise["groups"] is not None:
            says += " The promise counts groups of pictures, each as much as any other; curve and dot count pictures."
    every = max(1, len(sides[0][2]["points"]) // 10)
    rows = zip(*(found["points"][::-1][::every][::-1] for _, _, found in sides), strict=True)  # of one coverage each
    return Chart(
        "risk",
        "risk",
        "Risk against coverage",
        says,
        {
            "series": [{"name": name, "color": color, "points": found["points"]} for name, color, found in sides],
            "promise": promise,
        },
        ("answered %", *(f"{name}, wrong %" for name, _, _ in sides)),
        [(number(row[0][0]), *(number(wrong) for _, wrong in row)) for row in rows],
        [(color, name) for name, color, _ in sides],
    )


def _calibration_error(bins: Sequence[Mapping[str, float]]) -> float:
    total = sum(row["count"] for row in bins)
    return sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in bins) / max(total, 1)


def by_class(rows: Sequence[Mapping[str, Any]], sides: Sequence[tuple[str, str, str]], what: str, note: str) -> Chart:
    """A metric by class; each row has "class" and "values" by key, sides are (key, name, color)."""
    return Chart(
        "classes",
        "classes",
        f"{what}, class by class",
        f"In percent, the student's worst first.{note}",
        {
            "rows": [
                {"class": row["class"], "who": name, "color": color, "value": row["values"].get(key)}
                for row in rows
                for key, name, color in sides
                if row["values"].get(key) is not None
            ],
            "classes": [row["class"] for row in rows],
        },
        ("class", *(f"{name} %" for _, name, _ in sides)),
        [(row["class"], *(number(row["values"].get(key)) for key, _, _ in sides)) for row in rows],
        [(color, name) for _, name, color in sides],
    )


def cases(sides: Sequence[tuple[str, str, Sequence[float]]]) -> Chart:
    """How the scores of cases spread: sides are (name, color, values in percent)."""
    methods = [
        {"name": name, "color": color, "values": _thinned(values), "mean": math.fsum(values) / len(values)}
        for name, color, values in sides
        if values
    ]
    return Chart(
        "cases",
        "standing",
        "Dice of cases, %",
        "A dot is a case: its mean Dice over the classes that it holds; a bar is their mean.",
        {"unit": "Dice, %", "methods": methods},
        ("network", "worst", "a quarter below", "median", "a quarter above", "best"),
        [(name, *(number(_at(values, share)) for share in (0, 0.25, 0.5, 0.75, 1))) for name, _, values in sides],
        wide=True,
    )


def _thinned(values: Sequence[float]) -> list[float]:
    """In order, and no more than are told apart: worst and best among them."""
    count = min(POINTS, len(values))
    return [_at(values, place / max(1, count - 1)) for place in range(count)]


def _at(values: Sequence[float], share: float) -> float:
    """The value that this share of the others lies below."""
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))] if ordered else math.nan


def intervals(rows: Sequence[Mapping[str, Any]], metric: str = "") -> Chart:
    """Differences, of a metric in words, with their 95% intervals: rows have name, mean, low, high, n and verdict."""
    unit = metric or "points"
    return Chart(
        "intervals",
        "intervals",
        f"Differences, {unit}",
        "A dot is the mean difference over what both have in common: seeds, folds, or cases of one seed; a line its "
        "95% interval. Where the line crosses zero, no difference is shown.",
        {"rows": list(rows), "unit": unit},
        ("difference", unit, "95% interval", "n", "verdict"),
        [
            (
                row["name"],
                signed(row["mean"]),
                "-" if row["low"] is None else f"{signed(row['low'])} to {signed(row['high'])}",
                str(row["n"]),
                row["verdict"],
            )
            for row in rows
        ],
        wide=True,
    )


def cost(id: str, points: Sequence[Mapping[str, Any]], across: str, unit: str, up: str) -> Chart:
    """A metric against what it costs: points have name, x, y, color, and `limit` where a budget ends."""
    return Chart(
        id,
        "cost",
        f"{up[:1].upper()}{up[1:].removesuffix(', %')} against {across}",
        "Up and to the left is better. The scale of the cost is logarithmic.",
        {"points": list(points), "across": f"{across} ({unit})", "up": up},
        ("what", f"{across} ({unit})", up),
        [(point["name"], number(point["x"]), number(point["y"])) for point in points],
    )


def thinned(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """At most POINTS points: means of neighbors, the last point kept as it is."""
    finite = [(float(x), float(y)) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(finite) <= POINTS:
        return finite
    size = math.ceil((len(finite) - 1) / (POINTS - 1))
    parts = [finite[start : start + size] for start in range(0, len(finite) - 1, size)]
    return [*((part[-1][0], sum(y for _, y in part) / len(part)) for part in parts), finite[-1]]
