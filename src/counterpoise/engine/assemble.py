"""From a run file to the parts of a run: data, models, objective."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from counterpoise import config, tasks
from counterpoise.data import checking, noticing, sources, summary
from counterpoise.data.epochs import Epochs
from counterpoise.data.images import reading_specification
from counterpoise.data.sources.base import ArraySet, ImageSet, Splits
from counterpoise.data.summary import Found
from counterpoise.engine.fast.capturability import obstacle
from counterpoise.engine.identify import identify
from counterpoise.engine.processes import Processes, half_precision_helps
from counterpoise.errors import ConfigError, MissingExtraError, ModelError
from counterpoise.models import catalog
from counterpoise.models.classmap import map_teacher
from counterpoise.models.network import VisionModel
from counterpoise.objectives.composite import WeightedSum
from counterpoise.outputs import Outputs
from counterpoise.teachers import asking, resident
from counterpoise.teachers import identity as teacher_identity
from counterpoise.teachers.live import LiveTeacher, refusal_of_probabilities
from counterpoise.teachers.store import Store
from counterpoise.teachers.stored import LoaderTeacher


@dataclass
class Parts:
    """What a run is made of.

    Attributes:
        run: with what its data decided.
        identity: of the data and of the teacher; see `engine.identify`.
        teacher_identity: of the network itself; empty where there is a store alone.
        in_arrays: whether the source of the data holds them in memory by itself.
        fast: whether its steps are those of `engine.fast`.
        obstacle: what is in the way of these, where they were looked for.
        found: what the data is, and how it is shown.
    """

    run: config.Run
    classes: tuple[str, ...]
    task: tasks.Task
    student: VisionModel
    teacher: LiveTeacher | None
    objective: WeightedSum
    stored: LoaderTeacher | None
    train: Epochs
    val: tasks.Evaluation
    fingerprint: str
    identity: dict[str, str]
    teacher_identity: dict[str, str]
    labeled: bool
    in_arrays: bool
    found: Found
    fast: bool = False
    obstacle: str | None = None


def resolve_auto(run: config.Run, device: torch.device) -> config.Run:
    """The run with every `auto` that depends on the machine decided, as it is kept in the run folder."""
    train = run.train
    if train.precision == "auto":
        train = train.model_copy(update={"precision": "bf16" if half_precision_helps(device) else "fp32"})
    if train.channels_last == "auto":
        # Convolutions on CUDA and bf16 convolutions on CPUs run faster with channels innermost; fp32 on CPUs does not.
        train = train.model_copy(update={"channels_last": device.type == "cuda" or train.precision == "bf16"})
    teacher = run.teacher
    if teacher is not None and teacher.precision == "auto":
        teacher = teacher.model_copy(update={"precision": train.precision})
    return run.model_copy(update={"train": train, "teacher": teacher})


def assemble(
    run: config.Run,
    processes: Processes,
    *,
    student: nn.Module | None = None,
    teacher: nn.Module | None = None,
    data: Splits | None = None,
) -> Parts:
    """Build everything that `run` names; modules and data may be handed in instead.

    Raises ConfigError, DataError or ModelError for whatever does not fit.
    """
    if processes.device.type == "cuda" and processes.device.index is not None:
        torch.cuda.set_device(processes.device)  # streams, graphs and Triton work on the current one
    splits = data if data is not None else sources.load(run.data)
    task = tasks.get(run.task)
    for part in splits:
        task.check(part)
    limit = int(run.data.memory_limit_gb * 1e9)
    train, val = (sources.in_memory(part, limit, run.data.on_corrupt) for part in splits)
    if run.train.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise MissingExtraError("train.tensorboard", "tensorboard")
    objective = task.objective(run, train)
    distils = "teacher" in objective.needs
    if not distils and (run.teacher is not None or teacher is not None):
        raise ConfigError("There is a teacher, and no term of the objective listens to it: add one, or use train.")
    there = teacher is not None or has_weights(run)
    store = _open_store(run, objective, there) if distils else None
    asked = store is None or there
    teacher_model = build_teacher(run, train.classes, teacher) if distils and asked else None
    if teacher_model is not None and not train.classes and teacher_model.classes is None:
        teacher_model.classes = tuple(str(index) for index in range(teacher_model.num_classes))
    classes = train.classes or (teacher_model.classes if teacher_model is not None else None) or ()
    if not classes and store is not None:
        classes = store.header.classes
    if not classes:
        raise ConfigError("The data has no labels: only distill, with a teacher, learns from it.")
    labeled = bool((train.labels != sources.UNLABELED).any())
    if not labeled and not distils:
        raise ConfigError("The data has no labels, and no term of the objective listens to a teacher.")

    torch.manual_seed(run.seed)
    student_model = build_student(run, classes, student)
    task.ready(student_model, run)
    student_model.reading = splits.train.reading
    models = [student_model, *([teacher_model] if teacher_model is not None else [])]
    for model in models:
        if catalog.is_code(model.name):  # one's own says nothing of its task
            model.task = run.task
        if model.task != run.task:
            raise ConfigError(
                f"{model.name} is a network for {model.task}, and the run is for {run.task} (set task: {model.task})."
            )
    memory = torch.channels_last if run.train.channels_last else torch.contiguous_format
    for model in models:
        model.memory_format = memory
        model.to(processes.device)
        model.net.to(memory_format=memory)  # type: ignore[call-overload]
        if run.train.compile:
            model.compile()
    live = None
    if teacher_model is not None:
        half = run.teacher is not None and run.teacher.precision == "bf16"
        live = LiveTeacher(teacher_model, processes.device, torch.bfloat16 if half else torch.float32)
    run = task.decide(run, train, models)
    if run.data.alpha == "auto":
        decided = run.data.model_copy(update={"alpha": splits.train.reading.alpha})
        run = run.model_copy(update={"data": decided})
    loader = task.train_loader(
        train,
        run,
        models,
        num_classes=len(classes),
        rank=processes.rank,
        world=processes.world,
        device=processes.device,
    )
    own_fits = [model.fit for model in models]
    task.fit(models, run.data, loader)
    fingerprint = train.fingerprint()
    own = None if live is None else teacher_identity.of(live.model, live.precision)
    stored = None
    if store is not None:
        stored = LoaderTeacher(
            store,
            loader,
            processes.device,
            data=splits.train,
            classes=classes,
            teacher=own,
            live=live if run.teacher is not None and run.teacher.missing == "live" else None,
        )
        if live is not None and not teacher_identity.whole(store.header.identity):
            asking.require_same(store.name, store.header, *asking.read(store, stored.positions), live, loader)
        if run.teacher is not None and run.teacher.outputs == "auto":
            asking.require_logits(store, stored.positions)
        stored.require_epochs(run.train.epochs)
    if "features" in objective.needs:
        _show_example(objective, loader, student_model, live)
    wanted = run.train.fast is True or (run.train.fast == "auto" and processes.device.type == "cuda")
    if stored is not None and (wanted or processes.device.type == "cuda"):
        resident.hold(stored)
    why_not = obstacle(processes, student_model, objective, loader, stored, run.train.epochs) if wanted else None
    if run.train.fast is True and why_not is not None:
        raise ConfigError(f"train.fast: this run needs general steps: {why_not}. Leave it at auto.")

    evaluated = evaluation_loader(val, student_model, run, processes)
    found = summary.of_splits(Splits(train, val))
    found.add("shown", f"in training {loader.shown()}; in evaluation {evaluated.shown()}")
    notes = [] if store is None else asking.notes(store, asked=live is not None)
    for note in [*_notes(splits, models, own_fits), *notes]:
        found.note(note)
    found.corrupt([*train.corrupt, *val.corrupt])
    found.warn(checking.cheap(splits))
    return Parts(
        run=run,
        classes=classes,
        task=task,
        student=student_model,
        teacher=live if stored is None else stored.live,
        objective=objective.to(processes.device),
        stored=stored,
        train=loader,
        val=evaluated,
        fingerprint=fingerprint,
        identity=identify(*splits, own or ({} if store is None else store.header.identity)),
        teacher_identity=own or {},
        labeled=labeled,
        in_arrays=isinstance(splits.train, ArraySet),
        found=found,
        fast=wanted and why_not is None,
        obstacle=why_not,
    )


def _notes(splits: Splits, models: list[VisionModel], own_fits: list[str]) -> Iterator[str]:
    """What is to be said of the models beside the data; own_fits: how they fitted pictures before this run."""
    for model in models:
        yield from model.notes
    if any(model.task == "classification" and model.fit == "crop" and model.input_size is not None for model in models):
        yield from noticing.cut_off(splits.train)
    reading = splits.train.reading
    for model, fit in zip(models[1:], own_fits[1:], strict=True):
        if fit not in ("crop", model.fit):
            yield f"The teacher was trained with data.fit {fit}, and these pictures are shown to it with {model.fit}."
        if model.by_position and model.classes:
            names = model.classes
            shown = names if len(names) <= 12 else [*names[:11], "...", names[-1]]
            yield (
                f"The teacher does not name its classes: its outputs 0 to {len(names) - 1} are taken for "
                f"{', '.join(shown)}, in this order (teacher.classes gives another)."
            )
        if reading_specification(model.reading) != reading_specification(reading):
            own, given = (
                f"alpha {one.alpha}, white level {one.white_level or 65535}" for one in (model.reading, reading)
            )
            yield f"The teacher was trained on pictures that were read with {own}, and these are read with {given}."


def open_store(run: config.Run) -> Store | None:
    """The store of a run that has one."""
    if run.teacher is None or run.teacher.store is None:
        return None
    # Stores by epochs hold the views of one seed, and a comparison has several.
    return Store.open(run.teacher.store.replace("{seed}", str(run.seed)))


def _open_store(run: config.Run, objective: WeightedSum, teacher: bool) -> Store | None:
    """The same, checked; `teacher`: whether its network is there, too."""
    section = run.teacher
    if section is None or section.store is None:
        return None
    if objective.teacher_features:
        raise ConfigError(
            f"A store holds logits, and the objective looks at features of the teacher, too "
            f"({', '.join(objective.teacher_features)}): leave out teacher.store, or that term."
        )
    if section.missing == "live" and not teacher:
        raise ConfigError("teacher.missing: live needs the teacher itself: give teacher.checkpoint or pretrained.")
    return open_store(run)


def has_weights(run: config.Run) -> bool:
    """Whether the network of the run's teacher is there, beside a store."""
    return run.teacher is not None and (run.teacher.checkpoint is not None or bool(run.teacher.pretrained))


