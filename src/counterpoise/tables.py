"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_all(renderables: Iterable[Any]) -> None:
    """Print tables and lines. Names of files and classes are printed as they are, [brackets] and :words: included."""
    console = Console(markup=False, emoji=False)
    for renderable in renderables:
        console.print(renderable)


def plain_table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    """An empty table of many columns: words are broken where a terminal is narrow, numbers are not."""
    table = Table(title=title, box=box.SIMPLE, padding=0)
    for column in words:
        table.add_column(column, overflow="fold", min_width=8)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def facts_table(facts: Mapping[str, Any]) -> Iterator[Any]:
    """Names and values."""
    table = Table(show_header=False)
    for name, value in facts.items():
        table.add_row(Text(name), Text(f"{value:,}" if isinstance(value, int) else str(value)))
    yield table


def result_table(result: dict[str, Any]) -> Iterator[Any]:
    """What came out of a run."""
    table = Table(title=f"Run {result['folder']}")
    for column in ("", "epoch", *(name for name in result["last"] if name != "epoch")):
        table.add_column(column, justify="left" if not column else "right")
    for row in ("last", "best", "teacher"):
        if result[row]:
            scores = [f"{value:.2f}" for name, value in result[row].items() if name != "epoch"]
            table.add_row(row, str(result[row].get("epoch", "")), *scores)
    yield table
    yield (
        f"{result['parameters']:,} parameters, {result['bytes']:,} bytes, {result['seconds']:.1f} s, "
        f"{result['images_per_second']:,.0f} images/s"
    )
    if result["corrupt"]:
        yield f"{result['corrupt']} images could not be read and were left out: see {result['folder']}/summary.json"
    yield f"Student: {result['folder']}/student"


def report_tables(report: dict[str, Any]) -> Iterator[Any]:
    """What an evaluation found."""
    table = Table(title=f"{report['images']:,} images")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in report.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}" if name == "calibration_error" else f"{value:.2f}")
    yield table
    rows = report.get("per_class", [])
    if rows:
        classes = Table(title="by class")
        for column in rows[0]:
            classes.add_column(column, justify="left" if column == "class" else "right")
        for row in rows:
            classes.add_row(*(_cell(value) for value in row.values()))
        yield classes
    if report.get("corrupt"):
        yield Text(f"{len(report['corrupt'])} images could not be read: {', '.join(report['corrupt'][:5])}")


def _cell(value: Any) -> str | Text:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else Text(str(value))


def gauge_table(result: dict[str, Any]) -> Iterator[Any]:
    """The balance gauge."""
    table = Table(title=f"{result['positions']:,} positions: classes by the teacher's ranking")
    for column in ("rank", "forward KL", "%", "reverse KL", "%", "teacher gives %", "student gives %"):
        table.add_column(column, justify="right")
    for band in result["bands"]:
        divergences = [
            cell
            for name in ("forward", "reverse")
            for cell in (f"{band[f'{name}_kl']:.4f}", f"{100 * band[f'{name}_share']:.1f}")
        ]
        table.add_row(band["ranks"], *divergences, *(f"{band[f'{side}_mass']:.2f}" for side in ("teacher", "student")))
    table.add_section()
    table.add_row("all", f"{result['forward_kl']:.4f}", "100.0", f"{result['reverse_kl']:.4f}", "100.0", "100", "100")
    yield table
    agreement = result["agreement"]
    yield f"Agreement: top-1 {agreement['top1']:.2f}%, the teacher's first among five {agreement['top5']:.2f}%"
    for name, scores in result.get("calibration", {}).items():
        yield f"{name}: top-1 {scores['top1']:.2f}%, calibration error {scores['calibration_error']:.4f}"
    yield Text(result["summary"])
    if result.get("corrupt"):
        yield Text(f"{len(result['corrupt'])} images could not be read: {', '.join(result['corrupt'][:5])}")


def prediction_table(answers: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """What a student says of pictures."""
    ranked = [answer.get("top") or answer.get("classes") or [] for answer in answers]
    measure = next((key for entries in ranked for key in entries[0] if key != "class"), "")  # probability, or share
    table = Table()
    for column in ("image", "class", measure, "then"):
        table.add_column(column, justify="right" if column == measure else "left")
    for answer, entries in zip(answers, ranked, strict=True):
        others = ", ".join(f"{other['class']} {other[measure]:.2f}" for other in entries[1:4])
        table.add_row(Text(answer["image"]), Text(entries[0]["class"]), f"{entries[0][measure]:.3f}", Text(others))
    yield table


def listing_table(what: str, rows: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """What there is to choose from."""
    if what == "models":
        yield from (Text(row["name"]) for row in rows)
        return
    table = Table()
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text(_plain(value)) for value in row.values()))
    yield table


