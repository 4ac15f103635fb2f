"""What a finished run leaves: the student folder and a summary."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from counterpoise import config
from counterpoise.engine import pulling
from counterpoise.engine.beside import Beside
from counterpoise.engine.chance import Tally, of_student
from counterpoise.engine.evaluator import Counting, has_labels, scored, values_of
from counterpoise.engine.gauging import said
from counterpoise.engine.imitation import headline, scores
from counterpoise.engine.mixing_heads import choose
from counterpoise.engine.parts import Parts
from counterpoise.engine.patience import stopped_early
from counterpoise.engine.run_folder import RunFolder, run_hash
from counterpoise.engine.student import save_student
from counterpoise.engine.trainer import Result, Trainer
from counterpoise.errors import RunError
from counterpoise.models import folder as folder_of_student
from counterpoise.models.folder import shipped_epoch
from counterpoise.models.network import VisionModel
from counterpoise.objectives.confident import left_out
from counterpoise.system import documents
from counterpoise.system.files import read_tensors, write_text
from counterpoise.system.machine import device_name
from counterpoise.teachers.identity import WEIGHTS


def export_student(trainer: Trainer) -> Result:
    """Write the student of a trained run, and sum it up. Only the first process writes.

    Its scores are those that `evaluate` finds. Raises RunError where the best weights are to ship and cannot be read.
    """
    run, parts, progress, folder = trainer.run, trainer.parts, trainer.progress, trainer.folder
    # Copies: below, the student gets other weights in their place.
    weights = {name: value.clone() for name, value in trainer.optimization.shipped_weights().items()}
    mixes = {"last": choose(weights, parts.student, parts, trainer.processes)}
    ships_best = run.train.ship == "best" and progress.best.get("epoch") != progress.last["epoch"]
    beside = Beside(trainer.gauge if has_labels(parts.val.images) else None, parts.task, len(parts.classes))
    found, chosen, by_case, remarks = _score(trainer, weights, None if ships_best else beside)
    thresholds = {"last": chosen}
    last = {**found, "epoch": progress.last["epoch"]}
    best, best_weights = progress.best, None
    if progress.best.get("epoch") == last["epoch"]:
        best, thresholds["best"] = dict(last), thresholds["last"]
    else:
        best_weights = _best_weights(trainer, weights)
    if best_weights is not None:
        mixes["best"] = choose(best_weights, parts.student, parts, trainer.processes)
        found, chosen, _, of_best = _score(trainer, best_weights, beside if ships_best else None)
        remarks = of_best if run.train.ship == "best" else remarks
        # The projector that features were explained with is that of the last epoch by now.
        best = {**progress.best, **({} if parts.objective.of_features_alone else found)}
        thresholds["best"] = chosen
        weights = best_weights if run.train.ship == "best" else weights
    parts.student.net.load_state_dict(weights)
    corrupt = trainer.processes.union({*parts.train.corrupt, *parts.val.corrupt})
    if trainer.processes.first:
        provenance = {
            **origins(parts, progress.teacher),
            "epoch": _epoch(trainer, last, best),
            **({"classifier": folder_of_student.UNTRAINED} if parts.objective.of_features_alone else {}),
            **({"heads": heads} if (heads := {k: mix._asdict() for k, mix in mixes.items() if mix}) else {}),
        }
        metrics = {"last": last, "best": best, "teacher": progress.teacher}
        save_student(
            parts.student,
            folder.student,
            classes=parts.classes,
            metrics=metrics,
            provenance=provenance,
            thresholds={epoch: each for epoch, each in thresholds.items() if each is not None} or None,
        )
    images = progress.step / trainer.steps_per_epoch * len(parts.train.images)
    told = trainer.times.told(parts.train.workers)
    result = Result(
        folder=folder.path,
        last=last,
        best=best,
        teacher=progress.teacher,
        parameters=sum(p.numel() for p in parts.student.parameters()),
        bytes=(folder.student / "model.safetensors").stat().st_size if trainer.processes.first else 0,
        epochs=progress.step // trainer.steps_per_epoch,
        steps=progress.step,
        seconds=progress.seconds,
        images_per_second=images / max(progress.train_seconds, 1e-9),
        corrupt=len(corrupt),
        compile_seconds=progress.compile_seconds,
        stages=told["stages"],
        readers=told.get("readers", {}),
        advice=trainer.advice,
    )
    remarks += _remarks(trainer, beside)
    if trainer.processes.first:
        summary = {name: value for name, value in asdict(result).items() if name != "note"}
        machine = device_name(trainer.processes.device)
        if (count := left_out(parts.objective)) is not None:
            summary["minimum_confidence"] = {
                **dict(zip(("views", "left_out"), count, strict=True)),
                **({"counted_by": first} if (first := _counts(trainer)) else {}),
            }
        summary |= {"remarks": remarks} if remarks else {}
        summary |= {"folder": str(folder.path), "corrupt_files": corrupt, "machine": machine}
        if by_case:
            write_text(folder.cases, by_case)
        write_text(folder.summary, json.dumps(summary, indent=2) + "\n")
    early = stopped_early(run, progress, trainer.steps_per_epoch)
    if trainer.begun_at < progress.step:
        mix = mixes.get(run.train.ship) or mixes["last"]
        ends = [f"{early}. Its student ships." if early else "", mix.told() if mix else "", *_unsure(trainer), *remarks]
        return replace(result, note=" ".join(filter(None, ends)))
    left = f"{early}. More patience goes on." if early else "No step was left to train."
    return replace(result, note=f"{left} The student is that of the {run.train.ship} epoch.")


def _unsure(trainer: Trainer) -> list[str]:
    """What teacher.minimum_confidence has left out."""
    count, section = left_out(trainer.parts.objective), trainer.run.teacher
    if count is None or section is None or not count[0]:
        return []
    if count[0] == count[1]:
        return [
            f"teacher.minimum_confidence {section.minimum_confidence:g} is above all that the teacher is sure of: none "
            f"of {count[0]:,} views taught, and the teacher was heard nowhere. Lower it."
        ]
    of = f" of {first}" if (first := _counts(trainer)) else ""
    return [
        f"teacher.minimum_confidence {section.minimum_confidence:g}: {count[1]:,} of {count[0]:,} views{of} did not "
        f"teach ({100 * count[1] / count[0]:.1f}%)."
    ]


def _remarks(trainer: Trainer, beside: Beside) -> list[str]:
    """What is to be said of the teacher: that it is hardly better, that its terms pull against the labels."""
    sides = pulling.sides(trainer.parts.objective)
    pull = None if sides is None else pulling.remark(pulling.read(trainer.folder.metrics), sides)
    return [*filter(None, (beside.remark(), pull))]


def _counts(trainer: Trainer) -> str:
    """Which process keeps count of views that are left out, where there are several."""
    world = trainer.processes.world
    return f"the first of {world} processes" if world > 1 else ""


def _score(
    trainer: Trainer, weights: Mapping[str, Tensor], beside: Beside | None
) -> tuple[dict[str, float], list[float] | None, str, list[str]]:
    """The quick score of the student with these weights, in the form in which it is loaded from its folder, the
    thresholds of its labels, where it has some, its scores by case as CSV, where they are asked for, and what is to be
    said of it."""
    parts = trainer.parts
    student = parts.student
    student.net.load_state_dict(weights)
    student.net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    plain = VisionModel(**student.settings()).to(trainer.processes.device)  # not compiled
    with student.shipping():
        if parts.objective.of_features_alone:
            return scores(parts, plain, trainer.processes, None), None, "", []
        further = trainer.run.train.scores
        told = said(trainer.gauge)
        tally = Tally(len(parts.classes), parts.task)
        # Of scenes the score counts what was taken for what, also of those that are answered in pieces.
        tallies: list[Counting] = [*([tally] if parts.task.whole else []), *([] if beside is None else [beside])]
        score = scored(plain, parts.val, parts.task, trainer.processes, told, tallies=tallies, further=further)
        remark = of_student(score, tally, len(parts.val.images), parts.classes)
        return values_of(score), score.thresholds(), score.cases(), [*filter(None, [remark])]


def _best_weights(trainer: Trainer, like: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Those in the run folder, as the first process reads them; None where they are gone, and not needed."""
    processes, path = trainer.processes, trainer.folder.best
    found: Mapping[str, Tensor] | None = None
    problem: RunError | None = None
    if processes.first:
        try:
            found = read_tensors(path)[0]
            if {name: value.shape for name, value in found.items()} != {name: v.shape for name, v in like.items()}:
                found = None
                raise ValueError("they are those of another network")
        except (OSError, SafetensorError, ValueError) as error:
            if trainer.run.train.ship == "best":
                problem = RunError(
                    f"The weights of the best epoch, {path}, cannot be read: {error}. Ship the last ones: "
                    "--train.ship last."
                )
    processes.agree(problem)
    if not processes.any(found is not None):
        return None
    weights = {name: (found or like)[name].to(processes.device).contiguous() for name in like}
    processes.as_first(weights.values())
    return weights


