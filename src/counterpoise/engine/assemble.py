"""From a run file to the parts of a run: data, models, teacher, steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from counterpoise import config, tasks
from counterpoise.data import checking, noticing, sources, summary
from counterpoise.data.epochs import Epochs, InOrder
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import ImageSet, Splits
from counterpoise.data.sources.halves import HANDED_IN, agreed, handed_in
from counterpoise.engine import ensembles, judging, learning, mixing_heads, prompting, recorded, remarks, trackers
from counterpoise.engine.answering import answer_for
from counterpoise.engine.evaluator import has_labels
from counterpoise.engine.fast.capturability import find_obstacle
from counterpoise.engine.identify import identify, own
from counterpoise.engine.networks import build_student, build_teacher, has_weights, weights_named
from counterpoise.engine.parts import Parts
from counterpoise.engine.processes import Processes, errors_explained, half_precision_helps
from counterpoise.engine.synchronizing import synchronize
from counterpoise.errors import ConfigError, DataError
from counterpoise.models.network import VisionModel
from counterpoise.objectives.composite import WeightedSum
from counterpoise.outputs import Outputs, in_eval_mode
from counterpoise.teachers import asking, classifier, identity, resident, sharded
from counterpoise.teachers.live import LiveTeacher
from counterpoise.teachers.store import Recorded, Store
from counterpoise.teachers.stored import LoaderTeacher
from counterpoise.teachers.stores_as_one import StoresAsOne

NO_CLASSES = ("no class",)
"""Of a student that imitates features of images without labels: a network has some classifier."""


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
    task = tasks.get(run.task)
    splits, train, val = load_data(run, task, data)
    trackers.require(run)
    objective = task.objective(run, train)
    models = build_models(run, task, splits, objective, processes, student, teacher)
    mixing_heads.route(objective, models.student, run.task)
    frozen = learning.freeze(models.student, run.student.freeze)
    networks = [network for network in (models.student, models.teacher) if network is not None]
    run = task.decide(run, train, networks)
    if run.data.alpha == "auto":
        run = run.model_copy(update={"data": run.data.model_copy(update={"alpha": splits.train.reading.alpha})})
    share = tasks.Share(processes.rank, processes.world)
    loader = task.train_loader(train, run, num_classes=len(models.classes), share=share, device=processes.device)
    teacher_fit = None if models.teacher is None else models.teacher.fit
    task.fit(networks, run.data, loader)
    run = prompting.calibrated(run, models.teacher, train, processes.device)
    if run.teacher is not None and run.teacher.minimum_confidence:
        task.leave_out(objective, run.teacher.minimum_confidence)
    classifier.tell(objective, models.teacher, lambda: next(loader.views_of([torch.arange(1)], 0)))
    live, stored, teacher_identity = open_teacher(run, models, splits, loader)
    if "features" in objective.needs:
        _show_example(objective, loader, models.student, live)
    norms = 0
    if run.train.sync_batch_norm and processes.world > 1:
        norms = sum(synchronize(one, processes.device) for one in (models.student.net, objective))

    judging.check(run, task, models.student, val)
    evaluated = evaluation_loader(val, models.student, run, processes)
    found = summary.of_splits(Splits(train, val))
    found.add("shown", f"in training {loader.shown()}; in evaluation {evaluated.shown()}")
    found.add("order", loader.order.shown())
    judged = None if has_labels(val) or objective.of_features_alone else remarks.without_labels(models.teacher)
    for note in [
        *filter(None, [judged]),
        *remarks.of_networks(splits, networks, teacher_fit),
        *noticing.of_order(loader.images, loader.order, run.data),
        *remarks.of_balance(run),
        *remarks.of_resized_views(run, models.student),
        *remarks.of_keys_without_effect(run),
        *remarks.of_photos_without_labels(run, run.teacher is not None or models.teacher is not None),
        *remarks.of_few_labels(run, loader.images, objective),
        *remarks.of_weighed_labels(run, objective),
    ]:
        found.note(note)
    if frozen is not None:
        found.note(frozen if student is not None or weights_named(run.student) else f"{frozen}, at random")
    if models.store is not None:
        for note in [*asking.notes(models.store, asked=live is not None), *recorded.of_precision(models.store, run)]:
            found.note(note)
    if run.train.sync_batch_norm and not norms:
        where = "no batch norm is trained" if processes.world > 1 else "one process has the whole batch anyway"
        found.note(f"train.sync_batch_norm changes nothing here: {where}.")
    if _shards(run) and models.teacher is None:
        found.note("teacher.shard changes nothing here: the teacher is read from its store.")
    found.corrupt([*train.corrupt, *val.corrupt])
    found.warn(checking.cheap(splits))
    parts = Parts(
        run=run,
        classes=models.classes,
        task=task,
        student=models.student,
        teacher=live if stored is None else stored.live,
        objective=objective.to(processes.device),
        stored=stored,
        train=loader,
        val=evaluated,
        identity=identify(
            *splits, teacher_identity or ({} if stored is None else stored.store.header.identity), run.data
        )
        | own(run),
        teacher_identity=teacher_identity,
        labeled=has_labels(val),
        in_arrays=isinstance(splits.train, ArraySet),
        found=found,
        beside=None if has_labels(val) else live,
    )
    parts.fast, parts.obstacle = choose_steps(parts, processes)
    return parts


def load_data(run: config.Run, task: tasks.Task, given: Splits | None) -> tuple[Splits, ImageSet, ImageSet]:
    """Both halves as their source gives them, and each decoded into memory where it fits.

    What is decoded for each view, at a size of its own, stays in its files.
    """
    splits = sources.load(run.data) if given is None else agreed(handed_in(given), HANDED_IN)
    for part in splits:
        task.check(part)
        if part.channels != run.data.channels:
            raise ConfigError(
                f"The images that were handed in have {part.channels} channels, and data.channels is "
                f"{run.data.channels}: say how many they have."
            )
        for key in ("intensity", "white_level"):
            if getattr(run.data.reading, key) != getattr(part.reading, key):
                raise ConfigError(
                    f"data.{key} is of the values in files, and the images that were handed in are read otherwise: "
                    "read them with it (counterpoise.data.sources.load), or leave it out."
                )
    if splits.val.multilabel and not splits.val.unlabeled and not any(splits.val.per_class() or ()):
        raise DataError(
            "No validation image has any of the labels, so that no score says how well they are told: hold some that "
            "have them out, --data.val_fraction or --data.held_out."
        )
    alike = bool(splits.train.called) and splits.train.called == splits.val.called and splits.val.split_from is None
    if task.sigmoid and alike:
        raise ConfigError(
            f"No picture is held out: val is '{splits.val.called}', which is trained on, too, and thresholds would be "
            "chosen on pictures that were learned. Hold some out, --data.held_out N, or name another part, "
            "--data.options.val_split."
        )
    limit = int(run.data.memory_limit_gb * 1e9)
    val = sources.in_memory(splits.val, limit, run.data.on_corrupt)
    if run.data.views.decode == "scaled":
        return splits, splits.train, val
    train = sources.in_memory(splits.train, limit, run.data.on_corrupt)
    return splits, train, val


def _labeled(splits: Splits) -> bool:
    return splits.train.unlabeled < len(splits.train)


class Models(NamedTuple):
    """The student, the teacher as a network, as a store or as both, and the classes that all answer in."""

    student: VisionModel
    teacher: VisionModel | None
    store: Recorded | None
    classes: tuple[str, ...]


def build_models(
    run: config.Run,
    task: tasks.Task,
    splits: Splits,
    objective: WeightedSum,
    processes: Processes,
    student: nn.Module | None,
    teacher: nn.Module | None,
) -> Models:
    """The models of a run, on their device; a teacher that is to be shared out is on none yet."""
    device = processes.device
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # streams, graphs and Triton work on the current one
    distils = "teacher" in objective.needs
    if not distils and (run.teacher is not None or teacher is not None):
        raise ConfigError("There is a teacher, and no term of the objective listens to it: add one, or use train.")
    has_network = teacher is not None or has_weights(run)
    if has_network and _shards(run):
        sharded.require_several(processes.world, device)
    store = open_store(run, objective, has_network) if distils else None
    classes = splits.train.classes
    alone, read_on = objective.of_teacher_features_alone, torch.device("cpu") if _shards(run) else device
    asked = distils and (has_network or store is None)
    teacher_model = build_teacher(run, classes, teacher, read_on, features_alone=alone) if asked else None
    if objective.teacher_features and run.teacher is not None and run.teacher.views > 1:
        raise ConfigError("teacher.views averages answers, and the objective looks at the teacher's features, too.")
    stages = [name for name in objective.teacher_features if name.startswith("@")]
    if stages and run.teacher is not None and run.teacher.members:
        raise ConfigError(
            f"Several teachers have no stage {stages[0]} in common, and the objective looks at it: leave out that term,"
            " name a module of one of them, such as teacher_feature: members.0.net.layer4, or give one teacher."
        )
    if not classes and alone and teacher_model is not None:
        classes = NO_CLASSES
    if not classes and teacher_model is not None:
        if teacher_model.classes is None:
            teacher_model.classes = tuple(str(index) for index in range(teacher_model.num_classes))
        classes = teacher_model.classes
    if not classes and store is not None:
        classes = store.header.classes
    if not classes:
        raise ConfigError("The data has no labels: only distill, with a teacher, learns from it.")
    if not distils and not _labeled(splits):
        raise ConfigError("The data has no labels, and no term of the objective listens to a teacher.")

    torch.manual_seed(run.seed)
    student_model = build_student(run, classes, student)
    task.ready(student_model, run)
    student_model.reading = splits.train.reading
    memory = torch.channels_last if run.train.channels_last else torch.contiguous_format
    for model in [student_model] if teacher_model is None else [student_model, teacher_model]:
        answer_for(task, model, imitated=model is teacher_model)
        model.memory_format = memory
        if model is teacher_model and _shards(run):
            continue  # stays where it was read, until it is shared out
        model.to(device)
        model.net.to(memory_format=memory)  # type: ignore[call-overload]
        if run.train.compile:
            model.compile()
    return Models(student_model, teacher_model, store, classes)


def open_teacher(
    run: config.Run, models: Models, splits: Splits, loader: Epochs
) -> tuple[LiveTeacher | None, LoaderTeacher | None, dict[str, str]]:
    """The teacher that answers live, the one that is read from a store, and who the first is; what there is of them."""
    live, found = None, {}
    if models.teacher is not None:
        half = run.teacher is not None and run.teacher.precision == "bf16"
        precision = torch.bfloat16 if half else torch.float32
        found = identity.of(models.teacher, precision)
        if _shards(run):
            first = next(loader.views_of([torch.arange(1)], 0))
            with errors_explained():
                live = sharded.share_out(models.teacher, loader.device, precision, found, first)
        else:
            live = LiveTeacher(models.teacher, loader.device, precision)
    if models.store is None:
        return live, None, found
    store = models.store
    stored = LoaderTeacher(
        store,
        loader,
        loader.device,
        data=splits.train,
        classes=models.classes,
        teacher=found or None,
        live=live if run.teacher is not None and run.teacher.missing == "live" else None,
    )
    if live is not None and not identity.whole(store.header.identity):
        asking.require_same(store.name, store.header, *asking.read(store, stored.positions), live, loader)
    if run.teacher is not None and run.teacher.outputs == "auto":
        asking.require_logits(store, stored.positions)
    stored.require_epochs(run.train.epochs)
    return live, stored, found


def choose_steps(parts: Parts, processes: Processes) -> tuple[bool, str | None]:
    """Whether the steps of a run are those of `engine.fast`, and what is in the way where these were looked for."""
    on_cuda, fast = processes.device.type == "cuda", parts.run.train.fast
    wanted = fast is True or (fast == "auto" and on_cuda)
    if parts.stored is not None and (wanted or on_cuda):
        resident.hold(parts.stored)
    if not wanted:
        return False, None
    obstacle = find_obstacle(parts, processes)
    if fast is True and obstacle is not None:
        raise ConfigError(f"train.fast: this run needs general steps: {obstacle}. Leave it at auto.")
    return obstacle is None, obstacle


def open_store(run: config.Run, objective: WeightedSum | None = None, has_network: bool = True) -> Recorded | None:
    """The store of a run that has one, or several as one.

    Raises ConfigError where it has not what the objective looks at, or the teacher itself is wanted beside it and not
    there.
    """
    section = run.teacher
    stored = [] if section is None else [member.store for member in section.members if member.store is not None]
    if section is None or (section.store is None and not stored):
        return None
    ensembles.require_several(section)
    if objective is not None and objective.teacher_features:
        raise ConfigError(
            f"A store holds logits, and the objective looks at features of the teacher, too "
            f"({', '.join(objective.teacher_features)}): leave out teacher.store, or that term."
        )
    if section.missing == "live" and not has_network and not stored:
        raise ConfigError("teacher.missing: live needs the teacher itself: give teacher.checkpoint or pretrained.")
    if stored:
        sigmoid = tasks.get(run.task).sigmoid
        ensembles.require_members_say_it(section, sigmoid)
        weights = [member.weight for member in section.members]
        stores = [_opened(name, run) for name in stored]
        for number, (member, store) in enumerate(zip(section.members, stores, strict=True), 1):
            recorded.require_as_recorded(member, store, f"teachers.{number}", beside=False)
        return StoresAsOne(stores, weights, section.combine, sigmoid)
    assert section.store is not None
    store = _opened(section.store, run)
    if not has_network:
        recorded.require_as_recorded(section, store)
    return store


def _opened(name: str, run: config.Run) -> Store:
    """Stores by epochs hold the views of one seed, and a comparison has several."""
    return Store.open(name.replace("{seed}", str(run.seed)))


def _shards(run: config.Run) -> bool:
    """Whether each process is to keep a share of the teacher alone."""
    return run.teacher is not None and run.teacher.shard


def _show_example(objective: WeightedSum, loader: Epochs, student: VisionModel, teacher: LiveTeacher | None) -> None:
    """Let the objective build its adapters for the shapes that the networks really give."""
    batch = next(loader.epoch(0))
    images = batch.images[:2].to(next(student.parameters()).device)
    with in_eval_mode(student), torch.no_grad():
        outputs = student(images, objective.student_features)
    answer = None if teacher is None else teacher(images, objective.teacher_features)
    objective.prepare(outputs if isinstance(outputs, Outputs) else Outputs(outputs), answer, len(loader.images))


def evaluation_loader(images: ImageSet, model: VisionModel, run: config.Run, processes: Processes) -> InOrder:
    """This process's share of the images, as `model` sees them when it is evaluated."""
    share = tasks.Share(processes.rank, processes.world)
    return tasks.get(run.task).eval_loader(images, model, run.data, batch_size=run.train.batch_size, share=share)


def teacher_of(run: config.Run, classes: tuple[str, ...]) -> VisionModel:
    """The teacher of a run as training would build it, by names alone. Raises CounterpoiseError."""
    alone = WeightedSum(run.objective).of_teacher_features_alone
    return build_teacher(run, classes, features_alone=alone)


def present(run: config.Run) -> dict[str, str]:
    """What `identify` tells of a run as its data and its teacher are now, without training it.

    Raises CounterpoiseError where they cannot be read.
    """
    splits = sources.load(run.data)
    return identify(splits.train, splits.val, teacher_identity(run, splits.train.classes), run.data)


def teacher_identity(run: config.Run, classes: tuple[str, ...]) -> identity.Identity:
    """Who the teacher of a run is now, or who answered its store. Raises CounterpoiseError where it cannot be read."""
    if run.teacher is not None and (has_weights(run) or run.teacher.store is None):
        return prompting.known(run, identity.of(teacher_of(run, classes), torch.float32))
    store = open_store(run)
    return {} if store is None else store.header.identity
