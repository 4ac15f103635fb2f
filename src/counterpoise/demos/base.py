"""What demos have in common: a teacher, and students of one small network alone, with KD and with Balance."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
        draw: writes the data into a folder; None where they are embedded.
        folds: parts of the data that are held out in turn, each with a teacher and students of its own; 0: none.
        teachers: for kinds that have a teacher of their own, its name and its terms.
        scores: by case, of the classes that are no background.
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
    draw: Callable[[Path], None] | None = None
    folds: int = 0
    teachers: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    scores: tuple[str, ...] = ()


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


def training(epochs: int, batch_size: int, optimizer: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """The section train of a run; others: what it has beside."""
    return {
        "epochs": epochs,
        "batch_size": batch_size,
        "precision": "fp32",
        "device": "cpu",
        "optimizer": optimizer,
        "schedule": {"name": "one_cycle"},
        "clip_gradient": None,
        **others,
    }


def overlays(out: Path, data: Splits, networks: Mapping[str, Path], shown: int = 8) -> None:
    """Draw the first scenes of val as overlays/N.png: image, truth, and what networks, by their titles, answer."""
    from counterpoise.engine.student import load_student
    from counterpoise.tasks.overlays import overlay
    from counterpoise.tasks.segmentation import segment

    loaded = {title: load_student(folder) for title, folder in networks.items()}
    (out / "overlays").mkdir(exist_ok=True)
    for number in range(min(shown, len(data.val))):
        image = data.val.read(number)
        masks = {"truth": data.val.read_mask(number)}
        masks |= {title: segment(network, image) for title, network in loaded.items()}
        overlay(out / "overlays" / f"{number + 1}.png", image, masks, data.val.classes)


def run(demo: Demo, out: Path, seeds: int, overwrite: bool, show: bool) -> dict[str, Any]:
    """Train all networks of a demo, one after the other; see `counterpoise.demos.demo`."""
    import torch

    from counterpoise.engine.run_folder import REPORT
    from counterpoise.pages.report.writing import report
    from counterpoise.system.files import write_text

    if seeds * max(demo.folds, 1) < 2:
        raise ConfigError(f"seeds: a standard deviation needs at least 2, got {seeds}.")
    if not overwrite and (any(out.glob("*/run.yaml")) or (out / REPORT).exists()):
        raise RunError(f"{out} holds an older demo. Replace it with --overwrite, or give another --out.")
    console = Console(stderr=True, quiet=not show)
    started = time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as fast for images this small, and the same numbers on any count of cores
    try:
        if demo.draw is not None:
            demo = _drawn(demo, demo.draw, out / "data")
        results: Results = {}
        for fold in range(1, demo.folds + 1) if demo.folds else [None]:
            data = _add(results, demo, out, seeds, fold, overwrite, console)
        if demo.pictures is not None:
            demo.pictures(out, data, results)
    except Interrupted:  # its advice is to go on with one run, not with the demo
        raise KeyboardInterrupt("Stopped. Start over with --overwrite, or with another --out.") from None
    finally:
        torch.set_num_threads(threads)
    summary = {kind: _row(demo, rows) for kind, rows in results.items()}
    write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    report([out], overwrite=True)
    console.print(f"{time.perf_counter() - started:.0f} s in all", highlight=False)
    return summary


def _drawn(demo: Demo, draw: Callable[[Path], None], folder: Path) -> Demo:
    """The demo on data that are drawn for it."""
    draw(folder)
    data = {"data": {"path": str(folder)}}
    return replace(demo, teacher=config.merge(demo.teacher, data), student=config.merge(demo.student, data))


def _add(
    results: Results, demo: Demo, out: Path, seeds: int, fold: int | None, overwrite: bool, console: Console
) -> Splits:
    """Train the networks of a fold, or of a demo without folds, and put them into results. Returns its data."""
    from counterpoise.data import sources
    from counterpoise.engine.runs import distill, train

    part: dict[str, Any] = {} if fold is None else {"data": {"fold": f"{fold}/{demo.folds}"}}
    end = "" if fold is None else f"-fold-{fold}"
    data = sources.load(config.resolve(config.merge(demo.teacher, part)).data)  # once for all runs

    def done(kind: str, result: Result, of: str) -> None:
        console.print(f"{kind}{of}: {demo.unit} {result.last[demo.metric]:.1f}", highlight=False)
        results.setdefault(kind, []).append(result)

    def taught(name: str, terms: Mapping[str, Any]) -> Result:
        console.print(f"training the {name} ...")
        folder = out / f"{name.replace(' ', '-')}{end}"
        values = {**demo.teacher, "objective": terms, "seed": 0, "out": str(folder)}
        result = train(config.merge(values, part), overwrite=overwrite, data=data)
        done(name, result, "" if fold is None else f", fold {fold}")
        return result

    usual = taught("teacher", demo.objectives["alone"])
    teachers = {kind: taught(*own) for kind, own in demo.teachers.items()}
    for kind, seed in itertools.product(demo.objectives, range(1, seeds + 1)):
        name = f"{kind.replace(' ', '-')}-{seed}{end}"
        values = {**demo.student, "objective": demo.objectives[kind], "seed": seed, "out": str(out / name)}
        if kind == "alone":
            result = train(config.merge(values, part), overwrite=overwrite, data=data)
        else:
            teacher = teachers.get(kind, usual)
            values["teacher"] = {"checkpoint": str(teacher.folder), "accept_chance": True}  # its score is told
            result = distill(config.merge(values, part), overwrite=overwrite, data=data)
        done(kind, result, f", seed {seed}" if fold is None else f", fold {fold}, seed {seed}")
    return data


def _row(demo: Demo, results: list[Result]) -> dict[str, Any]:
    metric = demo.metric

    def spread(when: str) -> dict[str, float]:
        values = [getattr(result, when)[metric] for result in results]
        return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}

    return {
        metric: {"last": spread("last"), "best": spread("best")},
        "params": results[0].parameters,
        "bytes": results[0].bytes,
        "seconds": statistics.fmean(result.seconds for result in results),
        **({"by_case": _by_case(demo, results)} if demo.scores else {}),
    }


def _by_case(demo: Demo, results: list[Result]) -> dict[str, Any]:
    """Mean and spread over the cases of all folds, of the classes that are no background."""
    from counterpoise.engine.answers import evaluate
    from counterpoise.tasks.scores.base import BACKGROUND

    cases = [row["scores"] for result in results for row in evaluate(result.folder, device="cpu")["cases"]]
    found: dict[str, Any] = {"cases": len(cases)}
    for score in demo.scores:
        by_class = [item for case in cases for item in case[score].items()]
        values = [value for name, value in by_class if name not in BACKGROUND and value is not None]
        found[score] = {"mean": statistics.fmean(values), "std": statistics.stdev(values)} if len(values) > 1 else None
    return found
