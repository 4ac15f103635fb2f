"""Every verb of the command line as a function of the same name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoise import config, inputs
from counterpoise.errors import ConfigError, ModelError
from counterpoise.inputs import RunLike

if TYPE_CHECKING:
    from torch import nn

    from counterpoise.data.sources.base import Splits
    from counterpoise.engine.recording import Views
    from counterpoise.engine.trainer import Result
    from counterpoise.models.catalog import Model
    from counterpoise.models.epochs import Epoch


def train(
    run: RunLike,
    *,
    resume: bool = False,
    overwrite: bool = False,
    student: nn.Module | None = None,
    data: Splits | None = None,
    show: bool = False,
    deadline: float | None = None,
) -> Result:
    """Train a network on labels alone: a teacher, or a student to compare with.

    Where `run` is written for distilling, its teacher is left out, and cross-entropy stands alone with weight 1.

    Args: as for `distill`.
    """
    resolved = inputs.resolve(run)
    if resolved.teacher is not None or "objective" not in resolved.model_fields_set:
        labels = resolved.objective.get("cross_entropy", config.Term())
        alone = {"cross_entropy": labels.model_copy(update={"weight": 1.0})}
        resolved = resolved.model_copy(update={"teacher": None, "objective": alone})
    from counterpoise.engine.conduct import conduct

    return conduct(
        resolved, resume=resume, overwrite=overwrite, student=student, data=data, show=show, deadline=deadline
    )


def distill(
    run: RunLike,
    *,
    resume: bool = False,
    overwrite: bool = False,
    student: nn.Module | None = None,
    teacher: nn.Module | None = None,
    data: Splits | None = None,
    show: bool = False,
    deadline: float | None = None,
) -> Result:
    """Train a student that imitates a teacher.

    Args:
        run: a run file's path, its values, or a resolved `Run`.
        resume: go on with the run in the folder `out`, from its last checkpoint.
        overwrite: replace the run in the folder `out`.
        student: a module to train instead of `student.model`.
        teacher: a module to imitate instead of `teacher.model`, with its weights; put in eval mode and frozen.
        data: `Splits(train, val)` instead of `data.path`.
        show: progress on stderr.
        deadline: moment of time.monotonic() at which to stop with a checkpoint, as on Ctrl-C.

    Returns:
        The metrics of the last and of the best epoch, and the run's folder, with the student in `student/`.

    Raises:
        CounterpoiseError: whatever is wrong with the run, the data or the models.
        Interrupted: Ctrl-C, SIGTERM or the deadline; a checkpoint has been written.
    """
    resolved = inputs.resolve(run)
    if resolved.teacher is None and teacher is None:
        raise ConfigError("distill needs a teacher: give teacher.model and teacher.checkpoint, or use train.")
    from counterpoise.engine.conduct import conduct

    return conduct(
        resolved,
        resume=resume,
        overwrite=overwrite,
        student=student,
        teacher=teacher,
        data=data,
        show=show,
        deadline=deadline,
    )


def record(
    run: RunLike,
    *,
    out: str | Path | None = None,
    views: Views = "auto",
    epochs: int | None = None,
    precision: str = "float16",
    part: tuple[int, int] | None = None,
    student: nn.Module | None = None,
    teacher: nn.Module | None = None,
    data: Splits | None = None,
    show: bool = False,
) -> dict[str, Any]:
    """Record what a teacher says of the views that a student will see, for `teacher.store`.

    What is there already stays: a recording that was stopped goes on, and a store gets the epochs that it lacks.

    Args:
        run: as for `distill`; only its data, teacher and the sizes of its networks matter.
        out: folder of the store; default: the run's `out`.
        views: "complete": every view of every image, where they can be counted (pad, crop and mirror), good for any
            number of epochs; "epochs": the views of the first `epochs` epochs of the run's seed; "plain": the images
            without augmentation, for runs without any; "auto": complete where that is possible, else epochs.
        epochs: default: train.epochs.
        precision: "float16", "int8", "int4" (see docs/teacher-store.md), "float32", or "topK" for the K largest logits.
        part: (k, n), the k-th of n parts that processes or machines record, counted from 0; default: as torchrun says.
        student, teacher, data, show: as for `distill`.

    Returns:
        What `store_info` says of the store.

    Raises:
        StoreError: the folder holds something else, or the disk has no room.
    """
    from counterpoise.engine import recording
    from counterpoise.engine.assemble import assemble, settle
    from counterpoise.engine.processes import join
    from counterpoise.teachers import store

    resolved = inputs.resolve(run)
    place = out or resolved.out
    if place is None:
        raise ConfigError("record needs a folder for the store: give --out.")
    if resolved.teacher is None and teacher is None:
        raise ConfigError("record needs a teacher: give teacher.model and teacher.checkpoint.")
    if resolved.teacher is not None:
        resolved = resolved.model_copy(
            update={"teacher": resolved.teacher.model_copy(update={"store": None, "missing": "refuse"})}
        )
    if views == "plain":
        resolved = recording.plain(resolved)
    with join(resolved.train.device) as processes:
        resolved = settle(resolved, processes.device)
        parts = assemble(resolved, processes, student=student, teacher=teacher, data=data)
        finished = recording.record(
            resolved,
            parts,
            Path(place),
            views=views,
            epochs=inputs.positive("epochs", resolved.train.epochs if epochs is None else epochs),
            precision=precision,
            part=part or (processes.rank, processes.world),
            processes=processes,
            show=show,
        )
    return {"store": str(place), "finished": finished, **store.info(Path(place))}


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
    from counterpoise.engine.evaluator import full_report
    from counterpoise.engine.processes import choose_device
    from counterpoise.models.student import load_student

    network = load_student(Path(student), model=model, epoch=epoch)
    images, section = inputs.evaluated(Path(student), data, split, data_set)
    at_once = inputs.batch_size(Path(student), batch_size)
    report = full_report(network, images, section, choose_device(device), at_once, show)
    seen = 0 if data_set is not None else inputs.trained_on(Path(student), images, section)
    return {**report, "trained_on": seen} if seen else report


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
    from counterpoise.data.checking import check as look

    source, found, problems = look(inputs.named_data(data))
    return {
        "source": source,
        "found": None if found is None else {"said": found.text(), **found.values},
        "errors": sum(problem.severity == "error" for problem in problems),
        "problems": [problem.values() for problem in problems],
    }


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
    from torch.nn import Module

    from counterpoise.data import sources
    from counterpoise.engine.assemble import build_teacher
    from counterpoise.engine.gauging import compare_models
    from counterpoise.engine.processes import choose_device
    from counterpoise.engine.progress import tell
    from counterpoise.models.student import load_student
    from counterpoise.objectives.composite import answers_by_sigmoid

    network = load_student(Path(student), model=model, epoch=epoch)
    section = config.Data() if data_set is not None and data is None else inputs.data_section(Path(student), data)
    module = teacher if isinstance(teacher, Module) else None
    run = config.Run(teacher=config.Teacher() if module is not None else inputs.teacher_section(Path(student), teacher))
    images = (data_set if data_set is not None else sources.load(section)).val
    other = build_teacher(run, images.classes or network.description.classes, module).eval()
    tell(other.notes)
    other.shown_like(network)
    around = inputs.run_around(Path(student))
    seen = 0 if data_set is not None else inputs.trained_on(Path(student), images, section)
    result = compare_models(
        network,
        other,
        images,
        section,
        choose_device(device),
        inputs.positive("batch_size", batch_size),
        temperature,
        around is not None and answers_by_sigmoid(around.objective),
        show,
    )
    return {**result, "trained_on": seen} if seen else result


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
    from counterpoise import predicting
    from counterpoise.models.student import load_student

    network = load_student(Path(student), model=model, epoch=epoch)
    if max_megapixels is not None:
        network.reading = network.reading._replace(max_megapixels=max_megapixels)
    if data is not None and images:
        raise ConfigError("Pictures are given and data, too: it is either of them.")
    if beside and out is None:
        raise ConfigError("There is no folder for the pictures: give out (--out).")
    others = {title: load_student(Path(place)) for title, place in (beside or {}).items()}
    if "student" in others or "truth" in others or "image" in others:
        raise ConfigError("beside: image, truth and student are panels already; call it otherwise.")
    skip = False
    if data is None:
        asked = predicting.given(images, network.reading)
    else:
        chosen, section = inputs.evaluated(Path(student), data, split, None)
        skip = section.on_corrupt == "skip"
        some = predicting.SHEETS if first is None and out is not None else first
        asked = predicting.of_data(chosen, None if some is None else inputs.positive("first", some))
    place = None if out is None else Path(out)
    return predicting.answers({**others, "student": network}, asked, place, overwrite, skip)


def try_(
    student: str | Path,
    *,
    out: str | Path | None = None,
    samples: Sequence[str | Path] = (),
    evaluation_pictures: int = 0,
    size: tuple[int, int] | None = None,
    data: RunLike | None = None,
    model: Model | None = None,
    overwrite: bool = False,
    epoch: Epoch | None = None,
) -> dict[str, Any]:
    """Write a static site on which the student answers in its visitors' own browsers.

    Args:
        student: student folder, or a run's folder.
        out: folder of the site; default: sites/NAME.
        samples: pictures, or folders of them, that the page offers; default: drawn ones.
        evaluation_pictures: how many pictures of the student's evaluation data the page offers.
        size: height and width of the pixels that the student is shown, where neither it nor its data says so.
        data: a folder or a run to calibrate 8 bits with; default: the data of the run which `student` lies in.
        model: the student's network, where that is code of one's own: a folder alone gets to run none.
        overwrite: replace an older site.
        epoch: of a run, "last" or "best": the student of that epoch; default: the one that ships.

    Returns:
        {"site", "bytes", "first_visit_bytes", "exports": {precision: bytes}, "notes"}; notes says why where there
        are no 8 bits.

    Raises:
        CounterpoiseError: the student cannot be exported, or onnxruntime-web is not here and cannot be fetched.
    """
    from counterpoise.browser.making import make

    return make(
        student,
        out=out,
        chosen=samples,
        evaluation_pictures=evaluation_pictures,
        size=size,
        data=data,
        model=model,
        overwrite=overwrite,
        epoch=epoch,
    )


def watch(run: str | Path, *, terminal: bool | None = None, port: int = 0) -> None:
    """Show a run while it goes on; it is only read.

    Args:
        run: the run's folder; it may be made later.
        terminal: as a table in the terminal, until the run has finished; False: as a page from a server on 127.0.0.1,
            until Ctrl-C; None: a page where a browser can be opened here.
        port: of that server; 0 is any free one.
    """
    from counterpoise import watching

    watching.watch(run, terminal=terminal, port=port)


def listing(what: str) -> list[dict[str, Any]]:
    """Rows of `list objectives|models|sources`."""
    if what == "objectives":
        from counterpoise.objectives.base import entries

        return [
            {
                "name": entry.name,
                "summary": entry.summary,
                "needs": sorted(entry.kind.needs),
                "defaults": entry.defaults,
                "paper": entry.paper,
                "year": entry.year,
            }
            for entry in entries().values()
        ]
    if what == "models":
        from counterpoise.models import catalog

        return [{"name": name} for name in catalog.names()]
    if what == "sources":
        from counterpoise.data import sources

        options = sources.options()
        return [
            {"name": name, "summary": summary, "options": options[name]}
            for name, summary in sources.summaries().items()
        ]
    from counterpoise.errors import unknown

    raise ConfigError(unknown("List", what, ["objectives", "models", "sources"]))


def summary(result: Result) -> dict[str, Any]:
    """A result as plain JSON values."""
    values = json.loads(json.dumps(asdict(result), default=str))
    if not isinstance(values, dict):
        raise ModelError("a result must be a mapping")
    return values