def _show_example(objective: WeightedSum, loader: Epochs, student: VisionModel, teacher: LiveTeacher | None) -> None:
    """Let the objective build its adapters for the shapes that the networks really give."""
    batch = next(loader.epoch(0))
    images = batch.images[:2].to(next(student.parameters()).device)
    was_training = student.training
    with torch.no_grad():
        outputs = student.eval()(images, objective.student_features)
    student.train(was_training)
    answer = None if teacher is None else teacher(images, objective.teacher_features)
    objective.prepare(outputs if isinstance(outputs, Outputs) else Outputs(outputs), answer, len(loader.images))


def evaluation_loader(images: ImageSet, model: VisionModel, run: config.Run, processes: Processes) -> tasks.Evaluation:
    """This process's share of the images, as `model` sees them when it is evaluated."""
    return tasks.get(run.task).eval_loader(
        images, model, run.data, batch_size=run.train.batch_size, rank=processes.rank, world=processes.world
    )


def build_student(run: config.Run, classes: tuple[str, ...], module: nn.Module | None = None) -> VisionModel:
    """The student of a run, with its weights to start from."""
    section = run.student
    if module is None and section.model is None and section.checkpoint is None:
        raise ConfigError(
            "student.model is missing: the network to train, such as cifar/resnet20 or timm/mobilenetv3_small_100."
        )
    return catalog.build(
        module if module is not None else section.model,
        num_classes=len(classes),
        classes=classes,
        keep_head=False,
        **_common(section),
    )


