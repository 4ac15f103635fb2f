"""What an export is made of: the student, its pictures, what is asked for; made, opened again and compared."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from counterpoise import tasks
from counterpoise.deploy import agreement, base, folder, pictures, sizes, windows
from counterpoise.deploy.base import Calibration, Format, Request
from counterpoise.deploy.fake_quantization import kept_layers
from counterpoise.deploy.network import Deployed
from counterpoise.deploy.options import CALIBRATION_IMAGES, Export
from counterpoise.engine import inputs
from counterpoise.engine.progress import Pace
from counterpoise.engine.student import Student, load_student
from counterpoise.engine.trained_on import trained_on
from counterpoise.errors import ConfigError, DataError, DisagreementError, unknown
from counterpoise.models.network import VisionModel

if TYPE_CHECKING:
    from counterpoise import config
    from counterpoise.data.sources.base import Splits


class ExportJob(NamedTuple):
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

    @property
    def graph(self) -> Deployed:
        """What becomes the export: the network as it is deployed, or what it asks of one window."""
        return self.network if self.request.window is None else Deployed(without_window(self.student))

    @property
    def at_once(self) -> int | None:
        """How many pictures `opened` takes at once; None: any number."""
        return self.request.batch if self.request.window is None else None

    def opened(self, folder: Path) -> base.Runtime:
        """An export of it, as it answers what the runner beside it is given."""
        runtime = self.format.open(folder)
        return runtime if self.request.window is None else ByWindow(runtime, taken(self), self.student.num_classes)


class ByWindow:
    """An export of one window as a runtime for whole pictures, as run.py uses it.

    Args:
        classes: how many logits a pixel has.
    """

    def __init__(self, runtime: base.Runtime, given: folder.Input, classes: int) -> None:
        self.runtime, self.about, self.classes = runtime, given.model_dump(), classes

    def __call__(self, pixels: base.Pixels) -> base.Logits:
        """The logits of pictures [N, channels, H, W] at their own size."""
        found = np.empty((len(pixels), self.classes, *pixels.shape[2:]), np.float32)
        for answer, picture in zip(found, pixels, strict=True):
            for top, left, logits in windows.slid(picture.transpose(1, 2, 0), self.about, self.runtime):
                answer[:, top : top + logits.shape[1], left : left + logits.shape[2]] = logits
        return found


def without_window(student: VisionModel) -> VisionModel:
    """The same network, shown scenes whole: what answers one window."""
    view = student.scenes._replace(window=None, overlap=None, blend="mean")
    return VisionModel(**{**student.settings(), "scenes": view}).eval()


def check_choices(chosen: Format, asked: Export) -> None:
    """Raises ConfigError for what the format has not."""
    if asked.precision not in base.PRECISIONS:
        raise ConfigError(unknown("Precision", asked.precision, base.PRECISIONS))
    if asked.precision not in chosen.precisions:
        raise ConfigError(f"{chosen.name} has no {asked.precision} here. Available: {', '.join(chosen.precisions)}.")
    if asked.batch is not None:
        inputs.positive("batch", asked.batch)
    if asked.opset is not None and not chosen.opsets:
        raise ConfigError(f"opset is of --to onnx, and this is --to {chosen.name}: leave it out.")
    if asked.opset is not None and asked.opset not in chosen.opsets:
        raise ConfigError(f"opset must be {chosen.opsets[0]} to {chosen.opsets[-1]}, got {asked.opset}.")
    if asked.of_int8 and asked.precision != "int8":
        raise ConfigError(f"{', '.join(asked.of_int8)}: this is of int8, and precision is {asked.precision}.")
    if asked.calibration is not None and len(asked.of_int8) > 1:
        raise ConfigError(f"{', '.join(asked.of_int8)} are given, and calibration says all of it: give one of them.")
    if asked.min_same is not None and (asked.precision != "int8" or not 0 <= asked.min_same <= 100):
        raise ConfigError(
            f"min_same is of int8, the percent of answers that must be the same, 0 to 100; got {asked.min_same} "
            f"with {asked.precision}."
        )


def prepare(student: str | Path, chosen: Format, asked: Export) -> ExportJob:
    """Load what an export is made of and compared with."""
    network = load_student(Path(student), model=asked.model, epoch=asked.epoch)
    splits, section = pictures.data_of(Path(student), asked.data, asked.data_set)
    if splits is not None:
        from counterpoise.data.sources.base import Splits
        from counterpoise.engine.evaluator import in_classes_of

        if splits.val.classes:
            splits = Splits(*(in_classes_of(network, part) for part in splits))
        tasks.get(network.task).check(splits.val)
    if network.channels != 3 and not chosen.any_channels:
        able = ", ".join(name for name, one in sorted(base.FORMATS.entries().items()) if one.any_channels)
        raise ConfigError(
            f"--to {chosen.name} is for pictures of three channels here, and this student takes {network.channels}: "
            f"--to {able}."
        )
    size = pictures.size_of(network, asked.size, None if splits is None else splits.val, section)
    batch = 1 if asked.batch is None and not chosen.dynamic_batch else asked.batch
    around = pictures.mean_color(network) if not tasks.get(network.task).whole else None
    request = Request(asked.precision, size, batch, asked.opset, around=around, channels=network.channels)
    if asked.images is not None:
        inputs.positive("images", asked.images)
    seen = 0
    if splits is not None and asked.data_set is None:
        seen = trained_on(Path(student), pictures.spread(splits.val, asked.images), section)
    return ExportJob(
        network,
        Deployed(network),
        chosen,
        request,
        splits,
        section,
        asked.images,
        asked.min_same,
        trained_on=seen,
        show=asked.show,
    )


def settled(job: ExportJob, any_size: bool | None = None) -> ExportJob:
    """The job, with what was decided on sizes: see `sizes.settled`."""
    images = None if job.data is None else job.data.val
    request, note = sizes.settled(job.network, job.format, job.request, images, any_size)
    return job._replace(request=request, notes={"size": note} if note else {})


def calibrated(job: ExportJob, given: Calibration | Mapping[str, Any] | None) -> Calibration:
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
        parts = [
            pictures.one_window(pair.fed, job.request)
            for pair in pictures.pairs(train, job.student, section, job.request)
        ]
        alike = len({part.shape[1:] for part in parts}) == 1
        pixels = torch.cat(parts) if alike else tuple(picture for part in parts for picture in part)
        settings = Calibration(pixels, str(values["method"]), tuple(values["keep"]))
    if isinstance(settings.pixels, Tensor) and (
        settings.pixels.dtype != torch.uint8
        or settings.pixels.shape[1:2] != (job.request.channels,)
        or tuple(settings.pixels.shape[2:]) != (job.request.fed or tuple(settings.pixels.shape[2:]))
    ):
        raise ConfigError(
            f"Calibration pixels must be uint8 [N, {job.request.channels}, {job.request.size[0]}, "
            f"{job.request.size[1]}], got "
            f"{str(settings.pixels.dtype).removeprefix('torch.')} {list(settings.pixels.shape)}."
        )
    if settings.method not in job.format.methods:
        raise ConfigError(unknown(f"Calibration method of {job.format.name}", settings.method, job.format.methods))
    return replace(settings, keep=kept_layers(job.network, settings.keep))


def make(job: ExportJob, out: Path, calibration: Calibration | None) -> dict[str, Any]:
    """The format's files in the folder `out`."""
    metadata = {
        "task": job.student.task,
        "architecture": job.student.name,
        "classes": json.dumps(job.student.classes, ensure_ascii=False),
        "input": json.dumps(taken(job).model_dump()),
    }
    if calibration is None:
        return job.format.convert(job.graph, job.request, metadata, out)
    return job.format.quantize(job.graph, job.request, metadata, out, calibration)