def demo_table(summary: dict[str, Any], out: Path, title: str, unit: str) -> Iterator[Any]:
    """A demo's comparison by its score, which comes first in each row."""
    table = Table(title=f"{title}: {unit} (%) over seeds, mean ± standard deviation")
    for column in ("", "last epoch", "best epoch", "parameters", "bytes", "seconds a run"):
        table.add_column(column, justify="left" if not column else "right")
    for name, row in summary.items():
        score = row[next(iter(row))]
        cells = [f"{score[when]['mean']:.1f} ± {score[when]['std']:.1f}" for when in ("last", "best")]
        table.add_row(name, *cells, f"{row['params']:,}", f"{row['bytes']:,}", f"{row['seconds']:.1f}")
    yield table
    yield f"Runs, students and summary.json are in {out}."
    if (out / "overlays").is_dir():
        yield f"What each of them sees: {out}/overlays"
    yield f"open {out}/report.html"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return "" if value is None else str(value)


def export_table(result: Mapping[str, Any]) -> Iterator[Any]:
    """What an export is, and how far it is from the student."""
    height, width = result["input"]["size"]
    facts = {
        "folder": result["folder"],
        "format": f"{result['format']}, {result['precision']}",
        "input": f"uint8 [{result['input']['batch'] or 'any'}, 3, {height}, {width}]",
        "files": "\n".join(f"{name} {file['bytes']:,} bytes" for name, file in result["files"].items()),
        **{name.replace("_", " "): str(value) for name, value in result["notes"].items()},
    }
    if result["calibration"] is not None:
        kept = result["calibration"]["kept_in_float"]
        facts["calibration"] = f"{result['calibration']['method']} on {result['calibration']['images']} training images"
        facts["kept in float"] = ", ".join(kept) or "nothing"
    yield from facts_table({**facts, **agreement_facts(result["agreement"])})
    if not result["verified"]:
        yield "Not verified: its runtime does not run here. Copy the folder there: counterpoise verify FOLDER"


def agreement_facts(agreement: Mapping[str, Any] | None) -> dict[str, str]:
    """How an export and its student agree, by name."""
    if agreement is None:
        return {"compared on": "generated pictures only; give --data"}
    facts = {
        "compared on": f"{agreement['images']:,} validation images",
        "largest difference": f"{agreement['largest_difference']:.2g} of logits up to {agreement['largest_logit']:.3g}",
        "same answers": f"{agreement['same']:.3f}% of {agreement['positions']:,}",
    }
    if agreement["student"] is not None:
        low, high = agreement["interval"]
        facts[agreement["metric"]] = (
            f"{agreement['student']:.2f} -> {agreement['export']:.2f}, a loss of {agreement['loss']:.2f} "
            f"({low:.2f} to {high:.2f})"
        )
    return facts


def verify_table(result: Mapping[str, Any]) -> Iterator[Any]:
    """What `verify` found to be as it was."""
    facts = {"folder": result["folder"]}
    facts |= {
        name: f"{file['bytes']:,} bytes, sha256 {file['sha256'][:12]}..." for name, file in result["files"].items()
    }
    for whose, difference in result.get("reference", {}).items():
        there = "the student" if whose == "student" else "itself where it was made"
        facts[f"difference to {there}"] = f"{difference:.2g}"
    if result.get("agreement") is not None:
        facts |= agreement_facts(result["agreement"])
    facts |= {name: f"{value:.2f}" for name, value in result.get("report", {}).items()}
    yield from facts_table(facts)
    yield "As described."


def site_lines(made: Mapping[str, Any]) -> Iterator[Any]:
    """What a site holds."""
    exports = ", ".join(f"{precision} {size / 1e3:,.0f} KB" for precision, size in made["exports"].items())
    sizes = f"{made['bytes'] / 1e6:.1f} MB; a first visit fetches {made['first_visit_bytes'] / 1e6:.1f} MB"
    yield Text(f"Site: {made['site']} ({sizes}, the network's part of it: {exports})")
    yield from (Text(note) for note in made["notes"])
