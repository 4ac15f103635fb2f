"""What all benchmarks share: interleaved rounds, medians, and the one form in which they report."""

from __future__ import annotations

import argparse
import csv
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from counterpoise.engine.export_student import commit, versions

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Real data beside the repository, where they are there."""


def arguments(description: str, threads: int | None = None) -> argparse.Namespace:
    """--json, --quick and --threads, which are as many as torch takes where `threads` does not say."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout and nothing else")
    parser.add_argument("--quick", action="store_true", help="a first look in under a minute")
    parser.add_argument("--out", type=Path, help="also write the cases to this CSV")
    parser.add_argument("--threads", type=int, default=threads or torch.get_num_threads(), help="CPU threads")
    parsed = parser.parse_args()
    torch.set_num_threads(parsed.threads)
    return parsed


def interleave(
    sides: Mapping[str, Callable[[], Any]],
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each side, `rounds` times in turn, so that a noisy neighbor hits all alike."""
    for _ in range(warmup):
        for side in sides.values():
            side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        names = list(sides) if turn % 2 == 0 else list(reversed(sides))
        for name in names:
            start = clock()
            sides[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(clock() - start)
    return seconds


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over rounds of the ratio within each round."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def report(
    name: str,
    cases: list[dict[str, Any]],
    targets: list[dict[str, Any]],
    as_json: bool,
    out: Path | None = None,
    command: str | None = None,
) -> int:
    """Print a benchmark, and write it to `out`; the exit code is 1 where a target is missed.

    command: what was run, where the benchmark's name does not tell.
    """
    result = {
        "benchmark": name,
        "device": device(),
        "versions": versions(),
        "commit": commit(),
        "cases": cases,
        "targets": targets,
    }
    if out is not None:
        write_csv(out, result if command is None else {**result, "command": command})
    missed = [
        t for t in targets if not (t["value"] >= t["at_least"] if "at_least" in t else t["value"] <= t["at_most"])
    ]
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        print(f"{name} on {result['device']}")
        for case in cases:
            print("  " + "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in case.items()))
        for target in targets:
            bound = f">= {target['at_least']}" if "at_least" in target else f"<= {target['at_most']}"
            print(f"  {target['name']}: {target['value']:.3f} ({bound}) {'MISSED' if target in missed else 'ok'}")
    for target in missed:
        print(f"missed: {target['name']} is {target['value']:.3f}", file=sys.stderr)
    return int(bool(missed))


def write_csv(path: Path, result: Mapping[str, Any]) -> None:
    """One line a case, with the command, the machine, versions and commit."""
    command = f"python benchmarks/{result['benchmark']}.py --out benchmarks/results/{path.name}"
    command = result.get("command", command)
    versions = " ".join(f"{package} {version}" for package, version in result["versions"].items())
    common = {"device": result["device"], "versions": versions, "commit": result["commit"], "command": command}
    rows = [
        {**{k: f"{v:.4g}" if isinstance(v, float) else v for k, v in case.items()}, **common}
        for case in result["cases"]
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def device() -> str:
    """What it ran on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
