"""Accuracy against cost: frontier.csv, and a picture of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise.studies import plotting, results
from counterpoise.studies.fitting.budget import Budget
from counterpoise.studies.fitting.plan import FitPlan

OVER, FAILED, WINNER = "over budget", "failed", "winner"
COLUMNS = ("candidate", "model", "size", "precision", "status", "frontier", "latency_ms", "latency_low_ms",
           "latency_high_ms", "p95_ms", "megabytes", "peak_mb", "parameters", "multiply_adds", "epochs",
           "score")  # fmt: skip
LATENCY = {"ms": "median_ms", "low_ms": "low_ms", "high_ms": "high_ms"}
Row = dict[str, Any]


def write(
    plan: FitPlan,
    entries: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[int, float]],
    status: Mapping[str, str],
) -> list[Row]:
    """frontier.csv, and where matplotlib is there frontier.png and frontier.svg: one row a candidate.

    The column `frontier` says whether no other is at least as good in accuracy, latency and size. Accuracies are
    compared where all candidates that keep the budget have one: after the first rung.
    """
    found: list[Row] = []
    for candidate in plan.candidates:
        entry = entries[candidate.name]
        reached = scores.get(candidate.name, {})
        case: Mapping[str, Any] = next(
            (case for case in entry.get("cases", ()) if case["threads"] == plan.asked.threads), {}
        )
        size = entry.get("size") or ["", ""]
        found.append(
            {
                "candidate": candidate.name,
                "model": candidate.model,
                "size": "x".join(map(str, size)) if size[0] else "",
                "precision": candidate.precision,
                "status": status[candidate.name],
                **{f"latency_{column}": case.get(name) for column, name in LATENCY.items()},
                **{name: case.get(name) for name in ("p95_ms", "peak_mb")},
                "megabytes": None if entry.get("bytes") is None else entry["bytes"] / 1e6,
                **{name: entry.get(name) for name in ("parameters", "multiply_adds")},
                "epochs": max(reached, default=None),
                "score": reached[max(reached)] if reached else None,
                **{f"{plan.metric}_{epochs}_epochs": value for epochs, value in reached.items()},
            }
        )
    scored = [f"{plan.metric}_{epochs}_epochs" for epochs in sorted(set().union(*scores.values()))]
    if scored:
        compared = [row for row in found if _scored(row, scored[0])]
        for row in compared:
            row["frontier"] = "no" if any(_beats(other, row, scored[0]) for other in compared) else "yes"
    results.write_rows(plan.out / "frontier.csv", [*COLUMNS, *scored], found)
    if scored and plotting.available():
        window = any(entry.get("window") for entry in entries.values())
        draw(plan.out, found, scored[0], plan.budget, "window" if window else "picture")
    return found


def _scored(row: Row, column: str) -> bool:
    return row.get(column) is not None and not math.isnan(row[column])


def _beats(other: Row, row: Row, column: str) -> bool:
    pairs = [(other[column], row[column])]
    pairs += [(-other[key], -row[key]) for key in ("latency_ms", "megabytes") if other[key] is not None]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def draw(out: Path, found: Sequence[Row], column: str, budget: Budget, what: str) -> None:
    """Accuracy after the first rung against latency; the larger a mark, the larger the file."""
    figure = plotting.blank(7.5, 4.5)
    axes = figure.subplots()
    timed = [row for row in found if row["latency_ms"] is not None]
    scored = [row for row in timed if _scored(row, column)]
    largest = max((row["megabytes"] or 0 for row in scored), default=0) or 1
    texts = []
    for row in scored:
        color = plotting.CLAIM if row["status"] == WINNER else plotting.INK
        axes.scatter(row["latency_ms"], row[column], 20 + 180 * (row["megabytes"] or 0) / largest, color, alpha=0.7)
        if row["latency_low_ms"] is not None:
            axes.plot([row["latency_low_ms"], row["latency_high_ms"]], [row[column]] * 2, color=color, linewidth=1)
        texts.append(axes.text(row["latency_ms"], row[column], row["candidate"], fontsize=7))
    edge = sorted((row["latency_ms"], row[column]) for row in scored if row.get("frontier") == "yes")
    axes.plot(*zip(*edge, strict=True), color=plotting.GREY, linewidth=0.8, zorder=0)
    over = [row["latency_ms"] for row in timed if row not in scored]
    axes.plot(over, [0.01] * len(over), "|", color=plotting.GREY, transform=axes.get_xaxis_transform(), markersize=12)
    if "latency" in budget.limits:
        axes.axvline(budget.limits["latency"], color=plotting.CLAIM, linewidth=1, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlabel(f"latency of a {what}, ms (bars: 95% interval; ticks below: not trained)", fontsize=8)
    axes.set_ylabel(column.replace("_", " "), fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    plotting.apart(figure, texts)
    plotting.save(figure, out / "frontier")
