"""What came out of a comparison: results.csv, the table, the differences and their plot, in one folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from counterpoise.studies import results
from counterpoise.studies.plan import Comparison
from counterpoise.studies.results import Row
from counterpoise.studies.summary import Report
from counterpoise.system.files import write_text
from counterpoise.system.grid import Grid, names, numbers, texts

TABLE = (
    "pair", "method", "n", "diverged", "last_mean", "last_std", "best_mean", "best_std", "params", "origin",
    "last_std_seeds",
)  # fmt: skip
DIFFERENCES = (
    "pair", "method", "baseline", "primary", "n", "difference", "low", "high", "p", "p_corrected", "correction",
    "verdict", "origin", "over",
)  # fmt: skip

HEADS = {
    "table.csv": "pair,method,n,",
    "differences.csv": "pair,method,baseline,",
    "table.md": "| pair | method |",
    "plot.svg": "",
    "plot.png": "",
}
"""What files beside results.csv begin with, in every version; of a picture that cannot be said."""


def write(out: Path, comparison: Comparison, rows: Sequence[Row], report: Report) -> None:
    """results.csv, table.csv, table.md and differences.csv; the plot where matplotlib is there."""
    from counterpoise.studies import plotting

    plotted = [out / name for name in ("results.csv", "table.csv", "differences.csv")]
    before = [file.read_bytes() for file in plotted if file.exists()]
    results.write_rows(out / "results.csv", results.COLUMNS, rows)
    results.write_rows(out / "table.csv", TABLE, report.table)
    results.write_rows(out / "differences.csv", DIFFERENCES, report.differences)
    write_text(out / "table.md", markdown(report))
    if before != [file.read_bytes() for file in plotted] or not (out / "plot.svg").exists():
        plotting.draw(out, comparison, report)


def markdown(report: Report) -> str:
    """Both tables as Markdown."""
    lines = [
        f"| pair | method | {report.metric}, last epoch | best epoch | n | parameters | seconds a run |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report.table:
        cells = [row["pair"], row["method"], *(plus_minus(row, when) for when in ("last", "best")), counted(row)]
        lines.append(f"| {' | '.join([*cells, row['params'], _number(row['seconds'], '.0f')])} |")
    lines += [
        "",
        f"Mean ± standard deviation over {report.over}.",
        "",
        f"| pair | method | difference to the baseline, {report.metric} | 95% interval | p | n | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report.differences:
        mark = " (primary)" if row["primary"] == "yes" else ""
        cells = [row["pair"], f"{row['method']}{mark} - {row['baseline']}", _number(row["difference"]), interval(row)]
        lines.append(f"| {' | '.join([*cells, p_value(row), of(row), row['verdict']])} |")
    lines += ["", method(report)]
    lines += [f"\n{note}" for note in report.notes]
    return "\n".join(lines) + "\n"


def method(report: Report) -> str:
    """How the differences were judged, in words."""
    shared = ", its variance for folds that share training images (Nadeau and Bengio 2003)"
    test = f"Student's t{'' if report.over == 'seeds' else shared}"
    return (
        f"Paired differences of the last epoch over common {report.over}, {test}. p of the primary comparison stands "
        "as it is; the others are corrected by Holm, their intervals are not."
    )


def tables(report: Report, out: Path) -> Iterator[Any]:
    """The same for a terminal."""
    apart = len({row["origin"] for row in report.table}) > 1
    origin = texts("origin") if apart else []
    scores = numbers("last epoch", "best epoch", "n", "seconds a run")
    grid = Grid(
        f"{report.metric}, mean ± standard deviation over {report.over}", [*names("pair", "method"), *scores, *origin]
    )
    for row in report.table:
        cells = [row["pair"], row["method"], plus_minus(row, "last"), plus_minus(row, "best"), counted(row)]
        grid.add(*cells, _number(row["seconds"], ".1f"), *([row["origin"]] if apart else []))
    yield grid
    if report.differences:
        yield _differences_table(report, apart)
        yield method(report)
    yield from report.notes
    yield f"Rows, tables and plot are in {out}."


def _differences_table(report: Report, apart: bool) -> Grid:
    columns = [*numbers("difference", "95% interval", "p", "n"), *texts("verdict", *(["origin"] if apart else []))]
    grid = Grid(f"differences to {report.differences[0]['baseline']}", [*names("pair", "method"), *columns])
    for row in report.differences:
        name = f"{row['method']} (primary)" if row["primary"] == "yes" else row["method"]
        cells = [row["pair"], name, _number(row["difference"]), interval(row), p_value(row), of(row)]
        grid.add(*cells, row["verdict"], *([row["origin"]] if apart else []))
    return grid


def plus_minus(row: dict[str, Any], when: str) -> str:
    """Mean and standard deviation of a cell."""
    mean, std = row[f"{when}_mean"], row[f"{when}_std"]
    return "-" if mean is None else f"{mean:.2f}" + ("" if std is None else f" ± {std:.2f}")


def counted(row: dict[str, Any]) -> str:
    """Seeds or folds of a cell, and how many runs diverged."""
    return str(row["n"]) + (f" ({row['diverged']} diverged)" if row["diverged"] else "")


def of(row: dict[str, Any]) -> str:
    """How many seeds, folds or cases a difference is of."""
    return f"{row['n']} {row['over']}".strip()


def interval(row: dict[str, Any]) -> str:
    """The confidence interval of a difference."""
    return "-" if row["low"] is None else f"{_number(row['low'])} to {_number(row['high'])}"


def p_value(row: dict[str, Any]) -> str:
    """p, as corrected."""
    p = row["p_corrected"]
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _number(value: float | None, form: str = "+.2f") -> str:
    return "-" if value is None else f"{value:{form}}"
