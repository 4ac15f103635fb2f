"""From a student to its site."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from counterpoise import tasks
from counterpoise.config.options import keywords
from counterpoise.decoding import Reading
from counterpoise.deploy.export import export
from counterpoise.deploy.options import Try
from counterpoise.deploy.site import runtime, samples, site
from counterpoise.deploy.site.samples import Sample
from counterpoise.engine import inputs
from counterpoise.engine.student_epochs import read_epoch
from counterpoise.errors import ConfigError, CounterpoiseError, ExportError, RunError
from counterpoise.models import folder

MOST_QUESTIONS = 31


@keywords(Try)
def try_(student: str | Path, asked: Try) -> dict[str, Any]:
    """Write a static site on which the student answers in its visitors' own browsers.

    Args:
        student: student folder, or a run's folder.

    Returns:
        {"site", "bytes", "first_visit_bytes", "exports": {precision: bytes}, "notes"}; notes says why where there
        are no 8 bits.

    Raises:
        CounterpoiseError: the student cannot be exported, or onnxruntime-web is not here and cannot be fetched.
    """
    path = Path(student)
    place = folder.find(path)
    description, _ = read_epoch(place, asked.epoch)
    if asked.size is not None and description.input.window is not None and description.input.size is None:
        raise ConfigError("The page slides the student's window over pictures of any size: leave out --size.")
    if description.input.intensity is not None:
        raise ConfigError(
            "The page reads pictures of 8 bits, and this student's are read by data.intensity, from values of any "
            "depth: counterpoise export --to onnx."
        )
    if description.input.channels != 3:
        raise ConfigError(
            f"The page shows pictures of three channels, and this student takes {description.input.channels}: "
            "counterpoise export --to onnx."
        )
    if not tasks.get(description.task).whole and tasks.get(description.task).sigmoid:
        _check_questions(len(description.classes))
    name = _name(path, place)
    target = Path(asked.out) if asked.out is not None else Path("sites", name)
    _check_free(target, asked.overwrite)
    pictures, note = _samples(path, asked, description.input.reading)
    runtime.files()  # before the work that would be in vain without it
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="counterpoise-") as temporary:
        exports: dict[str, Path] = {}
        promises: dict[str, Any] = {}
        given: Mapping[str, Any] = {}
        outputs = "logits"
        for precision in ("float32", "int8"):
            try:
                taken = _exported(path, precision, Path(temporary, precision), asked)
                if taken["input"] != (given or taken["input"]):
                    raise ExportError(f"Its file takes {taken['input']}, and that in float {given}.")
            except CounterpoiseError as error:
                if precision == "float32":
                    raise
                notes.append(f"The page shows no 8 bits: {error}")
                continue
            exports[precision] = Path(temporary, precision, "model.onnx")
            promises[precision] = taken["promise"] or taken["scene_promise"]
            if "promise" in taken["notes"]:
                notes.append(taken["notes"]["promise"])
            given, outputs = taken["input"], taken["outputs"]
        task = tasks.get(description.task)
        site.write(target, description, task, name, given, exports, pictures, note, outputs, promises)
        sizes = {precision: file.stat().st_size for precision, file in exports.items()}
    return {
        "site": str(target),
        "bytes": sum(file.stat().st_size for file in target.rglob("*") if file.is_file()),
        "first_visit_bytes": site.first_visit(target),
        "exports": sizes,
        "notes": notes,
    }


def _check_questions(count: int) -> None:
    """Raises ConfigError for more than the page keeps of a pixel, whose answers are the bits of a number."""
    if count > MOST_QUESTIONS:
        raise ConfigError(
            f"The page paints up to {MOST_QUESTIONS} questions, and this student answers {count}: counterpoise export "
            "--to onnx."
        )


def _exported(student: Path, precision: str, out: Path, asked: Try) -> dict[str, Any]:
    """Write an ONNX file of the student that has been compared with it; what export.json says."""
    same = {"data": asked.data, "model": asked.model, "epoch": asked.epoch, "size": asked.size}
    return export(student, to="onnx", precision=precision, batch=1, out=out, **same)


def _samples(student: Path, asked: Try, reading: Reading) -> tuple[list[Sample], str]:
    """Pictures to begin with, and a sentence of where they come from."""
    chosen, evaluation_pictures = [Path(one) for one in asked.samples or ()], asked.evaluation_pictures
    if evaluation_pictures < 0 or evaluation_pictures > samples.MOST:
        raise ConfigError(f"--evaluation_pictures must be 0 to {samples.MOST}, got {evaluation_pictures}.")
    found = samples.chosen(chosen, reading) if chosen else []
    if evaluation_pictures:
        images, _ = inputs.evaluated(student, asked.data, None, None)
        count = min(evaluation_pictures, len(images))
        found += samples.of_tensors(images.read(index * len(images) // count) for index in range(count))
    if len(found) > samples.MOST:
        raise ConfigError(f"These are {len(found)} sample pictures; a page shows {samples.MOST} at most.")
    if not found:
        return samples.drawn(), "Drawn by a program, for a first try."
    if evaluation_pictures:
        return found, "From the student's evaluation pictures." if not chosen else ""
    return found, ""


def _name(given: Path, place: Path) -> str:
    """What the site is called: the run's name, or that of the student folder."""
    run = place.parent if place.name == folder.STUDENT and (place.parent / "run.yaml").is_file() else place
    return run.resolve().name or given.name


def _check_free(target: Path, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not site.is_site(target):
        raise RunError(f"{target} is there already and holds no site of ours: give another --out.")
    if not overwrite:
        raise RunError(f"Site {target} exists. Replace it with --overwrite, or show it: try {target} --serve")
