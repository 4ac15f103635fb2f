"""The tables of docs/teachers.md are those of their CSVs."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from statistics import fmean, stdev

ROOT = Path(__file__).resolve().parents[1]


def test_the_table_of_few_labels_is_that_of_its_csv() -> None:
    with (ROOT / "benchmarks" / "results" / "few_labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    page = (ROOT / "docs" / "teachers.md").read_text(encoding="utf-8")
    found = re.search(r"^\| way \| 1% .*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert found
    shown = {
        way: scores
        for way, *scores in ([cell.strip() for cell in line[1:-1].split("|")] for line in found[1].split("\n")[:-1])
    }
    ways = dict.fromkeys(row["way"] for row in rows)
    assert list(shown) == list(ways)
    for way, scores in shown.items():
        for share, told in zip(("0.01", "0.1"), scores, strict=True):
            top1 = [float(row["top1"]) for row in rows if (row["way"], row["labels"]) == (way, share)]
            assert len(top1) == 3
            assert told == f"{fmean(top1):.2f} ± {stdev(top1):.2f}"
