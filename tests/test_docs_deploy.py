"""The tables of docs/deploy.md and docs/measuring.md are those of their CSVs."""

from __future__ import annotations

import csv
import re
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


def shown(first: str, of: str = "deploy.md") -> list[list[str]]:
    """The rows of the table whose head begins so."""
    page = (ROOT / "docs" / of).read_text(encoding="utf-8")
    found = re.search(rf"^\| {re.escape(first)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert found
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def lines(name: str) -> list[dict[str, str]]:
    with (ROOT / "benchmarks" / "results" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def loss(row: dict[str, str]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*(float(row[key]) for key in ("loss", "loss_low", "loss_high")))


def precision(row: dict[str, str]) -> str:
    return (row["method"] or "float32") + (f", {row['kept_in_float']} layers kept" if row["within"] else "")


def change(row: dict[str, str]) -> tuple[str, str]:
    return f"{float(row['float']):.2f} -> {float(row['export']):.2f}", loss(row)


def test_eight_bits_are_those_of_their_csv() -> None:
    expected = [
        [
            row["architecture"],
            row["runtime"],
            precision(row),
            f"{int(row['images']):,}",
            f"{float(row['same']):.2f}%",
            f"{row['metric']} {float(row['float']):.2f}",
            loss(row),
            f"{float(row['largest_difference']):.1e}",
        ]
        for row in lines("rounding.csv")
    ]
    assert shown("student | runtime") == expected


def test_ways_to_eight_bits_are_those_of_their_csv() -> None:
    expected = [
        [
            row["way"] + (f", {row['kept_in_float']} layers" if row["way"] == "kept" else ""),
            loss(row),
            f"{float(row['same']):.2f}%",
            *(f"{float(row[key]):.4f}" for key in ("forward_kl", "reverse_kl")),
        ]
        for row in lines("finetuning.csv")
    ]
    assert shown("way | loss (95%)") == expected


def test_scenes_in_every_runtime_are_those_of_their_csv() -> None:
    rows = lines("rounding_camvid.csv")
    expected = [
        [
            row["architecture"],
            row["runtime"],
            precision(row),
            f"{int(row['bytes']):,}",
            f"{float(row['largest_difference']):.1e}",
            f"{float(row['same']):.2f}%",
            *change(row),
        ]
        for row in rows
    ]
    assert shown("scenes | runtime") == expected
    assert {row["images"] for row in rows} == {"233"}
    assert {row["runtime"] for row in rows} == {"onnx", "openvino", "executorch", "litert"}
    for row in rows:
        if row["precision"] == "float32":
            assert float(row["largest_difference"]) < 1e-3
            assert float(row["same"]) >= 99.9


def test_costs_are_those_of_their_csv() -> None:
    rows = lines("deploy.csv")
    expected = [
        [
            f"`{row['network']}`",
            f"{row['format']} {row['precision']}",
            f"{int(row['bytes']) / 1e6:.2f}",
            f"{float(row['median_ms']):.3g}",
            f"{float(row['low_ms']):.3g} to {float(row['high_ms']):.3g}",
            f"{float(row['p95_ms']):.3g}",
            f"{float(row['cpu_ms']):.3g}",
            f"{float(row['peak_mb']):.0f}",
        ]
        for row in rows
    ]
    assert shown("network | export | MB", "measuring.md") == expected
    assert len({(row["network"], row["format"], row["precision"]) for row in rows}) == len(rows) == 4 * 4 * 2


def test_a_depthwise_student_in_other_runtimes_is_as_its_csv_says() -> None:
    rows = lines("rounding_depthwise.csv")
    expected = [
        [
            row["student"],
            row["runtime"],
            precision(row),
            f"{float(row['same']):.2f}%",
            *change(row),
            f"{float(row['largest_difference']):.1e}",
        ]
        for row in rows
    ]
    assert shown("depthwise student | runtime") == expected
    assert {row["images"] for row in rows} == {"10000"}
