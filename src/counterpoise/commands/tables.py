"""Results as tables for a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from counterpoise.commands.case_tables import by_case_tables
from counterpoise.system.grid import Grid, names, numbers, texts, wrapped

_UNBOUNDED = 10_000
"""Columns of what is no terminal, such as a file: nothing needs to be broken there."""


def print_all(renderables: Iterable[Any]) -> None:
    """Print tables and lines. Names of files and classes are printed as they are, [brackets] and :words: included."""
    console = Console(markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _UNBOUNDED
    for renderable in renderables:
        if isinstance(renderable, str | Text):
            renderable = Text(
                "\n".join(line for part in str(renderable).split("\n") for line in wrapped(part, console.width))
            )
            console.print(renderable, soft_wrap=True)
        else:
            console.print(renderable, crop=False)
            console.print()


def facts_table(facts: Mapping[str, Any]) -> Iterator[Any]:
    """Names and values."""
    grid = Grid("", [*names(""), *texts("")], header=False)
    for name, value in facts.items():
        grid.add(name, f"{value:,}" if isinstance(value, int) else str(value))
    yield grid


def result_table(result: dict[str, Any]) -> Iterator[Any]:
    """What came out of a run."""
    metrics = [name for name in result["last"] if name != "epoch"]
    grid = Grid(f"Run {result['folder']}", [*names(""), *numbers("epoch", *metrics)])
    for row in ("last", "best", "teacher"):
        if result[row]:
            scores = ["-" if name not in result[row] else f"{result[row][name]:.2f}" for name in metrics]
            grid.add(row, str(result[row].get("epoch", "")), *scores)
    yield grid
    yield (
        f"{result['parameters']:,} parameters, {result['bytes']:,} bytes, {result['seconds']:.1f} s, "
        f"{result['images_per_second']:,.0f} images/s"
    )
    if result.get("advice"):
        yield Text(result["advice"])
    if result["corrupt"]:
        yield f"{result['corrupt']} images could not be read and were left out: see {result['folder']}/summary.json"
    yield f"Student: {result['folder']}/student"
    if result.get("note"):
        yield Text(result["note"])


def report_tables(report: dict[str, Any]) -> Iterator[Any]:
    """What an evaluation found."""
    grid = Grid(f"{report['images']:,} images", [*names("metric"), *numbers("value")])
    for name, value in report.items():
        if isinstance(value, float):
            grid.add(name, f"{value:.4f}" if name == "calibration_error" else f"{value:.2f}")
        elif value is None:
            grid.add(name, "-")
    yield grid
    rows = report.get("per_class", [])
    if rows:
        classes = Grid("by class", [*names("class"), *numbers(*(name for name in rows[0] if name != "class"))])
        for row in rows:
            classes.add(row["class"], *(_cell(value) for name, value in row.items() if name != "class"))
        yield classes
    if "by_case" in report:
        yield from by_case_tables(report)
    yield from _trained_on(report)
    yield from report.get("notes", [])
    if report.get("absent"):
        yield f"Never in the masks, so that no score says how well it is known: {', '.join(report['absent'])}"
    if report.get("corrupt"):
        yield f"{len(report['corrupt'])} images could not be read: {', '.join(report['corrupt'][:5])}"


def _trained_on(result: Mapping[str, Any]) -> Iterator[str]:
    if result.get("trained_on"):
        yield (
            f"The student was trained on {result['trained_on']:,} of these images: these are no numbers of images that "
            "are new to it."
        )


def check_lines(checked: Mapping[str, Any]) -> Iterator[Any]:
    """What there is to know of a data set, and what is wrong with it."""
    yield from (line for line in (checked["found"] or {"said": []})["said"])
    for problem in checked["problems"]:
        yield (f"\n{problem['severity']}: {problem['what']}")
        if problem["way_out"]:
            yield (f"  {problem['way_out']}")
        yield from ((f"  - {place}") for place in problem["where"])
        if problem["count"] > len(problem["where"]):
            yield (f"  - and {problem['count'] - len(problem['where']):,} more")
    yield Text("" if checked["problems"] else f"Nothing is wrong with it, as data of source {checked['source']}.")
    yield from (Text(line) for line in (checked["rehearsal"] or {"said": []})["said"])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def gauge_table(result: dict[str, Any]) -> Iterator[Any]:
    """The balance gauge."""
    columns = numbers("forward KL", "forward %", "reverse KL", "reverse %", "teacher gives %", "student gives %")
    grid = Grid(f"{result['positions']:,} positions: classes by the teacher's ranking", [*names("rank"), *columns])
    for band in result["bands"]:
        divergences = [
            cell
            for name in ("forward", "reverse")
            for cell in (f"{band[f'{name}_kl']:.4f}", f"{100 * band[f'{name}_share']:.1f}")
        ]
        grid.add(band["ranks"], *divergences, *(f"{band[f'{side}_mass']:.2f}" for side in ("teacher", "student")))
    masses = (sum(band[f"{side}_mass"] for band in result["bands"]) for side in ("teacher", "student"))
    divergences = [f"{result['forward_kl']:.4f}", "100.0", f"{result['reverse_kl']:.4f}", "100.0"]
    grid.add("all", *divergences, *(f"{mass:.0f}" for mass in masses))
    yield grid
    agreement = result["agreement"]
    five = f", the teacher's first among five {agreement['top5']:.2f}%" if "top5" in agreement else ""
    yield f"Agreement: top-1 {agreement['top1']:.2f}%{five}"
    for name, scores in result.get("calibration", {}).items():
        what = f"top-1 {scores['top1']:.2f}%" if "top1" in scores else f"labels told rightly {scores['labels']:.2f}%"
        yield f"{name}: {what}, calibration error {scores['calibration_error']:.4f}"
    yield result["summary"]
    yield from _trained_on(result)
    if result.get("corrupt"):
        yield f"{len(result['corrupt'])} images could not be read: {', '.join(result['corrupt'][:5])}"


def prediction_table(answers: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """What a student says of pictures."""
    if any("labels" in answer for answer in answers):
        yield _labels_table(answers)
        return
    ranked = [answer.get("top") or answer.get("classes") or [] for answer in answers]
    measure = next(
        (key for entries in ranked for key in (entries or [{}])[0] if key != "class"), ""
    )  # probability, or share
    known = any("truth" in answer for answer in answers)
    left = any("unsure" in answer for answer in answers)  # of the pixels of a scene
    further = [*texts("then"), *numbers(*(["unsure"] if left else [])), *texts(*(["truth"] if known else []))]
    grid = Grid("", [*names("image"), *texts("class"), *numbers(measure), *further])
    for answer, entries in zip(answers, ranked, strict=True):
        last = [f"{answer['unsure']:.3f}" if "unsure" in answer else ""] if left else []
        last += [str(answer.get("truth", ""))] if known else []
        if not entries:
            grid.add(answer["image"], "not sure", "", "", *last)
            continue
        others = ", ".join(f"{other['class']} {other[measure]:.2f}" for other in entries[1:4])
        said = entries[0]["class"] if answer.get("sure", True) else f"not sure: {', '.join(answer['set'])}?"
        grid.add(answer["image"], said, f"{entries[0][measure]:.3f}", others, *last)
    yield grid
    painted = {str(Path(answer["overlay"]).parent) for answer in answers if "overlay" in answer}
    volumes = [str(path) for answer in answers if "slices" in answer for path in _masks_of(answer)]
    yield from (f"Mask: {path}" for path in volumes)
    yield from (f"Masks and sheets are in {folder}" for folder in painted)


def _masks_of(answer: dict[str, Any]) -> list[str]:
    return [answer["mask"]] if "mask" in answer else answer.get("masks", [])


def _labels_table(answers: Sequence[dict[str, Any]]) -> Grid:
    """All labels of each picture, with their probabilities."""
    known = any("truth" in answer for answer in answers)
    grid = Grid("", [*names("image"), *texts("labels", *(["truth"] if known else []))])
    for answer in answers:
        told = ", ".join(f"{label['class']} {label['probability']:.2f}" for label in answer["labels"]) or "-"
        truth = [", ".join(answer["truth"]) if "truth" in answer else ""] if known else []
        grid.add(answer["image"], told, *truth)
    return grid


def listing_table(what: str, rows: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """What there is to choose from."""
    if what == "models":
        yield from (row["name"] for row in rows)
        return
    first, *others = rows[0]
    grid = Grid("", [*names(first), *texts(*others)])
    for row in rows:
        grid.add(*(_plain(value) for value in row.values()))
    yield grid


def demo_table(summary: dict[str, Any], out: Path, title: str, unit: str) -> Iterator[Any]:
    """A demo's comparison by its score, which comes first in each row."""
    by_case = [name for name in next(iter(summary.values())).get("by_case", ()) if name != "cases"]
    columns = numbers("last epoch", "best epoch", *by_case, "parameters", "bytes", "seconds a run")
    over = "folds" if by_case else "seeds"
    grid = Grid(f"{title}: {unit} (%) over {over}, mean ± standard deviation", [*names(""), *columns])
    for name, row in summary.items():
        score = row[next(iter(row))]
        spread = [score["last"], score["best"], *(row["by_case"][one] for one in by_case)]
        cells = ["" if one is None else f"{one['mean']:.1f} ± {one['std']:.1f}" for one in spread]
        grid.add(name, *cells, f"{row['params']:,}", f"{row['bytes']:,}", f"{row['seconds']:.1f}")
    yield grid
    if by_case:
        cases = next(iter(summary.values()))["by_case"]["cases"]
        yield f"{', '.join(by_case)}: over {cases} cases, each held out once, of what is no background."
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
    edges = "any, any" if result["input"].get("any_size") else f"{height}, {width}"
    channels = 3 if result["input"]["channels"] == "RGB" else result["input"]["channels"]
    facts = {
        "folder": result["folder"],
        "format": f"{result['format']}, {result['precision']}",
        "input": f"uint8 [{result['input']['batch'] or 'any'}, {channels}, {edges}]",
        **({"window": "slides over pictures of any size, in run.py"} if result["input"].get("window") else {}),
        "files": "\n".join(f"{name} {file['bytes']:,} bytes" for name, file in result["files"].items()),
        **{name.replace("_", " "): str(value) for name, value in result["notes"].items()},
    }
    if result["calibration"] is not None:
        kept = result["calibration"]["kept_in_float"]
        facts["calibration"] = f"{result['calibration']['method']} on {result['calibration']['images']} training images"
        facts["kept in float"] = ", ".join(kept) or "nothing"
        if "without" in result["calibration"]:
            facts["without them"] = result["calibration"]["without"]
    yield from facts_table({**facts, **agreement_facts(result["agreement"])})
    yield from _trained_on(result["agreement"] or {})
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
    if agreement.get("resized"):
        facts["fed resized"] = (
            f"{agreement['resized']:,} pictures, which the student sees at their own size; of the same pixels "
            f"{agreement['converted']:.3f}% of the answers are the same"
        )
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
    yield from _trained_on({**(result.get("agreement") or {}), **result})
    yield from result.get("notes", [])
    yield "As described."


def site_lines(facts: Mapping[str, Any]) -> Iterator[Any]:
    """What a site holds."""
    exports = ", ".join(f"{precision} {size / 1e3:,.0f} KB" for precision, size in facts["exports"].items())
    sizes = f"{facts['bytes'] / 1e6:.1f} MB; a first visit fetches {facts['first_visit_bytes'] / 1e6:.1f} MB"
    yield (f"Site: {facts['site']} ({sizes}, the network's part of it: {exports})")
    yield from facts["notes"]
