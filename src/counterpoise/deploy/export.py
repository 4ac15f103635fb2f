"""From a student folder to an export folder: converted, opened again by its runtime, compared, and only then there."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from counterpoise import inputs, tasks
from counterpoise.deploy import agreement, base, folder, pictures, runner, sizes
from counterpoise.deploy.base import Calibration, DisagreementError, Format, Request
from counterpoise.deploy.fake_quantization import kept_layers
from counterpoise.deploy.measuring.counting import multiply_adds
from counterpoise.deploy.network import Deployed
from counterpoise.engine.progress import Pace
from counterpoise.errors import ConfigError, DataError, unknown
from counterpoise.inputs import RunLike
from counterpoise.models.student import Student, load_student

if TYPE_CHECKING:
    from counterpoise import config
    from counterpoise.data.sources.base import Splits
    from counterpoise.models.catalog import Model
    from counterpoise.models.epochs import Epoch

CALIBRATION_IMAGES = 256
_REFERENCES = 2
_ROOM = 4_000_000  # bytes beside the weights


class Job(NamedTuple):
    """A student, and what its export is to be.

    Attributes:
        network: the student as it is deployed.
        data: pictures to compare on and calibrate with, where there are some; section says how they are read.
        images: how many of them at most it is compared on; None: all.
        min_same: percent of the answers that must be the same; None: as the precision has it.
        notes: what was decided, for export.json.
        trained_on: how many of the images that it is compared on the student was trained on.
        show: how far the comparison is, on stderr.
    """

    student: Student
    network: Deployed
    format: Format
    request: Request
    data: Splits | None
    section: config.Data
    images: int | None
    min_same: float | None = None
    notes: Mapping[str, Any] = {}
    trained_on: int = 0
    show: bool = False


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


def check_choices(
    chosen: Format, precision: str, batch: int | None, opset: int | None = None, min_same: float | None = None
) -> None:
    """Raises ConfigError for what the format has not."""
    if precision not in base.PRECISIONS:
        raise ConfigError(unknown("Precision", precision, base.PRECISIONS))
    if precision not in chosen.precisions:
        raise ConfigError(f"{chosen.name} has no {precision} here. Available: {', '.join(chosen.precisions)}.")
    if batch is not None:
        inputs.positive("batch", batch)
    if opset is not None and not chosen.opsets:
        raise ConfigError(f"opset is of --to onnx, and this is --to {chosen.name}: leave it out.")
    if opset is not None and opset not in chosen.opsets:
        raise ConfigError(f"opset must be {chosen.opsets[0]} to {chosen.opsets[-1]}, got {opset}.")
    if min_same is not None and (precision != "int8" or not 0 <= min_same <= 100):
        raise ConfigError(
            f"min_same is of int8, the percent of answers that must be the same, 0 to 100; got {min_same} "
            f"with {precision}."
        )


def default_out(student: Path, to: str, precision: str, epoch: Epoch | None = None) -> Path:
    """The folder of an export that was given none: within a run, else beside the student folder."""
    name = f"{to}-{precision}" if epoch is None else f"{to}-{precision}-{epoch}"
    return student / "exports" / name if (student / "run.yaml").is_file() else student.parent / f"{student.name}-{name}"


def prepare(
    student: str | Path,
    chosen: Format,
    precision: str = "float32",
    batch: int | None = None,
    size: tuple[int, int] | None = None,
    data: RunLike | None = None,
    data_set: Splits | None = None,
    images: int | None = None,
    model: Model | None = None,
    min_same: float | None = None,
    opset: int | None = None,
    epoch: Epoch | None = None,
) -> Job:
    """Load what an export is made of and compared with; arguments as for `export`."""
    network = load_student(Path(student), model=model, epoch=epoch)
    splits, section = pictures.data_of(Path(student), data, data_set)
    if splits is not None:
        from counterpoise.data.sources.base import Splits
        from counterpoise.engine.evaluator import in_classes_of

        if splits.val.classes:
            splits = Splits(*(in_classes_of(network, part) for part in splits))
        tasks.get(network.task).check(splits.val)
    found = pictures.size_of(network, size, None if splits is None else splits.val, section)
    if batch is None and not chosen.dynamic_batch:
        batch = 1
    around = pictures.mean_color(network) if network.task == "segmentation" else None
    request = Request(precision, found, batch, opset, around=around)
    if images is not None:
        inputs.positive("images", images)
    seen = 0
    if splits is not None and data_set is None:
        seen = inputs.trained_on(Path(student), pictures.spread(splits.val, images), section)
    return Job(network, Deployed(network), chosen, request, splits, section, images, min_same, trained_on=seen)


def settled(job: Job, any_size: bool | None = None) -> Job:
    """The job, with what was decided on sizes: see `sizes.settled`."""
    shown = None if job.data is None else job.data.val
    request, note = sizes.settled(job.network, job.format, job.request, shown, any_size)
    return job._replace(request=request, notes={"size": note} if note else {})


def calibrated(job: Job, given: Calibration | Mapping[str, Any] | None) -> Calibration:
    """Training images as the export is fed, and how ranges are drawn from them."""
    if isinstance(given, Calibration):
        settings = given
    else:
        values = {"images": CALIBRATION_IMAGES, "method": job.format.methods[0], "keep": (), **(given or {})}
        splits, section = job.data, job.section
        if values.get("data") is not None:
            from counterpoise.data import sources

            section = inputs.read_for(inputs.data_section(Path(), values["data"]), job.student.reading)
            splits = sources.load(section)
        if splits is None:
            raise ConfigError("int8 is calibrated on training images, and none are given: --data PATH.")
        train = pictures.spread(splits.train, inputs.positive("calibration images", int(values["images"])))
        parts = [pixels for pixels, _ in pictures.batches(train, job.student, section, job.request)]
        alike = len({part.shape[1:] for part in parts}) == 1
        pixels = torch.cat(parts) if alike else tuple(picture for part in parts for picture in part)
        settings = Calibration(pixels, str(values["method"]), tuple(values["keep"]))
    if isinstance(settings.pixels, Tensor) and (
        settings.pixels.dtype != torch.uint8
        or settings.pixels.shape[1:2] != (3,)
        or tuple(settings.pixels.shape[2:]) != (job.request.fed or tuple(settings.pixels.shape[2:]))
    ):
        raise ConfigError(
            f"Calibration pixels must be uint8 [N, 3, {job.request.size[0]}, {job.request.size[1]}], got "
            f"{str(settings.pixels.dtype).removeprefix('torch.')} {list(settings.pixels.shape)}."
        )
    if settings.method not in job.format.methods:
        raise ConfigError(unknown(f"Calibration method of {job.format.name}", settings.method, job.format.methods))
    return replace(settings, keep=kept_layers(job.network, settings.keep))


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


def make(job: Job, out: Path, calibration: Calibration | None) -> dict[str, Any]:
    """The format's files in the folder `out`."""
    metadata = {
        "task": job.student.task,
        "architecture": job.student.name,
        "classes": json.dumps(job.student.classes, ensure_ascii=False),
        "input": json.dumps(_input(job).model_dump()),
    }
    if calibration is None:
        return job.format.convert(job.network, job.request, metadata, out)
    return job.format.quantize(job.network, job.request, metadata, out, calibration)


