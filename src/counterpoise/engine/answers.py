"""What is said of students and data, as Python functions: evaluate, predict, gauge, check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from counterpoise import config, tasks
from counterpoise.config.options import Place, keywords_after
from counterpoise.data import checking, summary
from counterpoise.data.images import pictures
from counterpoise.data.slide_file import At
from counterpoise.engine import case_files, inputs, predictions
from counterpoise.engine.answering import answer_for
from counterpoise.engine.evaluator import agreement, answers, full_report, has_labels, in_classes_of
from counterpoise.engine.inputs import RunLike
from counterpoise.engine.networks import build_teacher, has_weights
from counterpoise.engine.options import Evaluate, Predict
from counterpoise.engine.options import Gauge as Gauging
from counterpoise.engine.processes import choose_device
from counterpoise.engine.progress import say, tell
from counterpoise.engine.rehearsing import rehearse
from counterpoise.engine.student import load_student
from counterpoise.engine.trained_on import trained_on
from counterpoise.errors import ConfigError, DataError
from counterpoise.models import several_views
from counterpoise.models.network import VisionModel
from counterpoise.objectives.composite import answers_by_sigmoid
from counterpoise.objectives.gauge import Gauge
from counterpoise.system.files import new_file


@keywords_after("data", Evaluate)
def evaluate(student: Place, options: Evaluate) -> dict[str, Any]:
    """Score a student folder (or a run) on the validation part of a data set: by default that of its run.

    Another folder than the run's, which is not divided into train and val, is scored whole; of a run file's data, the
    part that it holds out.

    Returns:
        Of images without labels the agreement with the teacher of the student's run: agreement_top1 and so on. Else,
        of classification: top1, top5 where there are more than five classes, loss, balanced_accuracy,
        macro_f1 (percent), calibration_error, images, corrupt, and per_class. Of segmentation: miou, dice,
        pixel_accuracy, mean_class_accuracy (percent; of all pixels together), images, corrupt, per_class,
        confusion_matrix (rows are the true classes, in pixels), by_case (mean and standard deviation over cases) and
        cases (the scores of each case and picture). Of both: trained_on, how many of the images the student's own run
        trained on, where there are any; views, over how many answers are averaged, where that is more than one.
    """
    table = None if options.by_case is None else new_file(options.by_case, options.overwrite, "--by-case")
    network = _averaged(load_student(Path(student), model=options.model, epoch=options.epoch), options.views)
    tasks.get(network.task).look(network, options.window, options.overlap, options.blend)
    if table is not None and tasks.get(network.task).whole:
        raise ConfigError(f"by_case is for masks, and the student answers {network.task}: it has no scores by case.")
    images, section = inputs.evaluated(Path(student), options.data, options.split, options.data_set)
    at_once, device = inputs.batch_size(Path(student), options.batch_size), choose_device(options.device)
    if has_labels(images):
        report = full_report(network, images, section, device, at_once, options.show, options.scores)
    else:
        if options.scores or table is not None:
            raise DataError("The images have no masks: scores by case need the truth.")
        report = agreement(network, _teacher_of(Path(student), network), images, section, device, at_once)
    if table is not None:
        case_files.write(table, report)
    seen = 0 if options.data_set is not None else trained_on(Path(student), images, section)
    promised = network.scene_promise or network.promise
    if promised is not None and promised.groups is not None and images.groups is None:
        notes = inputs.without_groups(Path(student), images, promised.groups)
        report = {**report, "notes": [*report.get("notes", []), *notes]}
    if options.views > 1:
        said = f"Answers are {several_views.told(options.views, tasks.get(network.task).whole)}."
        if network.thresholds is not None:
            said += " The thresholds were chosen without, on one view of each."
        report = {**report, "views": options.views, "notes": [*report.get("notes", []), said]}
    return {**report, "trained_on": seen} if seen else report


def _averaged(network: VisionModel, views: int) -> VisionModel:
    """A student whose answers are means over so many views. Raises ConfigError where there are no such views."""
    task = tasks.get(network.task)
    return several_views.averaged(network, inputs.positive("views", views), task.sigmoid, task.whole)


def _teacher_of(student: Path, network: VisionModel) -> VisionModel:
    """The teacher of the run that a student lies in, for images without labels. Raises DataError: there is none."""
    run = inputs.run_around(student)
    if run is None or not has_weights(run):
        raise DataError(
            "The images have no labels, so there is nothing to score answers by: give data with labels (--data), or a "
            "student that lies in its run folder, whose teacher is then asked, too."
        )
    teacher = build_teacher(run, network.classes or ())
    answer_for(tasks.get(run.task), teacher, imitated=True)
    teacher.shown_like(network)
    return teacher


@keywords_after("student", Predict)
def predict(images: Any, options: Predict) -> list[dict[str, Any]]:
    """What a student says of pictures.

    `images` are paths of pictures or of folders of them, bytes of files, PIL images or uint8 arrays [H, W, 3]; a list
    of them, or a single one.

    Returns:
        One answer a picture, in order: its name as "image" and, for classification, {"class", "probability", "top":
        [five of them]}, with "sure" and "set" where the student has made a promise, for multilabel {"labels":
        [{"class", "probability"}, ...], "top"} and the "truth" where data tells, for segmentation {"height", "width",
        "classes": [{"class", "share"}, ...]} and the names of the files written, and of a volume (NIfTI; TIFF stacks
        and series of DICOM where `volumes` says so) how many "slices" it has. A picture that cannot be read has an
        "error" instead.

    Raises:
        CorruptImage: none of the pictures can be read.
    """
    if options.student is None:
        raise ConfigError("predict needs a student: give --student runs/mine.")
    student, out = Path(options.student), None if options.out is None else Path(options.out)
    network = load_student(student, model=options.model, epoch=options.epoch)
    if options.max_megapixels is not None:
        network.reading = network.reading._replace(max_megapixels=options.max_megapixels)
    images = pictures(images, network.channels)
    if options.data is not None and images:
        raise ConfigError("Pictures are given and data, too: it is either of them.")
    _require_of_its_kind(options)
    if options.probabilities is not None and out is None:
        raise ConfigError("There is no folder for the probabilities: give out (--out).")
    if options.beside and out is None:
        raise ConfigError("There is no folder for the pictures: give out (--out).")
    others = {
        title: _averaged(load_student(Path(folder)), options.views) for title, folder in (options.beside or {}).items()
    }
    if "student" in others or "truth" in others or "image" in others:
        raise ConfigError("beside: image, truth and student are panels already; call it otherwise.")
    for model in (network, *others.values()):
        tasks.get(model.task).look(model, options.window, options.overlap, options.blend)
    if tasks.get(network.task).sigmoid and network.thresholds is None:
        tell(["the student brings no thresholds, or not one for each class: it answers from a probability of 0.5 on"])
    skip = False
    if options.data is None:
        at = _level(student, options)
        if at is not None and (options.beside or options.probabilities or options.volumes):
            raise ConfigError("Of slides masks alone are written: leave out beside, probabilities and volumes.")
        axis = _axis(student, options.axis)
        asked = predictions.given(images, network.reading, options.volumes, axis, at)
    else:
        chosen, section = inputs.evaluated(student, options.data, options.split, None)
        skip = section.on_corrupt == "skip"
        some = predictions.SHEETS if options.first is None and out is not None else options.first
        asked = predictions.of_data(chosen, None if some is None else inputs.positive("first", some))
    if options.views > 1:
        tell([f"answers are {several_views.told(options.views, tasks.get(network.task).whole)}"])
    models = {**others, "student": _averaged(network, options.views)}
    return predictions.answers(models, asked, out, options.overwrite, skip, options.probabilities)


def _level(student: Path, options: Predict) -> At | None:
    """At which level slides are read: as asked for, or as in the run of the student; None: they are pictures."""
    run = inputs.run_around(student)
    at = At(options.level, options.mpp)
    if at == At():
        if run is None or run.data.source != "slides":
            return None
        at = At(*(run.data.options.get(key) for key in At._fields))
    at.check()
    return at


def _require_of_its_kind(options: Predict) -> None:
    """Raises ConfigError for what says nothing of pictures by path, or of data."""
    if options.data is None:
        for name, value in (("first", options.first), ("split", options.split)):
            if value is not None:
                raise ConfigError(f"{name} is of data: leave it out with pictures, or give data in their place.")
        return
    if options.level is not None or options.mpp is not None:
        raise ConfigError("level and mpp are of slides by path: of a run file's data they are its data.options.")
    of_paths: tuple[tuple[str, object, str], ...] = (
        ("volumes", options.volumes or None, "its data.source says what they are"),
        ("axis", options.axis, "it is data.options.axis"),
        ("max_megapixels", options.max_megapixels, "it is data.max_megapixels"),
    )
    for name, given, way in of_paths:
        if given is not None:
            raise ConfigError(f"{name} is of pictures by path: of a run file's data {way}.")


def _axis(student: Path, given: int | None) -> int:
    """Along which axis of NIfTI slices lie: as given, or as in the run that a student lies in."""
    run = inputs.run_around(student)
    return int(given if given is not None else 2 if run is None else run.data.options.get("axis", 2))


@keywords_after("data", Gauging)
def gauge(student: Place, options: Gauging) -> dict[str, Any]:
    """How a student's forward and reverse KL to its teacher divide over the classes, on the validation data.

    Returns:
        See `Gauge.compute`, and the names of `corrupt` images.
    """
    network = load_student(Path(student), model=options.model, epoch=options.epoch)
    data_set, teacher = options.data_set, options.teacher
    images, section = inputs.evaluated(Path(student), options.data, None, data_set)
    if images.classes:  # before the teacher is built, which answers in their order
        images = in_classes_of(network, images)
    module = teacher if isinstance(teacher, nn.Module) else None
    named = config.Teacher() if module is not None else inputs.teacher_section(Path(student), teacher)
    run = config.Run(task=network.task, teacher=named, data=config.Data(channels=network.channels))
    other = build_teacher(run, images.classes or network.description.classes, module).eval()
    tell(other.notes)
    other.shown_like(network)
    around = inputs.run_around(Path(student))
    seen = 0 if data_set is not None else trained_on(Path(student), images, section)
    at_once, where = inputs.positive("batch_size", options.batch_size), choose_device(options.device)

    task = tasks.get(network.task)
    answer_for(task, other, imitated=True)
    sigmoid = task.sigmoid or (around is not None and answers_by_sigmoid(around.objective))
    measured = Gauge(network.num_classes, options.temperature, sigmoid)
    task.check(images)
    models: tuple[VisionModel, VisionModel] = network, other
    loaders = [task.eval_loader(images, one, section, batch_size=at_once) for one in models]
    say(summary.of_images(images).add("shown", loaders[0].shown()), options.show)
    both = (answers(one.to(where), loader, where) for one, loader in zip(models, loaders, strict=True))
    for (batch, student_logits), (_, teacher_logits) in zip(*both, strict=True):
        measured.update(*task.alike(student_logits, teacher_logits, batch.target))
    result = measured.compute()
    if not result["positions"]:
        raise DataError("The data has no image to compare student and teacher on.")
    result["corrupt"] = list(loaders[0].corrupt)
    return {**result, "trained_on": seen} if seen else result


def check(data: RunLike, *, sheet: str | Path | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Look a data set through for whatever is wrong with it, and try a batch of a run; nothing is kept.

    Args:
        data: a data folder, or a run. Where the run names a student, and nothing is wrong with its data, one batch is
            looked at, learned by heart and timed as well.
        sheet: PNG to write, with the views of that batch, their labels and what the teacher says of them.
        overwrite: replace that file.

    Returns:
        {"source", "found", "errors", "problems": [{"severity", "what", "way_out", "where", "count"}, ...],
        "rehearsal"}; errors is how many of the problems stop training, found what `said` lines and values tell of the
        data, or None, and rehearsal what `said` lines and values tell of the batch, or None.

    Raises:
        CounterpoiseError: there is no such folder, source or option; or whatever is wrong with the run.
    """
    sheet = None if sheet is None else new_file(sheet, overwrite, "--sheet")
    source, found, problems = checking.check(inputs.named_data(data), inputs.named_task(data))
    errors = sum(problem.severity == "error" for problem in problems)
    run = None if errors else inputs.named_run(data)
    if sheet is not None and run is None and not errors:
        raise ConfigError(f"{sheet} would show a batch of a run, and no run with a student is given: a run file is.")
    tried = None if run is None else rehearse(run, sheet)
    return {
        "source": source,
        "found": None if found is None else {"said": found.text(), **found.values},
        "errors": errors,
        "problems": [problem.values() for problem in problems],
        "rehearsal": None if tried is None else {"said": tried.said(), **tried.values()},
    }
