"""What a finished run leaves: the student folder and a summary."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import MISSING, asdict, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from counterpoise import config
from counterpoise.engine.run_folder import RunFolder, run_hash
from counterpoise.engine.shipping import epoch_of, shipment
from counterpoise.engine.student import save_student
from counterpoise.engine.trainer import Result, Trainer
from counterpoise.models.folder import shipped_epoch
from counterpoise.system import documents
from counterpoise.system.files import write_text
from counterpoise.system.machine import device_name
from counterpoise.teachers.identity import WEIGHTS


def export_student(trainer: Trainer) -> Result:
    """Write the student of a trained run, and sum it up. Only the first process writes."""
    run, parts, progress, folder = trainer.run, trainer.parts, trainer.progress, trainer.folder
    student = parts.student
    shipped = shipment(trainer)
    student.net.load_state_dict(shipped.weights)
    parameters = sum(p.numel() for p in student.parameters())
    steps = progress.step
    corrupt = trainer.processes.union({*parts.train.corrupt, *parts.val.corrupt})
    images = steps / trainer.steps_per_epoch * len(parts.train.images)
    if trainer.processes.first:
        metrics = {"last": shipped.last, "best": shipped.best, "teacher": progress.teacher}
        provenance = {
            "teacher": _teacher(trainer),
            "data_fingerprint": parts.identity["data"],
            "objective": {
                name: term.model_dump(mode="json", exclude_unset=True) for name, term in run.objective.items()
            },
            "epoch": epoch_of(trainer, shipped),
            "run_sha256": run_hash(run),
            "versions": versions(),
            "commit": commit(),
        }
        save_student(student, folder.student, classes=parts.classes, metrics=metrics, provenance=provenance)
    result = Result(
        folder=folder.path,
        last=shipped.last,
        best=shipped.best,
        teacher=progress.teacher,
        parameters=parameters,
        bytes=(folder.student / "model.safetensors").stat().st_size if trainer.processes.first else 0,
        epochs=run.train.epochs,
        steps=steps,
        seconds=progress.seconds,
        images_per_second=images / max(progress.train_seconds, 1e-9),
        corrupt=len(corrupt),
        note=""
        if trainer.begun_at < steps
        else f"No step was left to train. The student is that of the {run.train.ship} epoch.",
        compile_seconds=progress.compile_seconds,
    )
    if trainer.processes.first:
        write_text(
            folder.summary,
            json.dumps(
                {
                    **{name: value for name, value in asdict(result).items() if name != "note"},
                    "folder": str(folder.path),
                    "corrupt_files": corrupt,
                    "machine": device_name(trainer.processes.device),
                },
                indent=2,
            )
            + "\n",
        )
    return result


def finished(folder: RunFolder, run: config.Run) -> Result | None:
    """What came out of a run that has come to its end, and has the student that `run` asks for; None where it has not.

    Where there is a student of another epoch, or none, there is still something to do.
    """
    try:
        summary = documents.read_json(folder.summary, within=folder.path)
        described = documents.read_json(folder.student / "student.json", within=folder.path)
        if shipped_epoch(described["provenance"]) != run.train.ship:
            return None
        told = (field for field in fields(Result) if field.name not in ("folder", "note"))
        values = {  # earlier versions did not count all of it
            field.name: summary[field.name] for field in told if field.name in summary or field.default is MISSING
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None
    note = (
        f"Nothing was done: the run had come to its end. To train its student further, start another run with "
        f"--student.checkpoint {folder.path}."
    )
    return Result(folder=folder.path, note=note, **values)


def _teacher(trainer: Trainer) -> dict[str, Any] | None:
    parts = trainer.parts
    if parts.teacher is not None:
        model = parts.teacher.model
        known = parts.teacher_identity
        found = {**known, "architecture": model.name, "sha256": known[WEIGHTS], "metrics": trainer.progress.teacher}
        del found[WEIGHTS]
        return found if parts.stored is None else {**found, "store": parts.stored.store.name}
    if parts.stored is None:
        return None
    header = parts.stored.store.header
    return {**header.notes, "sha256": header.teacher, "store": parts.stored.store.name, "precision": header.precision}


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"counterpoise": version("counterpoise"), "python": platform.python_version(), "torch": torch.__version__}
    for package in ("torchvision", "timm", "numpy", "pillow", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of counterpoise, where it runs from a checkout; not that of whatever else it is installed below."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "--show-prefix", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    prefix, _, found = done.stdout.strip().partition("\n")
    return found if done.returncode == 0 and prefix == "src/counterpoise/engine/" else None
