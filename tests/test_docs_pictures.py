"""The table of docs/pictures.md is that of its CSV."""

from __future__ import annotations

import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CASES = ("real", "500x375", "1280x960", "12 MP")


def test_times_of_a_view_are_those_of_their_csv() -> None:
    page = (ROOT / "docs" / "pictures.md").read_text(encoding="utf-8")
    found = re.search(r"^\| CPU milliseconds a view \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert found
    shown = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found[1].splitlines()]
    with (ROOT / "benchmarks" / "results" / "photos.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "CPU, one process"]
    taken = {(row["side"], row["case"]): float(row["ms_an_image"]) for row in rows}
    sides = list(dict.fromkeys(row["side"] for row in rows))
    assert sorted(cells[0] for cells in shown) == sorted(sides)
    for side, *cells in shown:
        assert cells == [f"{taken[side, case]:.3g}" for case in CASES]
    large = {side: taken[side, "12 MP"] for side in sides}
    assert 0.7 < large["scaled"] / large["exact"] < 0.8  # three quarters
    assert 0.29 < large["scaled"] / large["PIL, torchvision v2"] < 0.31  # three tenths
