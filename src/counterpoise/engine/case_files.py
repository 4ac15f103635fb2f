"""The file of scores by case: written, and read again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from counterpoise.engine.run_folder import CASES
from counterpoise.errors import ConfigError
from counterpoise.system.documents import read_csv
from counterpoise.system.files import write_text
from counterpoise.tasks.scores.metrics import metric as named
from counterpoise.tasks.scores.table import as_csv

LARGEST = 10**8
"""Bytes of such a file that is read."""


def write(path: Path, report: Mapping[str, Any]) -> None:
    """Write the cases of a report; of masks without a pixel that is known there are none."""
    write_text(path, as_csv(report.get("cases", [])))


def of_cases(folder: Path, metric: str) -> dict[str, float]:
    """A metric of each case of a run's last epoch, by the name of the case: the mean over classes, or that of one.

    Nothing where the run has not told them, or where the metric is none over cases.
    """
    try:
        asked = named(metric)
        rows = read_csv(folder / CASES, within=folder, limit=LARGEST)
    except (ConfigError, OSError, ValueError):
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
