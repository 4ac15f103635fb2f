"""What a command has written, but for what a clock says."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

CLOCK = {
    *("seconds", "images_per_second", "stages", "readers", "advice", "compile_seconds", "train_seconds"),
    *("metrics_bytes", "counterpoise_sha256"),  # of what has such in it
    *("latency_ms", "latency_low_ms", "latency_high_ms", "p95_ms", "peak_mb", "cases"),  # as measured on a runtime
}
"""Keys and columns that another day would fill otherwise."""
FASTER = (("frontier", "yes"), ("frontier", "no"))
"""Whether a candidate of `fit` is the fastest for its score."""
OTHERS = {".lock", "optuna.journal", "frontier.png", "frontier.svg"}
"""Files that are locks, or show what a clock says."""


def contents(folder: Path) -> dict[str, Any]:
    """All files below a folder by their paths: bytes, or values where a clock has a say. `OTHERS` are no contents."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in OTHERS:
            found[str(path.relative_to(folder))] = _READERS.get(path.suffix, Path.read_bytes)(path)
    return found


def differences(tried: Mapping[str, Any], whole: Mapping[str, Any]) -> list[str]:
    """Paths that one of them lacks, and those with other contents."""
    lines = [f"{name} is missing" for name in sorted(whole.keys() - tried.keys())]
    lines += [f"{name} is left over" for name in sorted(tried.keys() - whole.keys())]
    return lines + [
        f"{name} differs{_where(tried[name], whole[name])}"
        for name in sorted(whole.keys() & tried.keys())
        if tried[name] != whole[name]
    ]


def _where(one: Any, other: Any) -> str:
    """The way to the first value that differs."""
    if type(one) is not type(other):
        return f": {one!r:.100} and {other!r:.100}"
    if isinstance(one, dict):
        keys = [key for key in [*one, *(other.keys() - one.keys())] if one.get(key, ...) != other.get(key, ...)]
        return f", {keys[0]}{_where(one.get(keys[0], ...), other.get(keys[0], ...))}"
    if isinstance(one, list | tuple) and len(one) == len(other):
        place = next(number for number in range(len(one)) if one[number] != other[number])
        return f", {place}{_where(one[place], other[place])}"
    return "" if isinstance(one, bytes) else f": {one!r:.100} and {other!r:.100}"


def distances(tried: Path, whole: Path) -> list[str]:
    """Of two runs that should be the same but for rounding: what is not."""
    steps, losses = zip(*((_column(out, "step"), _column(out, "loss")) for out in (tried, whole)), strict=True)
    if steps[0] != steps[1]:
        return [f"steps are {steps[0]} and not {steps[1]}"]
    lines = [] if np.allclose(*losses, rtol=1e-3) else [f"losses are {losses[0]} and not {losses[1]}"]
    weights = [load_file(out / "student" / "model.safetensors") for out in (tried, whole)]
    return lines + [
        f"{name} differs by {float(np.abs(value - weights[0][name]).max()):.2g}"
        for name, value in weights[1].items()
        if not np.allclose(weights[0][name], value, rtol=1e-2, atol=1e-3)
    ]


def _column(run: Path, name: str) -> list[Any]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if line["kind"] == "step"]


def _still(value: Any) -> Any:
    """Without what a clock says."""
    if isinstance(value, dict):
        return {key: _still(inner) for key, inner in value.items() if key not in CLOCK and (key, inner) not in FASTER}
    return [_still(inner) for inner in value] if isinstance(value, list) else value


def _json(path: Path) -> Any:
    return _still(json.loads(path.read_bytes()))


def _lines(path: Path) -> Any:
    return [_still(json.loads(line)) for line in path.read_bytes().splitlines()]


def _table(path: Path) -> Any:
    with path.open(newline="", encoding="utf-8") as file:
        return [_still(row) for row in csv.DictReader(file)]


def _page(path: Path) -> Any:
    """A page of text, its tables without the columns of a clock."""
    lines, table = [], False
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = line.split("|")
        if not table:
            timed = {place for place, cell in enumerate(cells) if cell.strip() in ("seconds", "seconds a run")}
        table = len(cells) > 1
        lines.append([cell for place, cell in enumerate(cells) if not table or place not in timed])
    return lines


def _tensors(path: Path) -> Any:
    """A checkpoint keeps times in its header."""
    with safe_open(path, "np") as file:
        header = {
            name: _still(json.loads(text)) if text[:1] == "{" else text
            for name, text in (file.metadata() or {}).items()
        }
    tensors = {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in load_file(path).items()}
    return _still(header), tensors


_READERS: dict[str, Callable[[Path], Any]] = {
    ".json": _json,
    ".jsonl": _lines,
    ".csv": _table,
    ".md": _page,
    ".safetensors": _tensors,
}
