"""Tables as the pages of docs/ have them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def page(name: str) -> str:
    """The text of a page of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def results(name: str) -> list[dict[str, str]]:
    """The rows of a CSV of benchmarks/results."""
    with (ROOT / "benchmarks" / "results" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def shown(text: str, head: str) -> list[list[str]]:
    """The cells of the table whose first line begins so."""
    found = re.search(rf"^{re.escape(head)}.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert found, head
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in found[1].splitlines()]