def build_teacher(run: config.Run, classes: tuple[str, ...], module: nn.Module | None = None) -> VisionModel:
    """The teacher of a run, answering in the classes of the data."""
    section = run.teacher or config.Teacher()
    if module is None:
        if section.model is None and section.checkpoint is None:
            raise ConfigError(
                "teacher.model is missing: the network to imitate, such as timm/resnet50, with its weights."
            )
        if section.checkpoint is None and not section.pretrained:
            raise ConfigError(
                "teacher has no weights: give teacher.checkpoint (a file, student folder or run) or teacher.pretrained."
            )
    model = catalog.build(
        module if module is not None else section.model, num_classes=None, outputs=section.outputs, **_common(section)
    )
    if any(catalog.PROBABILITIES in note for note in model.notes):
        raise ModelError(refusal_of_probabilities(model.name))
    return map_teacher(model, classes, section.classes) if classes else model


def _common(section: config.Model) -> dict[str, Any]:
    checkpoint: Path | None = section.checkpoint
    return {
        "checkpoint": checkpoint,
        "pretrained": section.pretrained,
        "arguments": section.arguments,
        "mean": section.mean,
        "std": section.std,
        "input_size": section.input_size,
        "which": section.weights,
    }


def present(run: config.Run) -> dict[str, str]:
    """What `identify` tells of a run as its data and its teacher are now, without training it.

    Raises CounterpoiseError where they cannot be read.
    """
    splits = sources.load(run.data)
    teacher: teacher_identity.Identity = {}
    if run.teacher is not None and (has_weights(run) or run.teacher.store is None):
        teacher = teacher_identity.of(build_teacher(run, splits.train.classes), torch.float32)
    elif run.teacher is not None:
        store = open_store(run)
        teacher = store.header.identity if store is not None else {}
    return identify(splits.train, splits.val, teacher)