def _epoch(trainer: Trainer, last: Mapping[str, float], best: Mapping[str, float]) -> dict[str, Any]:
    """Of which epoch the weights are, by what the best one was found, and whether other images are left to test on.

    These are images that neither trained nor chose: the data's own val behind held-out images, or a test part.
    """
    run, metric = trainer.run, headline(trainer.parts, best)
    number = (best if run.train.ship == "best" else last)["epoch"]
    chosen = {"best": best["epoch"], "by": metric} if metric in best else {}
    unused = [note for note in trainer.parts.found.values.get("notes", []) if note.startswith("not used:")]
    own_test = run.data.held_out > 0 or any(re.search(r"\btest(ing)?\b", note, re.IGNORECASE) for note in unused)
    return {"ships": run.train.ship, "number": number, "of": run.train.epochs, **chosen, "own_test": own_test}


def result_of(folder: RunFolder, run: config.Run) -> Result | None:
    """What came out of a run that has come to its end, and has the student that `run` asks for; None where it has not.

    Where there is a student of another epoch, or none, there is still something to do.
    """
    try:
        summary = documents.read_json(folder.summary, within=folder.path)
        described = documents.read_json(folder.student / "student.json", within=folder.path)
        if shipped_epoch(described["provenance"]) != run.train.ship:
            return None
        values = {  # earlier versions did not count all of it
            field.name: summary[field.name]
            for field in fields(Result)
            if field.name not in ("folder", "note") and (field.name in summary or field.default is MISSING)
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None
    note = (
        f"Nothing was done: the run had come to its end. To train its student further, start another run with "
        f"--student.checkpoint {folder.path}, or go on to more epochs with --extend {folder.path}."
    )
    return Result(folder=folder.path, note=note, **values)


STORED = "store_sha256"
"""Of the teacher in `provenance`: hashes of the contents of its stores."""


def origins(parts: Parts, teacher: Mapping[str, float]) -> dict[str, Any]:
    """Where the student of a run comes from; `teacher`: the metrics of that."""
    return {
        "teacher": _teacher(parts, teacher),
        "data_fingerprint": parts.identity["data"],
        "val_fingerprint": parts.identity["val"],
        "objective": {
            name: term.model_dump(mode="json", exclude_unset=True) for name, term in parts.run.objective.items()
        },
        "run_sha256": run_hash(parts.run),
        "versions": versions(),
        "commit": commit(),
    }


def _teacher(parts: Parts, metrics: Mapping[str, float]) -> dict[str, Any] | None:
    """Who the teacher is, and the store that its answers were read from."""
    live, stored = parts.teacher, parts.stored
    store: dict[str, Any] = {}
    if stored is not None:
        store = {"store": stored.store.name, STORED: [each.content_hash() for each in stored.store.opened()]}
    if live is not None:
        known = {part: value for part, value in parts.teacher_identity.items() if part != WEIGHTS}
        return {
            **known,
            "architecture": live.model.name,
            "sha256": parts.teacher_identity[WEIGHTS],
            "metrics": metrics,
            **store,
        }
    if stored is None:
        return None
    header = stored.store.header
    return {**header.notes, "sha256": header.teacher, **store, "precision": header.precision}


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("counterpoise", "torchvision", "timm", "numpy", "pillow", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of counterpoise, where it runs from a checkout; not that of whatever else it is installed below."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "--show-prefix", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    prefix, _, found = done.stdout.strip().partition("\n")
    return found if done.returncode == 0 and prefix == "src/counterpoise/engine/" else None