def compared(job: ExportJob, runtime: base.Runtime, out: Path) -> agreement.Agreement | None:
    """The agreement on validation images. Raises ExportError where there is too little of it, with the layer."""
    if job.data is None:
        _compare_generated(job, runtime, out)
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
        job.at_once,
        watch=Pace(len(images), "Compared images", job.show).at,
    )
    found = replace(found, trained_on=job.trained_on)
    objection = found.objection(job.request.precision, job.min_same)
    if objection:
        raise _refusal(job, out, pictures.one_window(first.fed, job.request), objection)
    return found


def _compare_generated(job: ExportJob, runtime: base.Runtime, out: Path) -> None:
    """Without data: raises ExportError where logits of generated pictures differ by more than rounding."""
    shown = pictures.generated(8, job.request.size, job.request.channels)
    expected = agreement.student_answer(job.network, shown)
    answered = torch.from_numpy(agreement.answer(runtime, shown.numpy(), job.request.batch)).float()
    largest, scale = agreement.difference(answered, expected), float(expected.abs().max())
    bound = agreement.rounding(job.request.precision, scale)
    if not largest <= (max(1.0, scale) if bound is None else bound):
        raise _refusal(job, out, shown, f"logits of generated pictures differ by up to {largest:.3g}")


def _refusal(job: ExportJob, out: Path, pixels: torch.Tensor, why: str) -> DisagreementError:
    count = job.request.batch or min(8, len(pixels))
    shown = pixels.repeat(-(-count // len(pixels)), 1, 1, 1)[:count]
    where = agreement.first_apart(job.format.layers(job.graph, out, shown.numpy()), job.request.precision)
    hint = ""
    if job.request.precision == "int8":
        hint = (
            " Keep its sensitive layers in float (--within 0.5, or by name, such as --keep student.net.conv1), or "
            "fine-tune the student for 8 bits (counterpoise finetune)."
        )
    return DisagreementError(f"The {job.format.name} export disagrees with the student: {why}.{where}{hint}", why)


def taken(job: ExportJob) -> folder.Input:
    """What pictures the export takes, for export.json and for what it holds of itself."""
    size = job.request.size
    share = tasks.get(job.student.task).crop_share(job.student, size)
    student, window = job.student, job.request.window
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
            "intensity": None if student.reading.intensity is None else student.reading.intensity.values(),
            "channels": "RGB" if student.channels == 3 else student.channels,
            "window": None if window is None else window._asdict(),
        }
    )
