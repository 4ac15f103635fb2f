"""From a student folder to an export folder: converted, opened again by its runtime, compared, and only then there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from counterpoise.deploy import agreement, base, folder, pictures, runner
from counterpoise.deploy.base import Calibration
from counterpoise.deploy.job import Job, calibrated, check_choices, compared, make, prepare, settled, taken
from counterpoise.deploy.measuring.counting import multiply_adds
from counterpoise.engine.inputs import RunLike
from counterpoise.errors import ConfigError, DisagreementError

if TYPE_CHECKING:
    from counterpoise.data.sources.base import Splits
    from counterpoise.models.catalog import Model
    from counterpoise.students.epochs import Epoch

_REFERENCES = 2
_ROOM = 4_000_000  # bytes beside the weights


def export(
    student: str | Path,
    *,
    to: str,
    precision: str = "float32",
    batch: int | None = None,
    size: tuple[int, int] | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    data: RunLike | None = None,
    data_set: Splits | None = None,
    images: int | None = None,
    calibration: Calibration | Mapping[str, Any] | None = None,
    within: float | None = None,
    min_same: float | None = None,
    opset: int | None = None,
    model: Model | None = None,
    make_environment: bool = False,
    epoch: Epoch | None = None,
    any_size: bool | None = None,
    show: bool = False,
) -> dict[str, Any]:
    """Export a student, and compare it in its runtime with the PyTorch one on validation images.

    Where that refuses 8 bits, and neither `within`, `min_same` nor layers to keep were given, layers are kept in float
    until 95% of the answers on training images are the same; the result names them, and what it was without.

    Args:
        student: student folder, or a run's folder.
        to: the format: onnx, openvino, executorch, litert or coreml.
        precision: float32, float16 or int8.
        batch: how many pictures it takes at once; None any number, where the format can.
        size: height and width of its pixels, where the student takes any and the data does not tell.
        out: folder to write; default: beside the student, named by format and precision.
        overwrite: replace an older export there.
        data: a data folder, or a run whose `data` section is used; default: that of the run which `student` lies in.
        data_set: `Splits(train, val)` instead of `data`.
        images: on how many validation images at most it is compared, spread evenly; default: all of them.
        calibration: of int8: a `Calibration`, or its `method` and `keep` and the number of training `images`.
        within: of int8: layers are kept in float, the most sensitive first, until the metric on training images is at
            most so many points below that in float.
        min_same: of int8: percent of the answers that must be the student's own; default: 90.
        opset: of onnx: the version of its operators; default: 20.
        model: the student's network, where that is code of one's own.
        make_environment: make the environment of its own that litert needs, where it is not there.
        epoch: of a run, "last" or "best": the student of that epoch; default: the one that ships.
        any_size: whether it takes scenes of any height and width; default: where the format can, no `size` is given,
            and the scenes that it is compared on differ in size.
        show: on stderr, now and then, how far the comparison is.

    Returns:
        What export.json says, and the `folder`.

    Raises:
        ExportError: the format lacks an operator, or the export disagrees with the student.
        MissingExtraError: the format's packages are not installed.
        RunError: the disk has no room.
    """
    chosen = base.find(to, make_environment=make_environment)
    check_choices(chosen, precision, batch, opset, min_same)
    place = Path(out) if out is not None else default_out(Path(student), to, precision, epoch)
    folder.check_free(place, overwrite)
    job = prepare(student, chosen, precision, batch, size, data, data_set, images, model, min_same, opset, epoch)
    job = job._replace(show=show)
    if size is None or any_size is not None:
        job = settled(job, any_size)
    settings = None if precision != "int8" else calibrated(job, calibration)
    found: dict[str, Any] = {}
    if within is not None:
        if settings is None:
            raise ConfigError(f"within says which layers stay in float in 8 bits, and precision is {precision}.")
        from counterpoise.deploy import sensitivity

        settings, trials = sensitivity.choose(job, settings, within)
        found = {"within": within, "trials": [trial._asdict() for trial in trials]}
    try:
        description = write(job, place, settings, found)
    except DisagreementError as refusal:
        if settings is None or settings.keep or job.data is None or (within, min_same) != (None, None):
            raise
        from counterpoise.deploy import sensitivity

        settings, found = sensitivity.relieved(job, settings, refusal)
        description = write(job, place, settings, found)
    return {"folder": str(place), **description.model_dump()}


def default_out(student: Path, to: str, precision: str, epoch: Epoch | None = None) -> Path:
    """The folder of an export that was given none: within a run, else beside the student folder."""
    name = f"{to}-{precision}" if epoch is None else f"{to}-{precision}-{epoch}"
    return student / "exports" / name if (student / "run.yaml").is_file() else student.parent / f"{student.name}-{name}"


def write(
    job: Job, place: Path, calibration: Calibration | None, search: Mapping[str, Any] | None = None
) -> folder.Description:
    """Convert, open again, compare, and put the folder at `place`; nothing is left there where any of it fails.

    search: how the layers kept in float were found.
    """
    weights = sum(value.nbytes for value in job.student.weights().values())
    with folder.writing(place, 3 * weights + _ROOM) as new:
        notes = make(job, new, calibration)
        references = pictures.generated(_REFERENCES, job.request.size)
        expected = agreement.student_answer(job.network, references)
        remembered = {"student": expected.contiguous()}
        found = None
        if not job.format.unavailable():
            runtime = job.format.open(new)
            answered = agreement.answer(runtime, references.numpy(), job.request.batch)
            remembered["export"] = torch.from_numpy(answered).float().contiguous()
            found = compared(job, runtime, new)
        save_file(remembered, new / folder.REFERENCE)
        (new / folder.RUNNER).write_text(runner.source(job.format, expected.ndim > 2), encoding="utf-8")
        described = None
        if calibration is not None:
            described = {
                "method": calibration.method,
                "images": len(calibration.pixels),
                "kept_in_float": list(calibration.keep),
                **(search or {}),
            }
        description = _describe(job, new, described, found, notes)
        folder.describe(new, description)
    return description


def _describe(
    job: Job,
    new: Path,
    calibration: dict[str, Any] | None,
    found: agreement.Agreement | None,
    notes: Mapping[str, Any],
) -> folder.Description:
    from counterpoise.engine.export_student import versions

    names: Sequence[str] = (*job.format.files, folder.RUNNER, folder.REFERENCE)
    return folder.Description(
        format=job.format.name,
        precision=job.request.precision,
        task=job.student.task,
        architecture=job.student.name,
        classes=job.student.classes or (),
        input=taken(job),
        outputs="probabilities" if job.student.answers_probabilities(job.request.size) else "logits",
        normalization=dict(job.student.normalization),
        student_sha256=job.student.weights_hash(),
        parameters=sum(parameter.numel() for parameter in job.student.parameters()),
        files=folder.measured(new, tuple(names)),
        versions={**versions(), **job.format.versions()},
        calibration=calibration,
        agreement=None if found is None else found.values(),
        verified=not job.format.unavailable(),
        notes={"multiply_adds": multiply_adds(job.network, job.request.size), **job.notes, **notes},
    )
