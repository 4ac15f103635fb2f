"""From what was read and found to one file of HTML that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from counterpoise import tasks
from counterpoise.engine.export_student import versions
from counterpoise.engine.student_epochs import Epoch
from counterpoise.errors import CounterpoiseError
from counterpoise.pages.report import answer, comparison, curves, deployment, provenance, words
from counterpoise.pages.report.charts import Chart, by_class, reliability, risk
from counterpoise.pages.report.charts import cases as by_case
from counterpoise.pages.report.methods import Claim, Method, group, main
from counterpoise.pages.report.reading import Reading, read

GENERATOR = "counterpoise report"
CLASSES = 24
"""Classes in a chart; the table has all."""

# What Observable Plot puts into each chart; without its hash the policy would keep it out.
_PLOT_STYLE = """:where(.plot) {
  --plot-background: white;
  display: block;
  height: auto;
  height: intrinsic;
  max-width: 100%;
}
:where(.plot text),
:where(.plot tspan) {
  white-space: pre;
}"""


def headline(readings: Sequence[Reading]) -> str:
    """The metric that is compared: that of the runs' task, or whatever they log first."""
    for reading in readings:
        try:
            return tasks.leading(tasks.get(reading.task).headline, reading.scores)
        except CounterpoiseError:
            continue
    return next((name for reading in readings for name in reading.scores), "top1")


def subject(
    folders: Sequence[Path], claimed: Claim = None, epoch: Epoch | None = None
) -> tuple[list[Method], Method, Reading, str]:
    """All methods of run folders, that which a page is about, its middle run, and the metric."""
    readings = [read(folder, epoch) for folder in folders]
    methods = group(readings, claimed)
    metric = headline(readings)
    chosen = main(methods, claimed)
    return methods, chosen, chosen.typical(metric), metric


def render(
    run_folders: Sequence[str | Path],
    *,
    findings: Mapping[str, Any] | None = None,
    compared: Path | None = None,
    shipped: Sequence[Path] = (),
    command: str = "",
    updates: tuple[str, str] | None = None,
    epoch: Epoch | None = None,
) -> str:
    """The page of one or several runs, whatever state they are in.

    Args:
        run_folders: one or more; they are only read, and nothing outside them is.
        findings: of `findings.gather.gather`; without, the page has what the folders tell.
        compared: folder of `counterpoise compare`, for its tables.
        shipped: files of exports, measurements and candidates, as `deployment.find` has them.
        command: what makes the page again.
        updates: an address that the page asks every two seconds, from where it was loaded, and the text that is there
            now; the page loads itself anew when it has changed. For a server that watches a run.
        epoch: whose students it is about: "last" or "best"; default: those that ship.
    """
    claimed = comparison.claim(compared)
    methods, chosen, reading, metric = subject([Path(folder) for folder in run_folders], claimed, epoch)
    found = dict(findings or {})
    lead = answer.answer(methods, chosen, reading, metric, found, claimed)
    origin = provenance.provenance(reading)
    notes = [*reading.missing, *found.get("missing", []), *reading.remarks]
    for method in methods:
        for run in method.runs:
            if run is not reading:
                notes += [f"{run.name}: {note}" for note in (*run.missing, *run.remarks)]
    if findings is None:
        notes.append("The student was not asked for its answers: no pictures, no confusions, no gauge.")
    shown = deployment.deployment(
        shipped, lead["rows"], (reading.folder, reading.scores.get(metric)), found.get("latency", {}), metric
    )
    if not shown["there"]:  # no section that could say it
        notes += shown["missing"]
    context = {
        "title": "".join(part for part, _ in lead["words"]),
        "task": reading.task,
        "run": reading,
        "methods": methods,
        "chosen": chosen,
        "answer": lead,
        "evidence": answer.evidence(lead["differences"][:3]),
        "notes": notes,
        "curves": curves.curves(methods, reading, metric),
        "time": curves.time_spent(reading),
        "balance": curves.balance(found, chosen, methods),
        "findings": found,
        "details": _details(found, chosen, methods, reading.task),
        "comparison": comparison.comparison(methods, lead["differences"], compared),
        "deployment": shown,
        "provenance": origin,
        "command": command,
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "version": versions().get("counterpoise", ""),
        "generator": GENERATOR,
        "style": _asset("report.css"),
        "scripts": [_asset("plot.min.js"), _asset("report.js")],
        "policy": policy(updates is not None),
        "updates": updates,
    }
    page: str = _environment().get_template("page.html.jinja").render(context)
    return page


