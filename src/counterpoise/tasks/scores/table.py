"""Scores of cases and of their pictures as rows of a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LEADING = ("level", "case", "picture", "pictures", "class")


def as_csv(cases: Sequence[Mapping[str, Any]]) -> str:
    """`cases` of a report as CSV: a row a case and class and, where there are groups, one a picture and class.

    `level` says which of the two a row is. A score that is not there is an empty cell.
    """
    scores = list(cases[0]["scores"]) if cases else []
    text = io.StringIO()
    writer = csv.DictWriter(text, [*LEADING, *scores], lineterminator="\n", restval="")
    writer.writeheader()
    for case in cases:
        pictures = case.get("pictures", [])
        alone = {"picture": case["case"]} if not pictures else {}
        lead = {"level": "case", "case": case["case"], "pictures": len(pictures) or 1, **alone}
        writer.writerows(_rows(lead, case["scores"]))
        for one in pictures:
            lead = {"level": "picture", "case": case["case"], "picture": one["picture"], "pictures": 1}
            writer.writerows(_rows(lead, one["scores"]))
    return text.getvalue()


def _rows(lead: Mapping[str, Any], scores: Mapping[str, Mapping[str, float | None]]) -> Iterator[dict[str, Any]]:
    classes = dict.fromkeys(label for values in scores.values() for label in values)
    for label in classes:
        there = {name: values[label] for name, values in scores.items() if values.get(label) is not None}
        yield {**lead, "class": label, **there}