def compared(job: Job, runtime: base.Runtime, out: Path) -> agreement.Agreement | None:
    """The agreement on validation images. Raises ExportError where there is too little of it, with the layer."""
    if job.data is None:
        samples = [(pictures.generated(8, job.request.size), None)]
        difference = _first_look(job, runtime, samples[0][0])
        if difference:
            raise _refusal(job, out, samples[0][0], difference)
        return None
    images = pictures.spread(job.data.val, job.images)
    pairs = pictures.pairs(images, job.student, job.section, job.request)
    first = next(pairs, None)
    if first is None:
        raise DataError("No validation image can be read, so there is nothing to compare the export on.")
    task = tasks.get(job.student.task)
    found = agreement.compare(
        job.network,
        runtime,
        itertools.chain([first], pairs),
        task,
        job.student.num_classes,
        job.request.batch,
        watch=Pace(len(images), "Compared images", job.show).at,
    )
    found = replace(found, trained_on=job.trained_on)
    objection = found.objection(job.request.precision, job.min_same)
    if objection:
        raise _refusal(job, out, first.fed, objection)
    return found


def _first_look(job: Job, runtime: base.Runtime, pixels: torch.Tensor) -> str:
    """Without data: whether logits of generated pictures differ by more than rounding."""
    expected = agreement.student_answer(job.network, pixels)
    answered = torch.from_numpy(agreement.answer(runtime, pixels.numpy(), job.request.batch)).float()
    limit = agreement.LIMITS[job.request.precision].difference
    bound = 1.0 if limit is None else limit
    largest = float((answered - expected).abs().max())
    scale = max(1.0, float(expected.abs().max()))
    return "" if largest <= bound * scale else f"logits of generated pictures differ by up to {largest:.3g}"


def _refusal(job: Job, out: Path, pixels: torch.Tensor, why: str) -> DisagreementError:
    count = job.request.batch or min(8, len(pixels))
    shown = pixels.repeat(-(-count // len(pixels)), 1, 1, 1)[:count]
    where = agreement.first_apart(job.format.layers(job.network, out, shown.numpy()), job.request.precision)
    hint = ""
    if job.request.precision == "int8":
        hint = (
            " Keep its sensitive layers in float (--within 0.5, or by name, such as --keep student.net.conv1), or "
            "fine-tune the student for 8 bits (counterpoise finetune)."
        )
    return DisagreementError(f"The {job.format.name} export disagrees with the student: {why}.{where}{hint}", why)


def _input(job: Job) -> folder.Input:
    size = job.request.size
    share = tasks.get(job.student.task).crop_share(job.student, size)
    student = job.student
    return folder.Input.model_validate(
        {
            "size": size,
            "any_size": job.request.any_size,
            "around": None if job.request.any_size else job.request.around,
            "reduction": student.scenes.reduction,
            "batch": job.request.batch,
            "crop_share": share,
            "fit": student.fit,
            "alpha": student.reading.alpha,
            "white_level": student.reading.white_level,
        }
    )


def _describe(
    job: Job,
    new: Path,
    calibration: dict[str, Any] | None,
    found: agreement.Agreement | None,
    notes: Mapping[str, Any],
) -> folder.Description:
    from counterpoise.engine.finish import versions

    names: Sequence[str] = (*job.format.files, folder.RUNNER, folder.REFERENCE)
    return folder.Description(
        format=job.format.name,
        precision=job.request.precision,
        task=job.student.task,
        architecture=job.student.name,
        classes=job.student.classes or (),
        input=_input(job),
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
