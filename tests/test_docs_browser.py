"""The table of docs/browser.md is that of its CSV."""

from __future__ import annotations

import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FORMS = {"float32": "float", "int8": "8 bits"}


def test_times_are_those_of_the_csv() -> None:
    page = (ROOT / "docs" / "browser.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+), \d+ x \d+ \| ([^|]+) \| ([\d.]+) MB \| (\d+) ms \| (\d+) ms \|$", page, re.MULTILINE)
    with (ROOT / "benchmarks" / "results" / "browser.csv").open(newline="", encoding="utf-8") as file:
        expected = [
            (
                row["network"],
                FORMS[row["precision"]],
                f"{int(row['bytes']) / 1e6:.1f}",
                f"{float(row['milliseconds']):.0f}",
                f"{float(row['fastest_milliseconds']):.0f}",
            )
            for row in csv.DictReader(file)
        ]
    assert rows == expected
    assert len(rows) == 4
