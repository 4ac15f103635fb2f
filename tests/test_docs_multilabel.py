"""The table of docs/multilabel.md is that of the results that are kept."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from statistics import fmean, stdev

ROOT = Path(__file__).resolve().parents[1]


def test_the_table_is_that_of_the_results() -> None:
    page = (ROOT / "docs" / "multilabel.md").read_text(encoding="utf-8")
    found = re.search(r"^\| data \| teacher .*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert found
    shown = [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in found[1].splitlines()]
    expected = []
    for path in sorted((ROOT / "benchmarks" / "results").glob("multilabel_*_results.csv"), reverse=True):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        taught = {row["teacher_metric"] for row in rows} - {""}
        for method, title in (("alone", "alone"), ("kd", "KD"), ("balance", "Balance")):
            of = [row for row in rows if row["method"] == method]
            scores = [[float(row[when]) for row in of] for when in ("last", "best")]
            teacher = f"{float(taught.pop()):.2f}" if method == "alone" and len(taught) == 1 else ""
            expected.append([teacher, title, *(f"{fmean(each):.2f} ± {stdev(each):.2f}" for each in scores)])
    assert shown == expected
