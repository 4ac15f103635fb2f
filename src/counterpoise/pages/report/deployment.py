"""What the student costs once it is shipped: exports, what was measured of them, and the candidates of `fit`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise.pages.report import charts
from counterpoise.pages.report.charts import Chart
from counterpoise.pages.report.reading import LARGEST, below, finite, mapping, numbers, spelled
from counterpoise.pages.report.reading import table as read_table
from counterpoise.pages.report.words import metric as in_words
from counterpoise.pages.report.words import plain
from counterpoise.system import documents
from counterpoise.system.measurements import BESIDE, is_of

EXPORT, FRONTIER = "export.json", "frontier.csv"
CANDIDATES = 200
"""Rows of a table of candidates."""
SERIES = ("series-4", "series-5", "series-6", "series-8", "other-4", "series-2")
"""Colors of formats; those of the student, KD and the teacher are taken."""


def find(path: Path) -> list[Path]:
    """Files that tell of exports, measurements and candidates: the path itself, or those below a folder."""
    if path.is_file():
        return [path] if path.suffix in (".json", ".csv") else []
    return [
        file
        for file in below(path)
        if not file.is_dir()
        and (file.name in (EXPORT, FRONTIER) or (file.name.startswith("measure") and file.suffix == ".json"))
    ]


def deployment(
    files: Sequence[Path],
    rows: Sequence[Mapping[str, Any]],
    own: tuple[Path, float | None],
    latency: Mapping[str, Any],
    metric: str,
) -> dict[str, Any]:
    """Table and charts of everything that can be shipped, and what is missing.

    Args:
        files: as `find` has them.
        rows: of the answer's table: the networks as PyTorch runs them.
        own: folder and metric of the run that is shipped, which need not be the mean of its method.
        latency: of the findings.
    """
    missing: list[str] = []
    exports, measured, candidates, machines = [], [], [], []
    for file in files:
        if file.name == EXPORT:
            exports += _export(file, missing)
        elif file.suffix == ".csv":
            candidates += _candidates(file, metric, missing)
        else:
            found, machine = _measured(file, missing)
            measured += found
            machines += [machine] if machine else []
    networks = _networks(rows, own, latency)
    _join([*exports, *(row for row in networks if "folder" in row)], measured)
    unclaimed = [row for row in measured if not row.get("claimed")]
    shown = [*networks, *exports, *unclaimed, *candidates]
    kinds = dict.fromkeys(row["kind"] for row in shown if not row["color"])
    colors = dict(zip(kinds, SERIES, strict=False))
    for row in shown:
        row["color"] = row["color"] or colors.get(row["kind"], "ink")
    if not exports:
        missing.append("No export was found: counterpoise export makes them, for phones, browsers and servers.")
    if not measured and not candidates:
        missing.append("Nothing was measured on the runtime that will run it: counterpoise measure does that.")
    return {
        "rows": shown,
        "charts": _charts(shown, metric),
        "machines": list(dict.fromkeys(machines)),
        "latency": latency,
        "missing": missing,
        "there": bool(exports or measured or candidates or any(row["ms"] for row in networks)),
    }


def _networks(
    rows: Sequence[Mapping[str, Any]], own: tuple[Path, float | None], latency: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Student and teacher in PyTorch, where their time was taken."""
    return [
        {
            "name": own[0].resolve().name if row["chosen"] else row["name"],
            "kind": str(latency.get("runtime", "PyTorch")),
            "precision": "float32",
            "value": own[1] if row["chosen"] else row["mean"],
            "bytes": row["bytes"],
            "ms": row["ms"],
            "color": row["color"],
            **({"folder": own[0]} if row["chosen"] else {}),
        }
        for row in rows
        if row["chosen"] or row["role"] == "teacher"
    ]


def _export(file: Path, missing: list[str]) -> list[dict[str, Any]]:
    values = _json(file, missing)
    if values is None:
        return []
    agreement = mapping(values.get("agreement"))
    sizes = [
        size
        for name, entry in mapping(values.get("files")).items()
        if name not in BESIDE and (size := finite(mapping(entry).get("bytes"))) is not None
    ]
    return [
        {
            "name": f"{values.get('format', 'export')} {_precision(values.get('precision'))}"
            + (", a window" if mapping(values.get("input")).get("window") else ""),
            "kind": str(values.get("format", "export")),
            "precision": str(values.get("precision", "")),
            "value": finite(agreement.get("export")),
            "same": finite(agreement.get("same")),
            "images": finite(agreement.get("images")),
            "bytes": sum(sizes) if sizes else None,
            "ms": None,
            "verified": bool(values.get("verified")),
            "folder": file.parent,
            "color": "",
        }
    ]


