"""`counterpoise measure`: what students and exports cost on this machine, or on a phone."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from counterpoise.config.options import Epoch, keywords
from counterpoise.deploy import base, folder
from counterpoise.deploy.measuring import phones, subjects, timing
from counterpoise.deploy.measuring.subjects import Subject
from counterpoise.deploy.options import Measure
from counterpoise.errors import ConfigError
from counterpoise.system.grid import Grid, names, numbers, texts
from counterpoise.system.machine import processor

BUSY = 1.15
"""Where latency with one thread is so many times the processor's own time, somebody else was at work."""


@keywords(Measure)
def measure(paths: Sequence[str | Path], asked: Measure) -> dict[str, Any]:
    """What students and exports cost on this machine, measured in turn, each in a fresh process.

    Args:
        paths: student folders (run by PyTorch), runs, exports, and ONNX files of any origin.

    Returns:
        {"machine", "settings", "measured"}: of each thing name, runtime, versions, precision, bytes, files, parameters,
        multiply_adds, and a case each number of threads and batch (see `timing.Case`).

    Raises:
        ConfigError: nothing that could be measured.
        ModelError: a folder that is damaged.
        MissingExtraError: a runtime that is not installed.
        MeasureError: what its runtime cannot open or run.
    """
    settings = timing.Settings(
        threads=tuple(dict.fromkeys(asked.threads or (1, timing.cores()))),
        batches=tuple(dict.fromkeys(asked.batches)),
        rounds=asked.rounds,
        seconds=asked.seconds,
    )
    found = find(paths, asked.size, asked.model, asked.epoch)
    load = busy()
    cases = timing.time_all(found, settings, asked.tell)
    return {
        "machine": {**machine(), "load_before": load, "load_after": busy()},
        "settings": {"rounds": asked.rounds, "seconds": asked.seconds, "warm_up": settings.warm_up},
        "measured": [
            {**subject.values(), "cases": [asdict(case) for case in own]}
            for subject, own in zip(found, cases, strict=True)
        ],
    }


def bundle(
    paths: Sequence[str | Path], out: str | Path, *, threads: Sequence[int] = (1,), rounds: int = 9
) -> list[Path]:
    """Write a folder to take to a phone: exports, and the commands that measure them there.

    Raises:
        ConfigError: an export that no phone's benchmark tool takes.
        RunError: the folder holds something.
    """
    timing.Settings(threads=tuple(threads), rounds=rounds)
    return phones.write_bundle(find(paths, None), Path(out), threads=threads, rounds=rounds)


def find(
    paths: Sequence[str | Path],
    size: tuple[int, int] | None,
    model: str | None = None,
    epoch: Epoch = None,
) -> list[Subject]:
    """What is meant by paths. Raises as `measure` does."""
    if not paths:
        raise ConfigError("measure needs something to measure: a student folder, a run, an export or an ONNX file.")
    found = [_subject(path, size, model, epoch) for path in map(Path, paths)]
    if epoch is not None and all(subject.runtime != subjects.PYTORCH for subject in found):
        raise ConfigError(f"epoch is {epoch}, and there is no run here: an export is of the epoch it was made from.")
    return found


def _subject(path: Path, size: tuple[int, int] | None, model: str | None, epoch: Epoch) -> Subject:
    if folder.is_export(path):
        described = folder.read(path)
        free = described.input.any_size and size is not None
        if size is not None and not free and size != described.input.size:
            height, width = described.input.size
            raise ConfigError(f"{path} takes pictures of {height} x {width}, got --size {size[0]} {size[1]}.")
        return subjects.export(
            str(path),
            base.find(described.format),
            path,
            precision=described.precision,
            size=size or described.input.size,
            batch=described.input.batch,
            channels=described.input.count,
            parameters=described.parameters,
            multiply_adds=None if free else described.notes.get("multiply_adds"),
            window=described.input.window is not None,
        )
    if path.suffix == ".onnx" and path.exists() and not path.is_dir():  # a pipe is named there
        return subjects.onnx_file(path, size)
    if path.is_file():
        raise ConfigError(
            f"{path} cannot be measured by itself: give the export folder that it lies in. Of files, those of ONNX "
            "alone say what they take."
        )
    return subjects.student(path, size, model, epoch)


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {
        "name": platform.node(),
        "processor": processor(),
        "cores": timing.cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def busy() -> float | None:
    """Processes that wanted a processor in the last minute, on average; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def tables(result: Mapping[str, Any]) -> Iterator[Any]:
    """The result for a terminal."""
    yield where(result["machine"])
    facts = Grid(
        "what it is", [*names(""), *texts("runtime", "precision"), *numbers("MB", "parameters", "multiply-adds")]
    )
    for row in result["measured"]:
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        facts.add(
            row["name"],
            f"{row['runtime']}{f' ({versions})' if versions else ''}",
            row["precision"] or "-",
            _number(None if row["bytes"] is None else row["bytes"] / 1e6, ".3f"),
            _number(row["parameters"], ","),
            _number(row["multiply_adds"], ","),
        )
    yield facts
    cases = [case for row in result["measured"] for case in row["cases"]]
    columns = {"median ms": "median_ms", "95% interval": "low_ms", "p95": "p95_ms", "spread": "spread",
               "CPU ms": "processor_ms", "peak MB": "peak_mb", "mJ": "millijoules"}  # fmt: skip
    known = {"low_ms", *(key for case in cases for key, value in case.items() if value is not None)}
    shown = {title: key for title, key in columns.items() if key in known}
    costs = Grid("what a call costs", [*names(""), *numbers("cores", "batch", *shown)])
    for row in result["measured"]:
        for case in row["cases"]:
            cells = {key: _number(case[key], ".0%" if key == "spread" else ".3g") for key in shown.values()}
            if case["low_ms"] is not None:
                cells["low_ms"] = f"{case['low_ms']:.3g}-{case['high_ms']:.3g}"
            costs.add(row["name"], str(case["threads"]), str(case["batch"]), *cells.values())
    yield costs
    for row in result["measured"]:
        if row.get("window"):
            yield f"{row['name']}: {of_window(row['size'])}"
    alone = [case for case in cases if case["threads"] == 1 and case["processor_ms"] is not None]
    disturbed = [case for case in alone if case["median_ms"] > BUSY * case["processor_ms"]]
    if disturbed:
        worst = max(case["median_ms"] / case["processor_ms"] for case in disturbed)
        yield (
            f"The machine was busy with something else: up to {worst:.1f} times the processor's own time passed. All "
            "were measured in turn, so that they compare; an idle machine will be faster."
        )
    if any(case["low_ms"] is None for case in cases):
        yield (f"Fewer than {timing.FEWEST_ROUNDS} rounds have no interval.")


def of_window(size: Sequence[int] | None) -> str:
    """What times and multiply-adds are of, where a picture is answered window by window."""
    edges = "" if size is None else f" of {size[0]} x {size[1]}"
    return f"times and multiply-adds are those of one window{edges}; a picture takes as many as slide over it."


def where(machine: Mapping[str, Any]) -> str:
    """A machine in a line."""
    if "processor" not in machine:
        return str(machine["name"])
    load = machine.get("load_before")
    return f"{machine['processor']}, {machine['cores']} cores, {machine['system']}" + (
        "" if load is None else f"; load {load:.1f} before, {machine['load_after']:.1f} after"
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
