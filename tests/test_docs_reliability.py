"""The figures of docs/reliability.md are those of the benchmark, and nothing was lost in it."""

from __future__ import annotations

import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_table_of_crashes_and_failures_is_that_of_its_csv() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| ([^|]+) \| (\d*) \| (\d+) \| (\d*) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    with (ROOT / "benchmarks" / "results" / "power.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    keys = ("case", "changes", "states_tried", "calls", "failures_tried")
    assert shown == [(*(row[key] for key in keys), "0") for row in rows]
    assert all((row["states_lost"], row["failures_lost"]) == ("0", "0") for row in rows)
