"""Several runs beside one another: the tables of `counterpoise compare`, or those of the runs that were given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from counterpoise import config
from counterpoise.config.keys import flatten
from counterpoise.pages.report import charts
from counterpoise.pages.report.methods import Claim, Method, different
from counterpoise.pages.report.reading import spelled
from counterpoise.pages.report.reading import table as read_table
from counterpoise.pages.report.words import MINUS, NONE, short
from counterpoise.pages.report.words import metric as in_words

DIFFERENCES, TABLE, RESULTS = "differences.csv", "table.csv", "results.csv"
KEYS = 60
"""Differing keys of run files that are shown."""


def find(path: Path) -> Path | None:
    """The folder of a comparison that a path means."""
    return path if (path / TABLE).is_file() and (path / DIFFERENCES).is_file() else None


def claim(folder: Path | None) -> Claim:
    """The one difference that a comparison named before anything was trained."""
    for row in read_table(folder / DIFFERENCES, []) if folder is not None else []:
        if row.get("primary") == "yes":
            return row.get("pair", ""), row.get("method", ""), row.get("baseline", "")
    return None


def comparison(
    methods: Sequence[Method], differences: Sequence[dict[str, Any]], folder: Path | None
) -> dict[str, Any] | None:
    """Intervals, the table of a comparison, and in what run files differ; None for a single method."""
    missing: list[str] = []
    table = _table(folder / TABLE, missing) if folder is not None else []
    rows = _differences(folder / DIFFERENCES, missing) if folder is not None else list(differences)
    known = [row for row in rows if row["mean"] is not None]
    if len(methods) < 2 and not table:
        return None
    told = _metric(folder) if folder is not None else ""
    return {
        "chart": charts.intervals(known, told) if known else None,
        "metric": told,
        "table": table,
        "keys": _keys(methods),
        "missing": missing,
        "corrected": folder is None,
    }


def _keys(methods: Sequence[Method]) -> dict[str, Any]:
    """What differs between the run files of methods, a column each; what moves with the seed is left out."""
    students = [method for method in methods if method.role != "teacher"] or list(methods)
    usual = flatten(config.Run(teacher=config.Teacher()))
    rows = [
        (key, values)
        for key, values in different([method.runs[0] for method in students])
        # A section that others do not have, with what it holds unless told otherwise, is no difference to look at.
        if not (key in usual and all(value is None or value == usual[key] for value in values))
    ]
    shown = [(key, [_shown(value) for value in values]) for key, values in rows[:KEYS]]
    columns = [{"name": method.name, "color": method.color} for method in students]
    return {"rows": shown, "columns": columns, "left_out": len(rows) - len(shown)}


def _shown(value: Any) -> str:
    if value is None:
        return NONE
    return short(", ".join(map(str, value)) if isinstance(value, list) else value, 80)


def _metric(folder: Path) -> str:
    """What a comparison compared, in words; empty where it does not say."""
    rows = read_table(folder / RESULTS, [], rows=1)
    return in_words(name) if rows and (name := rows[0].get("metric")) else ""


def _table(file: Path, missing: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "pair": row.get("pair", ""),
            "method": row.get("method", ""),
            "n": row.get("n", ""),
            "diverged": row.get("diverged", ""),
            **{key: spelled(row.get(key)) for key in ("last_mean", "last_std", "best_mean", "best_std", "params")},
        }
        for row in read_table(file, missing)
    ]


def _differences(file: Path, missing: list[str]) -> list[dict[str, Any]]:
    rows = read_table(file, missing)
    pairs = {row.get("pair") for row in rows}
    return [
        {
            "name": (f"{short(row.get('pair'), 24)}: " if len(pairs) > 1 else "")
            + f"{short(row.get('method'), 24)} {MINUS} {short(row.get('baseline'), 24)}",
            "color": "student" if row.get("primary") == "yes" else "ink",
            "mean": spelled(row.get("difference")),
            "low": spelled(row.get("low")),
            "high": spelled(row.get("high")),
            "n": f"{row.get('n', '')} {row.get('over', '')}".strip(),
            "verdict": row.get("verdict", ""),
        }
        for row in rows
    ]