def policy(updates: bool) -> str:
    """The page's content security policy: its own scripts and styles, embedded pictures, nothing else."""
    scripts = " ".join(_hash(_asset(name)) for name in ("plot.min.js", "report.js"))
    styles = " ".join(_hash(text) for text in (_asset("report.css"), _PLOT_STYLE))
    connect = "connect-src 'self'; " if updates else ""
    return (
        f"default-src 'none'; img-src data:; {connect}script-src {scripts}; style-src {styles}; "
        "base-uri 'none'; form-action 'none'"
    )


_BY_CLASS = {
    "recall": ("Recall", " How many of a class's images are found."),
    "iou": ("Intersection over union", ""),
    "average_precision": ("Average precision", " How well images are ranked by each label."),
}
"""What is shown of each class, by its key in the rows of the findings, and what it means."""


def _details(
    findings: Mapping[str, Any], chosen: Method, methods: Sequence[Method], task: str
) -> dict[str, Any] | None:
    """Charts of the findings, whatever the task, and the template that shows them."""
    if not findings.get("labeled"):
        return None
    colors = {method.name: method.color for method in methods}
    own = chosen.name if len(methods) > 1 else "Student"
    shown = {"student": (own, "student"), "teacher": ("Teacher", "teacher")}
    charts: dict[str, Chart] = {}
    sides = [(*shown[name], bins) for name, bins in findings.get("reliability", {}).items() if name in shown]
    risks = [(*shown[name], found) for name, found in findings.get("risk", {}).items() if name in shown]
    if sides:
        charts["reliability"] = reliability(sides, any(found["promise"] for *_, found in risks))
    if risks:
        charts["risk"] = risk(risks, findings.get("promised_on", False))
    rows = findings.get("per_class") or []
    key = next((key for key in _BY_CLASS if rows and isinstance(rows[0].get(key), Mapping)), "iou")
    known = [
        {"class": words.plain(row["class"]), "values": row[key]} for row in rows if row[key].get("student") is not None
    ]
    everyone = [(name, *shown.get(name, (name, colors.get(name, "alone")))) for name in (rows[0][key] if rows else {})]
    columns = [side for side in everyone if side[0] in shown or colors.get(side[0]) == "alone"]
    note = f" The {CLASSES} worst of {len(known):,}; the table has all." if len(known) > CLASSES else ""
    if known:
        what, meaning = _BY_CLASS[key]
        charts["classes"] = by_class(known[:CLASSES], columns, what, meaning + note)
    if spread := findings.get("cases", {}).get("dice"):
        charts["cases"] = by_case([(title, color, spread[name]) for name, title, color in columns if spread.get(name)])
    return {"template": f"findings/{task}.html.jinja", "charts": charts, "key": key, "columns": everyone, "own": own}


@cache
def _asset(name: str) -> str:
    return resources.files("counterpoise.pages.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _finite(values: Any) -> Any:
    """Values without what JSON has no form for."""
    if isinstance(values, Mapping):
        return {str(key): _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from jinja2.utils import htmlsafe_json_dumps

    environment = Environment(
        loader=PackageLoader("counterpoise.pages.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "short": words.short,
        "number": words.number,
        "signed": words.signed,
        "size": words.size,
        "counted": words.counted,
        "ms": words.milliseconds,
        "first_up": words.first_up,
        "data": lambda values: htmlsafe_json_dumps(_finite(values), separators=(",", ":")),
    }
    return environment
