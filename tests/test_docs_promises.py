"""docs/promises.md: its tables are those of the results, and the word was kept as often as it says."""

from __future__ import annotations

import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def rows(name: str) -> list[dict[str, str]]:
    with (ROOT / "benchmarks" / "results" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table(begins: str) -> list[list[str]]:
    page = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    found = re.search(rf"^\| {begins} .*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert found
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def test_at_most_five_of_a_hundred_promises_were_broken_as_the_table_has_it() -> None:
    results = rows("promises.csv")
    assert all(int(row["broken"]) <= 0.05 * int(row["promised"]) for row in results)
    shares = ("answered", "wrong_of_answered", "largest_wrong", "in_set")
    assert table("student") == [
        [
            {"int8": "8 bits"}.get(row["precision"], row["precision"]),
            f"{float(row['risk']):g}%",
            row["promised"],
            row["broken"],
            *(f"{float(row[name]):.1f}%" for name in shares),
        ]
        for row in results
    ]


def test_the_cascade_is_that_of_the_results() -> None:
    known = {f"{100 * float(row['share']):.0f}%": row for row in rows("cascade.csv") if row["row"] == "table"}
    (chosen,) = (row for row in rows("cascade.csv") if row["row"] == "chosen")
    (first, *others) = table("answered by the student")
    shown = [("29.7% (chosen)", chosen), *((line[0], known[line[0]]) for line in others)]
    assert f"{100 * float(chosen['share']):.1f}% (chosen)" == first[0]
    assert [first, *others] == [
        [
            name,
            f"{float(row['top1']):.2f}",
            f"{float(row['difference']):+.2f}",
            f"{float(row['low']):+.2f} to {float(row['high']):+.2f}",
        ]
        for name, row in shown
    ]
