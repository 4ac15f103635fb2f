"""From a student folder to an export folder: converted, opened again by its runtime, compared, and only then there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from counterpoise import tasks
from counterpoise.config.options import keywords
from counterpoise.deploy import agreement, base, folder, pictures, promised, runner, sensitivity
from counterpoise.deploy.base import Calibration
from counterpoise.deploy.job import ExportJob, calibrated, check_choices, compared, make, prepare, settled, taken
from counterpoise.deploy.measuring import counting
from counterpoise.deploy.options import Export
from counterpoise.engine.export_student import versions
from counterpoise.errors import ConfigError, DisagreementError
from counterpoise.system.files import write_tensors

_REFERENCES = 2
_ROOM = 4_000_000  # bytes beside the weights


@keywords(Export)
def export(student: str | Path, asked: Export) -> dict[str, Any]:
    """Export a student, and compare it in its runtime with the PyTorch one on validation images.

    Where that refuses 8 bits, and neither `within`, `min_same` nor layers to keep were given, layers are kept in float
    until 95% of the answers on training images are the same; the result names them, and what it was without.

    Args:
        student: student folder, or a run's folder.

    Returns:
        What export.json says, and the `folder`.

    Raises:
        ExportError: the format lacks an operator, or the export disagrees with the student.
        MissingExtraError: the format's packages are not installed.
        RunError: the disk has no room.
    """
    chosen = base.converter(asked.to, make_environment=asked.make_environment)
    check_choices(chosen, asked)
    directory = Path(asked.out or default_out(Path(student), asked.to, asked.precision, asked.epoch))
    folder.check_free(directory, asked.overwrite)
    job = prepare(student, chosen, asked)
    if asked.size is None or asked.any_size is not None:
        job = settled(job, asked.any_size)
    settings = None if asked.precision != "int8" else calibrated(job, asked.calibrated_by)
    found: dict[str, Any] = {}
    if asked.within is not None:
        if settings is None:
            raise ConfigError(f"within says which layers stay in float in 8 bits, and precision is {asked.precision}.")
        settings, trials = sensitivity.choose(job, settings, asked.within)
        found = {"within": asked.within, "trials": [trial._asdict() for trial in trials]}
    try:
        description = write(job, directory, settings, found)
    except DisagreementError as refusal:
        if settings is None or settings.keep or job.data is None or (asked.within, asked.min_same) != (None, None):
            raise
        settings, found = sensitivity.relieved(job, settings, refusal)
        description = write(job, directory, settings, found)
    return {"folder": str(directory), **description.model_dump()}


def default_out(student: Path, to: str, precision: str, epoch: str | None = None) -> Path:
    """The folder of an export that was given none: within a run, else beside the student folder."""
    name = f"{to}-{precision}" if epoch is None else f"{to}-{precision}-{epoch}"
    return student / "exports" / name if (student / "run.yaml").is_file() else student.parent / f"{student.name}-{name}"


def write(
    job: ExportJob, directory: Path, calibration: Calibration | None, search: Mapping[str, Any] | None = None
) -> folder.Description:
    """Convert, open again, compare, and put the folder at `directory`; nothing is left there where any of it fails.

    search: how the layers kept in float were found.
    """
    weights = sum(value.nbytes for value in job.student.weights().values())
    with folder.writing(directory, 3 * weights + _ROOM) as new:
        notes = make(job, new, calibration)
        references = pictures.generated(_REFERENCES, job.request.size, job.request.channels)
        expected = agreement.student_answer(job.graph, references)
        remembered = {"student": expected.contiguous()}
        found = opened = None
        if not job.format.unavailable():
            runtime = job.format.open(new)
            answered = agreement.answer(runtime, references.numpy(), job.request.batch)
            remembered["export"] = torch.from_numpy(answered).float().contiguous()
            opened = job.opened(new)
            found = compared(job, opened, new)
        promise, scene_promise, about_promise = promised.of_export(job, opened)
        write_tensors(new / folder.REFERENCE, remembered)
        answered_by = runner.answer_of(expected.ndim > 2, tasks.get(job.student.task).sigmoid)
        (new / folder.RUNNER).write_text(runner.source(job.format, answered_by), encoding="utf-8")
        described = None
        if calibration is not None:
            described = {
                "method": calibration.method,
                "images": len(calibration.pixels),
                "kept_in_float": list(calibration.keep),
                **(search or {}),
            }
        shape = job.request.size, job.request.channels
        description = folder.Description(
            version=folder.VERSION if job.request.window is None else folder.BY_WINDOW,
            format=job.format.name,
            precision=job.request.precision,
            task=job.student.task,
            architecture=job.student.name,
            classes=job.student.classes or (),
            input=taken(job),
            outputs="probabilities" if job.student.answers_probabilities(job.request.size) else "logits",
            promise=promise,
            scene_promise=scene_promise,
            thresholds=job.student.thresholds,
            normalization=dict(job.student.normalization),
            student_sha256=job.student.weights_hash(),
            parameters=counting.parameters(job.student),
            files=folder.measured(new, (*job.format.files, folder.RUNNER, folder.REFERENCE)),
            versions={**versions(), **job.format.versions()},
            calibration=described,
            agreement=None if found is None else found.values(),
            verified=not job.format.unavailable(),
            notes={"multiply_adds": counting.multiply_adds(job.graph, *shape), **job.notes, **notes, **about_promise},
        )
        folder.describe(new, description)
    return description
