"""Case by case: how the scores of masks spread over cases, the worst first, and the pictures behind them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

from counterpoise.pages.report.findings.base import STUDENT
from counterpoise.tasks.scores.cases import Counts, Part

ROWS = 100
"""Cases in the table: the worst ones."""


def cases(counts: Mapping[str, Counts]) -> dict[str, Any]:
    """The mean Dice of each case by model: the values, their mean and spread, and rows of the student's worst cases."""
    parts = {name: others.cases() for name, others in counts.items()}
    own = counts[STUDENT]
    rows: list[dict[str, Any]] = [
        {
            "case": Path(own.case_name(case)).name,
            "pictures": len(case.pictures),
            "dice": {name: _or_none(dice(others[number])) for name, others in parts.items()},
        }
        for number, case in enumerate(parts[STUDENT])
    ]
    rows = [row for row in rows if row["dice"][STUDENT] is not None]
    rows.sort(key=lambda row: row["dice"][STUDENT])
    known = {name: [value for value in map(dice, others) if not isnan(value)] for name, others in parts.items()}
    return {
        "grouped": own.grouped,
        "count": len(rows),
        "rows": rows[:ROWS],
        "dice": known,
        "spread": {name: _spread(values) for name, values in known.items()},
    }


def worst_first(counts: Counts, scores: list[float]) -> list[int]:
    """Pictures, the worst first by their scores; where cases have several, the worst of each, by the Dice of cases."""
    order = sorted((number for number, score in enumerate(scores) if not isnan(score)), key=lambda n: scores[n])
    if not counts.grouped:
        return order
    owners, parts = counts.owners(), counts.cases()
    worst = {owners[number]: number for number in reversed(order)}
    return sorted(worst.values(), key=lambda number: dice(parts[owners[number]]))


def dice(part: Part) -> float:
    """The mean Dice over the classes that there are; NaN where there are none."""
    return float(part.values["dice"].nanmean())


def _spread(values: list[float]) -> dict[str, float | None]:
    return {
        "mean": statistics.fmean(values) if values else None,
        "std": statistics.stdev(values) if len(values) > 1 else None,
    }


def _or_none(value: float) -> float | None:
    return None if isnan(value) else value