def _measured(file: Path, missing: list[str]) -> tuple[list[dict[str, Any]], str]:
    """Rows of one picture on one thread, or whatever comes nearest."""
    values = _json(file, missing)
    if values is None or not isinstance(values.get("measured"), list):
        return [], ""
    machine = mapping(values.get("machine"))
    processor = machine.get("processor") or machine.get("name") or machine.get("device") or ""
    rows = []
    for entry in map(mapping, values["measured"]):
        told = entry.get("cases")
        cases = [case for case in map(mapping, told if isinstance(told, list) else []) if "median_ms" in numbers(case)]
        case = min(cases, key=lambda one: [numbers(one).get(key, 1.0) for key in ("batch", "threads")], default={})
        name = f"{entry.get('runtime', '')} {_precision(entry.get('precision'))}".strip() or str(entry.get("name"))
        rows.append(
            {
                "name": (f"{name}, a window" if entry.get("window") else name) + _together(case.get("batch")),
                "entry": entry,
                "kind": str(entry.get("runtime", "")),
                "precision": str(entry.get("precision", "")),
                "value": None,
                "bytes": finite(entry.get("bytes")),
                "ms": finite(case.get("median_ms")),
                "low": finite(case.get("low_ms")),
                "high": finite(case.get("high_ms")),
                "threads": case.get("threads"),
                "batch": case.get("batch"),
                "peak": finite(case.get("peak_mb")),
                "color": "",
            }
        )
    return rows, str(processor)


def _together(batch: Any) -> str:
    """What is added to a name where the time is of several pictures at once."""
    return f", {batch} pictures at once" if isinstance(batch, int) and batch > 1 else ""


def _join(shipped: Iterable[dict[str, Any]], measured: Sequence[dict[str, Any]]) -> None:
    """What lies in a folder gets the time that was measured of it, wherever either has moved to."""
    for one in shipped:
        folder: Path = one["folder"]
        own = [row for row in measured if is_of(row["entry"], folder)]
        if own:
            one |= {key: own[-1][key] for key in ("ms", "low", "high", "threads", "batch", "peak")}
            one["name"] += _together(own[-1]["batch"])
            for row in own:
                row["claimed"] = True


def _candidates(file: Path, metric: str, missing: list[str]) -> list[dict[str, Any]]:
    """Rows of frontier.csv, each with its metric after the most epochs that it was trained for."""
    table = read_table(file, missing, CANDIDATES)
    if table and "candidate" not in table[0]:
        missing.append(f"{file.name} is no table of counterpoise fit.")
        return []
    rows = []
    for line in table:
        reached = {
            int(match[1]): value
            for column, text in line.items()
            if (match := re.fullmatch(rf"{re.escape(metric)}_(\d+)_epochs", column or ""))
            and (value := spelled(text)) is not None
        }
        epochs = max(reached, default=None)
        size = spelled(line.get("megabytes"))
        rows.append(
            {
                "name": line["candidate"] or "candidate",
                "kind": "candidate of fit" + ("" if epochs is None else f", {epochs} epochs"),
                "precision": line.get("precision") or "",
                "value": None if epochs is None else reached[epochs],
                "note": line.get("status") or "",
                "bytes": None if size is None else 1e6 * size,
                "ms": spelled(line.get("latency_ms")),
                "low": spelled(line.get("latency_low_ms")),
                "high": spelled(line.get("latency_high_ms")),
                "color": "",
            }
        )
    return rows


def _charts(rows: Sequence[dict[str, Any]], metric: str) -> list[Chart]:
    found = []
    for id, key, across, unit, factor in (
        ("latency", "ms", "latency", "ms", 1.0),
        ("size", "bytes", "size", "MB", 1e-6),
    ):
        points = [
            {
                "name": plain(row["name"], 30),
                "x": row[key] * factor,
                "y": row["value"],
                "color": row["color"],
            }
            for row in rows
            if row[key] and row["value"] is not None and (key == "bytes" or (row.get("batch") or 1) == 1)
        ]
        if len(points) > 1:
            found.append(charts.cost(id, points, across, unit, f"{in_words(metric)}, %"))
    return found


def _precision(value: Any) -> str:
    return {"float32": "float", "float16": "half", "int8": "8 bits"}.get(str(value), str(value or ""))


def _json(file: Path, missing: list[str]) -> dict[str, Any] | None:
    try:
        values = documents.read_json(file, limit=LARGEST)
    except (OSError, ValueError):
        missing.append(f"{file.parent.name}/{file.name} is damaged or cannot be read.")
        return None
    return values if isinstance(values, dict) else None
