"""The table of docs/deploy.md is that of its CSV."""

from __future__ import annotations

import csv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_phones_formats_are_as_their_csv_says() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    table = page.partition("| student | format | bytes |")[2].split("\n\n")[0].splitlines()[2:]
    shown = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    with (ROOT / "benchmarks" / "results" / "phones.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(shown) == len(rows) > 0
    for cells, row in zip(shown, rows, strict=True):
        loss, low, high = (f"{float(row[key]):.2f}".replace("-0.00", "0.00") for key in ("loss", "low", "high"))
        assert cells == [
            f"`{row['student']}`",
            f"{row['format']} {row['precision']}",
            f"{int(row['bytes']):,}",
            f"{float(row['largest_difference']):.2g}",
            f"{float(row['same']):.3f}%",
            f"{float(row['student_metric']):.2f} -> {float(row['export_metric']):.2f}",
            f"{loss} ({low} to {high})",
        ]
        if row["precision"] == "float32":
            assert float(row["largest_difference"]) < 1e-3
            assert float(row["same"]) >= 99.9
