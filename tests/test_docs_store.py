"""The tables of docs/teacher-store.md are those of their CSVs and formulas."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from statistics import fmean, stdev

import pytest

from counterpoise.teachers.store import codecs

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "teacher-store.md").read_text(encoding="utf-8")


def table(first: str) -> list[list[str]]:
    """The rows of the table whose head begins with these cells."""
    found = re.search(rf"^\| {re.escape(first)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found, f"there is no table '{first}'"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def lines(name: str) -> list[dict[str, str]]:
    with (ROOT / "benchmarks" / "results" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_fidelity_is_that_of_its_csv() -> None:
    rows = lines("store_fidelity.csv")
    students = list(dict.fromkeys(row["student"] for row in rows))
    bands = [key for key in rows[0] if key.startswith("gradient_")]
    shown = {cells[0]: cells[1:] for cells in table("way | bits a logit")}
    for way in dict.fromkeys(row["precision"] for row in rows):
        ours = [row for row in rows if row["precision"] == way]
        expected = [ours[0]["bits_a_logit"]]
        for student in students:
            for keys in (["loss"], ["gradient"], bands):
                worst = max(float(row[key]) for row in ours if row["student"] == student for key in keys)
                expected.append(f"{worst:.2g}")
        assert shown.pop(way) == expected
    assert not shown


def test_accuracies_are_those_of_their_csv() -> None:
    shown = {cells[0]: cells[1:] for cells in table("teacher | top-1")}
    students: dict[str, list[float]] = {}
    for row in lines("store_training.csv"):
        students.setdefault(row["teacher"], []).append(float(row["top1"]))
    for teacher, scores in students.items():
        assert shown.pop(teacher) == [f"{fmean(scores):.2f} ± {stdev(scores):.2f}", *(f"{s:.2f}" for s in scores)]
    assert not shown


def test_speeds_are_those_of_their_csv() -> None:
    shown = {cells[0]: cells[1:] for cells in table("case | from the store")}
    for row in lines("store.csv"):
        if row["ratio"]:
            other = row["labels_images_per_second"] or row["live_images_per_second"]
            numbers = [f"{float(value):,.0f}" for value in (row["store_images_per_second"], other)]
            ratios = [f"{float(row[key]):.3f}" for key in ("ratio", "cpu_ratio")] + [row["rounds"]]
            assert shown.pop(row["case"]) == numbers + ratios
    assert not shown


def test_sizes_and_hours_are_what_the_formulas_give() -> None:
    for data, views, hours, *sizes in table("data | views | hours"):
        images, classes = (int(number.replace(",", "")) for number in re.findall(r"[\d,]{3,}", data.split("(")[1]))
        count = images * int(views)
        assert float(hours) == pytest.approx(count / 1000 / 3600, rel=0.02)
        for precision, size in zip(("float16", "int8", "int4"), sizes, strict=True):
            gigabytes = count * codecs.find(precision, (classes,)).row_bytes / 1e9
            assert float(size.replace(",", "")) == pytest.approx(gigabytes, rel=0.01)


@pytest.mark.parametrize("classes", [10, 100, 256, 257, 1000, 21841])
def test_a_row_is_as_large_as_the_page_says(classes: int) -> None:
    more = 8 if classes < 32 else 32 if classes <= 256 else 40
    sizes = [codecs.find(precision, (classes,)).row_bytes for precision in codecs.PRECISIONS]
    assert sizes == [4 * classes, 2 * classes, classes + more, -(-classes // 2) + more]
