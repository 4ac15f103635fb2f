"""Scores by case as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from counterpoise.system.grid import Grid, names, numbers, texts

MOST = 40
"""Classes of which a table is printed; all are in the file and in JSON."""
WORST = 5


def by_case_tables(report: Mapping[str, Any]) -> Iterator[Any]:
    """Mean and spread over cases beside what all pictures give together; the same by class; the worst cases."""
    told = report["by_case"]
    grid = Grid(
        f"over {told['cases']:,} cases",
        [*names("score"), *numbers("over cases", "sd", "together", "cases"), *texts("mean of")],
    )
    count = len(report["per_class"])
    for row in told["scores"]:
        unit = f", {told['unit']}" if row["score"] in told["distances"] else ""
        cells = [_number(row[key]) for key in ("mean", "std", "pooled")]
        grid.add(f"{row['score']}{unit}", *cells, str(row["cases"]), _of(row["of"], report))
    yield grid
    distances = ", of distances the mean over pictures" if told["distances"] else ""
    each = "a picture" if told["case"] == "picture" else f"a group of pictures, of which there are {told['pictures']:,}"
    yield (
        f"A case is {each}. 'over cases' is the mean of the cases' own scores, and sd their standard deviation; "
        f"'together' and the tables above are of all pictures taken as one{distances}.\n"
    )
    yield from told["notes"]
    if count <= MOST:
        yield _classes(told)
    worst = _worst(report)
    if len(worst) > 1:
        grid = Grid("worst cases", [*names("case"), *numbers("dice")])
        for name, value in worst:
            grid.add(name, f"{value:.2f}")
        yield grid


def _of(classes: Sequence[str], report: Mapping[str, Any]) -> str:
    every = [row["class"] for row in report["per_class"]]
    left = [label for label in every if label not in set(classes)]
    if not left:
        return "all classes"
    return f"all but {', '.join(left)}" if len(left) < len(classes) else ", ".join(classes)


def _classes(told: Mapping[str, Any]) -> Grid:
    rows: dict[str, dict[str, str]] = {}
    scores = list(dict.fromkeys(row["score"] for row in told["per_class"]))
    for row in told["per_class"]:
        spread = "" if row["std"] is None else f" ± {row['std']:.2f}"
        rows.setdefault(row["class"], {})[row["score"]] = f"{_number(row['mean'])}{spread}"
    grid = Grid("by class, over cases", [*names("class"), *numbers(*scores)])
    for label, cells in rows.items():
        grid.add(label, *(cells.get(score, "-") for score in scores))
    return grid


def _worst(report: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The cases of the lowest mean Dice."""
    found = []
    for case in report["cases"]:
        values = [value for value in case["scores"]["dice"].values() if value is not None]
        if values:
            found.append((case["case"], fmean(values)))
    return sorted(found, key=lambda one: one[1])[:WORST]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
