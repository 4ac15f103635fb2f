"""The answer first: the student beside the same student alone, KD and the teacher, in one sentence and one table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from counterpoise import statistics
from counterpoise.pages.report import charts
from counterpoise.pages.report.by_case import by_case
from counterpoise.pages.report.methods import Claim, Method
from counterpoise.pages.report.reading import Reading, numbers
from counterpoise.pages.report.words import MINUS, number, signed
from counterpoise.pages.report.words import metric as in_words
from counterpoise.statistics import Difference

Words = list[tuple[str, bool]]
"""Parts of a sentence, each with whether it is stressed."""


def answer(
    methods: Sequence[Method],
    chosen: Method,
    reading: Reading,
    metric: str,
    findings: Mapping[str, Any],
    claimed: Claim = None,
) -> dict[str, Any]:
    """The sentence, the rows of the table, and the chart where there is anything to put side by side."""
    rows = _rows(methods, chosen, reading, metric, findings)
    scored = [row for row in rows if row["mean"] is not None]
    differences = between(methods, chosen, metric, claimed)
    return {
        "words": _sentence(chosen, rows, metric, differences),
        "rows": rows,
        "metric": in_words(metric),
        "latency": findings.get("latency"),
        "chart": charts.standing(
            [{key: row[key] for key in ("name", "color", "mean", "values")} for row in scored], f"{in_words(metric)}, %"
        )
        if sum(len(row["values"]) for row in scored) > 1  # a single number needs no picture
        else None,
        "differences": differences,
    }


def between(methods: Sequence[Method], chosen: Method, metric: str, claimed: Claim = None) -> list[dict[str, Any]]:
    """The chosen method against every other student, and KD against the student alone.

    Corrected together by Holm, but for the difference that was claimed before anything was trained, which stands alone.
    """
    # What is not finished has not come as far as the others.
    others = [method for method in methods if method.role != "teacher" and method is not chosen and method.finished]
    others = [method for method in others if method.network == chosen.network]
    alone = next((method for method in others if method.role == "alone"), None)
    pairs = [(chosen, other) for other in others if chosen.finished]
    pairs += [(other, alone) for other in others if alone is not None and other is not alone]
    found = [_beside(one, other, metric) for one, other in pairs]
    open_claim = [
        claimed is not None and one is chosen and other.is_called(claimed[0], claimed[2]) for one, other in pairs
    ]
    others_p = iter(statistics.holm([row.p for claim, (row, *_) in zip(open_claim, found, strict=True) if not claim]))
    corrected = [row.p if claim else next(others_p) for claim, (row, *_) in zip(open_claim, found, strict=True)]
    return [
        {
            "name": f"{one.name} {MINUS} {other.name}{f', {of}' if of else ''}",
            "one": one.name,
            "other": other.name,
            "color": one.color,
            "mean": _known(difference.mean),
            "low": _known(difference.low),
            "high": _known(difference.high),
            "n": difference.count,
            "over": over,
            "of": of,
            "p": _known(p),
            "verdict": statistics.verdict(difference, p, over) + (", over cases of one seed" if of else ""),
        }
        for (one, other), (difference, over, of), p in zip(pairs, found, corrected, strict=True)
        if difference.count
    ]


def _beside(one: Method, other: Method, metric: str) -> tuple[Difference, str, str]:
    """The paired difference of two methods, what it is over, and of which score where that is not the metric.

    Of one common seed it is over the cases that both runs told, where they did.
    """
    difference = statistics.paired(one.values(metric), other.values(metric), one.folds)
    found = by_case(one, other) if difference.count == 1 else None
    if found is not None:
        return found.difference, "cases", found.metric
    return difference, "folds" if one.folds else "seeds", ""


def _rows(
    methods: Sequence[Method], chosen: Method, reading: Reading, metric: str, findings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    rows = [_row(method, metric, method is chosen) for method in methods]
    networks, times = findings.get("networks", {}), findings.get("latency", {}).get("ms", {})
    if reading.teacher and not any(method.role == "teacher" for method in methods):
        value = reading.teacher.get(metric)
        rows.insert(
            0,
            {
                **dict.fromkeys(("best", "deviation", "parameters", "bytes", "ms")),
                "name": "Teacher",
                "role": "teacher",
                "color": "teacher",
                "chosen": False,
                "runs": 1,
                "mean": value,
                "values": [] if value is None else [value],
                "network": reading.teacher_told.get("architecture", ""),
            },
        )
    for row in rows:
        who = "teacher" if row["role"] == "teacher" else "student"
        network = networks.get(who, {})
        if network and row["network"] in ("", network["name"]):
            row["network"] = network["name"]
            row["parameters"] = row["parameters"] or network["parameters"]
            row["bytes"] = row["bytes"] or network["bytes"]
            row["ms"] = times.get(who)
    return rows


def _row(method: Method, metric: str, chosen: bool) -> dict[str, Any]:
    values = method.values(metric)
    summaries = [numbers(run.summary) for run in method.runs if run.summary]
    best = [run.best[metric] for run in method.runs if metric in run.best]
    first = summaries[0] if summaries else {}
    return {
        "name": method.name if method.finished else f"{method.name}, so far",
        "role": method.role,
        "color": method.color,
        "chosen": chosen,
        "runs": len(values) or len(method.runs),
        "mean": method.mean(metric),
        "deviation": method.deviation(metric),
        "best": math.fsum(best) / len(best) if best else None,
        "values": list(values.values()),
        "parameters": first.get("parameters"),
        "bytes": first.get("bytes"),
        "ms": None,
        "network": method.network,
    }


def _sentence(
    chosen: Method, rows: Sequence[Mapping[str, Any]], metric: str, differences: Sequence[Mapping[str, Any]]
) -> Words:
    own = next(row for row in rows if row["chosen"])
    finished = chosen.finished
    if own["mean"] is None:
        return [("The run has no evaluation yet, so there is no answer yet.", False)]
    who = {"alone": "The student alone", "teacher": "The teacher"}.get(chosen.role, f"The {chosen.name} student")
    if len(rows) == 1 and chosen.role == "alone":
        who = "The network, trained on labels alone,"
    words: Words = [(f"{who} {'reaches' if finished else 'is at'} ", False), (f"{own['mean']:.1f}%", True)]
    words.append((f" {in_words(metric)}", False))
    if not finished:
        words.append((", and is not finished", False))
    own_differences = [row for row in differences if row["one"] == chosen.name and row["mean"] is not None]
    parts: list[Words] = []
    alike = []
    for row in own_differences[:2]:
        other = "the same student alone" if row["other"] == "Student alone" else row["other"]
        if row["verdict"].startswith("no difference"):
            alike.append(f"{other} in {row['of']}" if row["of"] else other)
            continue
        once = " (one run each)" if row["n"] == 1 else f" in {row['of']} (one run each)" if row["of"] else ""
        direction = "above" if row["mean"] >= 0 else "below"
        parts.append([(f"{abs(row['mean']):.1f} points", True), (f" {direction} {other}{once}", False)])
    if alike:
        parts.append([(f"not shown to differ from {' or '.join(alike)}", False)])
    for index, part in enumerate(parts):
        words += [(" and " if index else ": ", False), *part]
    teacher = next((row for row in rows if row["role"] == "teacher" and row["mean"] is not None), None)
    if teacher is not None and own["role"] != "teacher":
        words.append((f"{'; its' if own_differences else '. Its'} teacher has {teacher['mean']:.1f}%", False))
        ratio = (teacher["parameters"] or 0) / (own["parameters"] or 1) if own["parameters"] else 0
        if ratio > 1:
            words += [(" with ", False), (f"{number(round(ratio, 1 if ratio < 10 else 0))} times", True)]
            words.append((" the parameters", False))
    words.append((".", False))
    return words


def evidence(differences: Sequence[Mapping[str, Any]]) -> list[str]:
    """What may be said of the differences, a sentence each."""
    found = []
    for row in differences:
        interval = f", 95% interval {signed(row['low'])} to {signed(row['high'])} over {row['n']} {row['over']}"
        shown = "" if row["low"] is None else interval
        found.append(f"{row['name']}: {signed(row['mean'])} points{shown}; {row['verdict']}.")
    return found


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
