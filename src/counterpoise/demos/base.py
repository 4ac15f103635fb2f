"""What demos have in common: a teacher, and students of one small network alone, with KD and with Balance."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from counterpoise import config
from counterpoise.errors import ConfigError, Interrupted, RunError

if TYPE_CHECKING:
    from counterpoise.data.sources.base import Splits
    from counterpoise.engine.trainer import Result

Results = dict[str, list["Result"]]


@dataclass(frozen=True)
class Demo:
    """One comparison.

    Attributes:
        title: what is compared, for the head of a table.
        metric, unit: the score in the results, and its name in words.
        out: folder of the runs, where no other is given.
        seeds: students of each kind, where no other number is given.
        teacher, student: values of the run of the teacher, and of that of every student; seed and out come on top.
        objectives: terms by kind; "alone" is the teacher's, too.
        pictures: draws what there is to see: (folder, data, results); None where numbers are all.
    """

    title: str
    metric: str
    unit: str
    out: str
    seeds: int
    teacher: Mapping[str, Any]
    student: Mapping[str, Any]
    objectives: Mapping[str, Mapping[str, Any]]
    pictures: Callable[[Path, Splits, Results], None] | None = None


def objectives(labels: Mapping[str, Any], weight: float, **dense: Any) -> dict[str, Mapping[str, Any]]:
    """Terms by kind: labels alone, and with the teacher's word of the same weight by KD and by Balance.

    Args:
        labels: the terms that are the teacher's own, too.
        weight: of the teacher's word.
        dense: arguments of both divergences.
    """
    kd = {"weight": weight, "temperature": 2.0, **dense}
    balance = {"weight": weight, "forward_weight": 0.5, "reverse_weight": 0.5}
    balance |= {"forward_temperature": 2.0, "reverse_temperature": 2.0, **dense}
    return {"alone": labels, "kd": {**labels, "forward_kl": kd}, "balance": {**labels, "balance": balance}}


def run(demo: Demo, out: Path, seeds: int, overwrite: bool, show: bool) -> dict[str, Any]:
    """Train all networks of a demo, one after the other; see `counterpoise.demos.demo`."""
    import torch

    from counterpoise.data import sources
    from counterpoise.engine.run_folder import REPORT
    from counterpoise.pages.report.writing import report
    from counterpoise.system.files import write_text

    if seeds < 2:
        raise ConfigError(f"seeds: a standard deviation needs at least 2, got {seeds}.")
    if not overwrite and (any(out.glob("*/run.yaml")) or (out / REPORT).exists()):
        raise RunError(f"{out} holds an older demo. Replace it with --overwrite, or give another --out.")
    console = Console(stderr=True, quiet=not show)
    started = time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as fast for images this small, and the same numbers on any count of cores
    try:
        data = sources.load(config.resolve(demo.teacher).data)  # once for all runs
        results = _results(demo, out, seeds, overwrite, data, console)
        if demo.pictures is not None:
            demo.pictures(out, data, results)
    except Interrupted:  # its advice is to go on with one run, not with the demo
        raise KeyboardInterrupt("Stopped. Start over with --overwrite, or with another --out.") from None
    finally:
        torch.set_num_threads(threads)
    summary = {kind: _row(demo.metric, rows) for kind, rows in results.items()}
    write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    report([out], overwrite=True)
    console.print(f"{time.perf_counter() - started:.0f} s in all", highlight=False)
    return summary


def _results(demo: Demo, out: Path, seeds: int, overwrite: bool, data: Splits, console: Console) -> Results:
    """Results by kind, a list over seeds."""
    from counterpoise.engine.runs import distill, train

    console.print("training the teacher ...")
    values = {**demo.teacher, "objective": demo.objectives["alone"], "seed": 0, "out": str(out / "teacher")}
    teacher = train(values, overwrite=overwrite, data=data)
    console.print(f"teacher: {demo.unit} {teacher.last[demo.metric]:.1f}", highlight=False)
    results = {"teacher": [teacher], **{kind: [] for kind in demo.objectives}}
    for kind, seed in itertools.product(demo.objectives, range(1, seeds + 1)):
        values = {**demo.student, "objective": demo.objectives[kind], "seed": seed, "out": str(out / f"{kind}-{seed}")}
        if kind == "alone":
            result = train(values, overwrite=overwrite, data=data)
        else:
            values["teacher"] = {"checkpoint": str(teacher.folder), "accept_chance": True}  # its score is told
            result = distill(values, overwrite=overwrite, data=data)
        console.print(f"{kind}, seed {seed}: {demo.unit} {result.last[demo.metric]:.1f}", highlight=False)
        results[kind].append(result)
    return results


def _row(metric: str, results: list[Result]) -> dict[str, Any]:
    def spread(when: str) -> dict[str, float]:
        values = [getattr(result, when)[metric] for result in results]
        return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}

    return {
        metric: {"last": spread("last"), "best": spread("best")},
        "params": results[0].parameters,
        "bytes": results[0].bytes,
        "seconds": statistics.fmean(result.seconds for result in results),
    }
