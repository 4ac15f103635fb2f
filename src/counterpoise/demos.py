"""Distillation on images that everyone has: the handwritten digits of scikit-learn."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from counterpoise.errors import ConfigError, RunError

TEACHER = "digits/cnn_32_64"
STUDENT = "digits/cnn_4_8"
TOTAL_WEIGHT = 3.6
"""Weight of the teacher's word, the same for KD and Balance, so that neither wins by a larger one."""

LABELS = {"weight": 1.0}
OBJECTIVES: Mapping[str, Mapping[str, Any]] = {
    "alone": {"cross_entropy": LABELS},
    "kd": {"cross_entropy": LABELS, "forward_kl": {"weight": TOTAL_WEIGHT, "temperature": 2.0}},
    "balance": {
        "cross_entropy": LABELS,
        "balance": {
            "weight": TOTAL_WEIGHT,
            "forward_weight": 0.5,
            "reverse_weight": 0.5,
            "forward_temperature": 2.0,
            "reverse_temperature": 2.0,
        },
    },
}


def demo(
    out: str | Path = "runs/demo", *, seeds: int = 5, overwrite: bool = False, show: bool = False
) -> dict[str, Any]:
    """Train a teacher on 600 digits, then `seeds` students of one small network each alone, with KD, with Balance.

    Args:
        out: folder for the runs and summary.json.
        seeds: students of each kind, at least 2.
        overwrite: replace an older demo in that folder.
        show: progress on stderr.

    Returns:
        {"teacher" | "alone" | "kd" | "balance":
            {"top1": {"last" | "best": {"mean", "std"}}, "params", "bytes", "seconds"}},
        top-1 in percent on the other 1,197 digits, seconds a run; also written to summary.json.

    Raises:
        ConfigError: fewer than two seeds. RunError: the folder holds an older demo, and not `overwrite`.
    """
    import torch

    from counterpoise.engine.trainer import Interrupted
    from counterpoise.files import write_text

    if seeds < 2:
        raise ConfigError(f"seeds: a standard deviation needs at least 2, got {seeds}.")
    out = Path(out)
    if not overwrite and any(out.glob("*/run.yaml")):
        raise RunError(f"{out} holds an older demo. Replace it with --overwrite, or give another --out.")
    console = Console(stderr=True, quiet=not show)
    started = time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as fast for images this small, and the same numbers on any count of cores
    try:
        results = _runs(out, seeds, overwrite, console)
    except Interrupted:  # its advice is to go on with one run, not with the demo
        raise KeyboardInterrupt("Stopped. Start over with --overwrite, or with another --out.") from None
    finally:
        torch.set_num_threads(threads)
    summary = {kind: _row(rows) for kind, rows in results.items()}
    write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    console.print(f"{time.perf_counter() - started:.0f} s in all", highlight=False)
    return summary


def _runs(out: Path, seeds: int, overwrite: bool, console: Console) -> dict[str, list[Any]]:
    """Results by kind, a list over seeds."""
    from counterpoise.api import distill, train

    console.print("training the teacher ...")
    teacher = train(student_run(out / "teacher", TEACHER, 0, 30, OBJECTIVES["alone"]), overwrite=overwrite)
    results: dict[str, list[Any]] = {"teacher": [teacher]}
    for kind, objective in OBJECTIVES.items():
        results[kind] = []
        for seed in range(1, seeds + 1):
            values = student_run(out / f"{kind}-{seed}", STUDENT, seed, 20, objective)
            if kind == "alone":
                result = train(values, overwrite=overwrite)
            else:
                values["teacher"] = {"checkpoint": str(teacher.folder)}
                result = distill(values, overwrite=overwrite)
            results[kind].append(result)
            console.print(f"{kind}, seed {seed}: top-1 {result.last['top1']:.1f}", highlight=False)
    return results


def student_run(out: Path, model: str, seed: int, epochs: int, objective: Mapping[str, Any]) -> dict[str, Any]:
    """The values of one run of the demo."""
    return {
        "out": str(out),
        "seed": seed,
        # Digits are neither mirrored nor cropped: a crop of 8 x 8 pixels loses the digit.
        "data": {
            "source": "digits",
            "options": {"train_size": 600},
            "views": {"crop": "pad", "padding": 1, "flip": False},
        },
        "student": {"model": model},
        "objective": objective,
        "train": {
            "epochs": epochs,
            "batch_size": 32,
            "precision": "fp32",
            "device": "cpu",
            "optimizer": {"learning_rate": 0.05},
            "schedule": {"name": "one_cycle"},
        },
    }


def _row(results: list[Any]) -> dict[str, Any]:
    def spread(when: str) -> dict[str, float]:
        values = [getattr(result, when)["top1"] for result in results]
        return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}

    return {
        "top1": {"last": spread("last"), "best": spread("best")},
        "params": results[0].parameters,
        "bytes": results[0].bytes,
        "seconds": statistics.fmean(result.seconds for result in results),
    }
