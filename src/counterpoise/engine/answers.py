"""What is said of students and data, as Python functions: evaluate, predict, gauge, check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from counterpoise import config, tasks
from counterpoise.data import checking, sources, summary
from counterpoise.data.sources.base import Splits
from counterpoise.engine import inputs, predictions
from counterpoise.engine.assemble import build_teacher
from counterpoise.engine.evaluator import answers, full_report, in_classes_of
from counterpoise.engine.inputs import RunLike
from counterpoise.engine.processes import choose_device
from counterpoise.engine.progress import say, tell
from counterpoise.engine.student import load_student
from counterpoise.engine.student_epochs import Epoch
from counterpoise.errors import ConfigError, DataError
from counterpoise.models.catalog import Model
from counterpoise.models.network import VisionModel
from counterpoise.objectives.composite import answers_by_sigmoid
from counterpoise.objectives.gauge import Gauge


def evaluate(
    student: str | Path,
    data: RunLike | None = None,
    *,
    model: Model | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    data_set: Splits | None = None,
    split: str | None = None,
    epoch: Epoch | None = None,
    show: bool = False,
) -> dict[str, Any]:
    """Score a student folder (or a run) on the validation part of a data set.

    Another folder than the run's, which is not divided into train and val, is scored whole; of a run file's data, the
    part that it holds out.

    Args:
        student: student folder, or a run's folder.
        data: a data folder, or a run whose `data` section is used; default: that of the run which `student` lies in.
        model: the student's network, where that is code of one's own: a folder alone gets to run none.
        batch_size: images at once; default: as in the run which `student` lies in, else 250.
        device: as train.device.
        data_set: `Splits(train, val)` instead of `data`.
        split: name of the split to score on, where the data has several, such as "test".
        epoch: of a run, "last" or "best": the student of that epoch; default: the one that ships.
        show: say on stderr what was found in the data.

    Returns:
        Of classification: top1, top5 where there are more than five classes, loss, balanced_accuracy,
        macro_f1 (percent), calibration_error, images, corrupt, and per_class. Of segmentation: miou, dice,
        pixel_accuracy, mean_class_accuracy (percent), images, corrupt, per_class and confusion_matrix (rows are the
        true classes, in pixels). Of both: trained_on, how many of the images the student's own run trained on, where
        there are any.
    """
    network = load_student(Path(student), model=model, epoch=epoch)
    images, section = inputs.evaluated(Path(student), data, split, data_set)
    at_once = inputs.batch_size(Path(student), batch_size)
    report = full_report(network, images, section, choose_device(device), at_once, show)
    seen = 0 if data_set is not None else inputs.trained_on(Path(student), images, section)
    return {**report, "trained_on": seen} if seen else report


def predict(
    images: Sequence[Any],
    student: str | Path,
    *,
    model: Model | None = None,
    out: str | Path | None = None,
    beside: Mapping[str, str | Path] | None = None,
    data: RunLike | None = None,
    split: str | None = None,
    first: int | None = None,
    overwrite: bool = False,
    max_megapixels: float | None = None,
    epoch: Epoch | None = None,
) -> list[dict[str, Any]]:
    """What a student says of pictures.

    Args:
        images: paths of pictures or of folders of them, PIL images or uint8 arrays [H, W, 3].
        student: student folder, or a run's folder.
        model: the student's network, where that is code of one's own: a folder alone gets to run none.
        out: folder for a colored mask of each picture, and for a sheet with the picture, what is known to be there, the
            answers of `beside` and that of the student side by side; segmentation alone.
        beside: further student folders, by the title of their panel, such as teacher or alone.
        data: instead of `images`, the pictures of a data set's validation part, with their masks or classes; a folder
            or a run.
        split: as for `evaluate`.
        first: of the data, so many; default: all, and 8 where there is an `out`.
        overwrite: replace files in `out`.
        max_megapixels: larger pictures are refused; default: 179.
        epoch: of a run, "last" or "best": the student of that epoch; default: the one that ships.

    Returns:
        One answer a picture, in order: its name as "image" and, for classification, {"class", "probability", "top":
        [five of them]} and the "truth" where data tells, for segmentation {"height", "width", "classes": [{"class",
        "share"}, ...]} and the names of the files written. A picture that cannot be read has an "error" instead.

    Raises:
        CorruptImage: none of the pictures can be read.
    """
    network = load_student(Path(student), model=model, epoch=epoch)
    if max_megapixels is not None:
        network.reading = network.reading._replace(max_megapixels=max_megapixels)
    if data is not None and images:
        raise ConfigError("Pictures are given and data, too: it is either of them.")
    if beside and out is None:
        raise ConfigError("There is no folder for the pictures: give out (--out).")
    others = {title: load_student(Path(folder)) for title, folder in (beside or {}).items()}
    if "student" in others or "truth" in others or "image" in others:
        raise ConfigError("beside: image, truth and student are panels already; call it otherwise.")
    skip = False
    if data is None:
        asked = predictions.given(images, network.reading)
    else:
        chosen, section = inputs.evaluated(Path(student), data, split, None)
        skip = section.on_corrupt == "skip"
        some = predictions.SHEETS if first is None and out is not None else first
        asked = predictions.of_data(chosen, None if some is None else inputs.positive("first", some))
    sheets = None if out is None else Path(out)
    return predictions.answers({**others, "student": network}, asked, sheets, overwrite, skip)


def gauge(
    student: str | Path,
    data: RunLike | None = None,
    *,
    teacher: config.Teacher | Mapping[str, Any] | str | Path | nn.Module | None = None,
    model: Model | None = None,
    temperature: float = 1.0,
    batch_size: int = 250,
    device: str = "auto",
    data_set: Splits | None = None,
    epoch: Epoch | None = None,
    show: bool = False,
) -> dict[str, Any]:
    """How a student's forward and reverse KL to its teacher divide over the classes, on the validation data.

    Args:
        student: student folder, or a run's folder.
        data: a data folder, or a run whose `data` section is used; default: that of the run which `student` lies in.
        teacher: a student folder, a run, a module, or the values of a run file's `teacher` section; default: the
            teacher of the run which `student` lies in.
        model: the student's network, where that is code of one's own: a folder alone gets to run none.
        temperature: of both sides' softmax.
        batch_size: images at once.
        device: as train.device.
        data_set: `Splits(train, val)` instead of `data`.
        epoch: of a run, "last" or "best": the student of that epoch; default: the one that ships.
        show: say on stderr what was found in the data.

    Returns:
        See `Gauge.compute`, and the names of `corrupt` images.
    """
    network = load_student(Path(student), model=model, epoch=epoch)
    section = config.Data() if data_set is not None and data is None else inputs.data_section(Path(student), data)
    module = teacher if isinstance(teacher, nn.Module) else None
    run = config.Run(teacher=config.Teacher() if module is not None else inputs.teacher_section(Path(student), teacher))
    images = (data_set if data_set is not None else sources.load(section)).val
    other = build_teacher(run, images.classes or network.description.classes, module).eval()
    tell(other.notes)
    other.shown_like(network)
    around = inputs.run_around(Path(student))
    seen = 0 if data_set is not None else inputs.trained_on(Path(student), images, section)
    at_once, where = inputs.positive("batch_size", batch_size), choose_device(device)

    if images.classes:
        images = in_classes_of(network, images)
    sigmoid = around is not None and answers_by_sigmoid(around.objective)
    measured = Gauge(network.num_classes, temperature, sigmoid)
    task = tasks.get(network.task)
    task.check(images)
    models: tuple[VisionModel, VisionModel] = network, other
    loaders = [task.eval_loader(images, one, section, batch_size=at_once) for one in models]
    say(summary.of_images(images).add("shown", loaders[0].shown()), show)
    both = (answers(one.to(where), loader, where) for one, loader in zip(models, loaders, strict=True))
    for (batch, student_logits), (_, teacher_logits) in zip(*both, strict=True):
        measured.update(*task.alike(student_logits, teacher_logits, batch.target))
    result = measured.compute()
    if not result["positions"]:
        raise DataError("The data has no image to compare student and teacher on.")
    result["corrupt"] = list(loaders[0].corrupt)
    return {**result, "trained_on": seen} if seen else result


def check(data: RunLike) -> dict[str, Any]:
    """Look a data set through for whatever is wrong with it; nothing is trained.

    Args:
        data: a data folder, or a run whose `data` section is used.

    Returns:
        {"source", "found", "errors", "problems": [{"severity", "what", "way_out", "where", "count"}, ...]}; errors is
        how many of the problems stop training, and found what `said` lines and values tell of the data, or None.

    Raises:
        CounterpoiseError: there is no such folder, source or option.
    """
    source, found, problems = checking.check(inputs.named_data(data))
    return {
        "source": source,
        "found": None if found is None else {"said": found.text(), **found.values},
        "errors": sum(problem.severity == "error" for problem in problems),
        "problems": [problem.values() for problem in problems],
    }
