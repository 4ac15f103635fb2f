"""The networks that a run names: its student, and its teacher in the classes of the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from counterpoise import config, tasks
from counterpoise.engine import ensembles, prompting
from counterpoise.engine.answering import answer_for
from counterpoise.errors import ConfigError, ModelError
from counterpoise.models import catalog, checkpoint, two_heads
from counterpoise.models.classmap import map_teacher
from counterpoise.models.network import VisionModel
from counterpoise.teachers.live import refusal_of_probabilities


def has_weights(run: config.Run) -> bool:
    """Whether the network of the run's teacher is there, beside a store."""
    section = run.teacher
    if section is None:
        return False
    live = any(member.store is None for member in section.members)
    return live or section.prompts is not None or weights_named(section)


def weights_named(section: config.Model) -> bool:
    """Whether a section says where the weights of its network are."""
    return section.checkpoint is not None or bool(section.pretrained)


def build_student(run: config.Run, classes: tuple[str, ...], module: nn.Module | None = None) -> VisionModel:
    """The student of a run, with its weights to start from."""
    if module is None and run.student.model is None and run.student.checkpoint is None:
        raise ConfigError(
            "student.model is missing: the network to train, such as cifar/resnet20 or timm/mobilenetv3_small_100."
        )
    section, channels = run.student, run.data.channels
    if section.two_heads:
        if module is not None:
            raise ConfigError("student.two_heads is of a network that is built by name, and a module was handed in.")
        section = section.model_copy(update={"arguments": {**section.arguments, two_heads.ARGUMENT: True}})
    return named(
        section, module, num_classes=len(classes), classes=classes, keep_head=False, channels=channels, adapt=True
    )


def build_teacher(
    run: config.Run,
    classes: tuple[str, ...],
    module: nn.Module | None = None,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - it does not change
    *,
    features_alone: bool = False,
) -> VisionModel:
    """The teacher of a run, answering in the classes of the data; for its `features_alone` in whatever it answers.

    `device` encodes prompts.
    """
    section, channels = run.teacher or config.Teacher(), run.data.channels
    ensembles.require_several(section)
    if section.members or section.views > 1:
        return _several(run, section, classes, module, device, features_alone)
    if section.prompts is not None:
        if channels != 3:
            raise ConfigError(f"teacher.prompts is for pictures of three channels, and data.channels is {channels}.")
        return map_teacher(prompting.build(section, classes, module, device), classes, section.classes)
    if module is None and section.model is None and section.checkpoint is None:
        raise ConfigError("teacher.model is missing: the network to imitate, such as timm/resnet50, with its weights.")
    if module is None and section.checkpoint is None and not section.pretrained:
        raise ConfigError(
            "teacher has no weights: give teacher.checkpoint (a file, student folder or run) or teacher.pretrained."
        )
    if features_alone:
        with torch.random.fork_rng(devices=[]):
            # A classifier that is not there starts anew, and answers nothing: the same one at every start of a run.
            torch.manual_seed(0)
            model = named(
                section,
                module,
                num_classes=len(classes) or 1,
                outputs=section.outputs,
                keep_head=False,
                channels=channels,
            )
            model.notes = (*beside_classifier(model.notes), *_as_they_are(model, section))
            return model
    model = named(section, module, num_classes=None, outputs=section.outputs, channels=channels)
    model.notes = (*model.notes, *_as_they_are(model, section))
    if any(catalog.PROBABILITIES in note for note in model.notes):
        raise ModelError(refusal_of_probabilities(model.name))
    return map_teacher(model, classes, section.classes)


def _as_they_are(model: VisionModel, section: config.Teacher) -> Iterator[str]:
    """A sentence where code of the user's own does not say how it takes pixels, and the run does not either."""
    blank = {"mean": (0.0,) * model.channels, "std": (1.0,) * model.channels}
    for_itself = {"mean", "std"} & {name.rpartition(".")[2] for name, _ in model.net.named_buffers()}
    if model.own and model.normalization == blank and section.mean is section.std is None and not for_itself:
        yield (
            f"{model.name} does not say how it takes pixels: it is shown them in [0, 1], without mean and deviation "
            "(teacher.mean and teacher.std give some, as do attributes of these names)."
        )


def _several(
    run: config.Run,
    section: config.Teacher,
    classes: tuple[str, ...],
    module: nn.Module | None,
    device: torch.device,
    features_alone: bool,
) -> VisionModel:
    """Several networks as one, or one whose answers are means over several views."""
    task = tasks.get(run.task)

    def one(member: config.Teacher) -> VisionModel:
        built = build_teacher(run.model_copy(update={"teacher": member}), (), None, device)
        answer_for(task, built, imitated=True)
        return built

    if section.members and module is not None:
        raise ConfigError("teachers names several networks, and a module was handed in: give one of them.")
    if section.members:
        model = ensembles.build(section, classes, one, task.sigmoid)
    else:
        itself = run.model_copy(update={"teacher": section.model_copy(update={"views": 1})})
        model = build_teacher(itself, classes, module, device, features_alone=features_alone)
    return ensembles.over_views(model, section.views, task.sigmoid, task.whole)


def beside_classifier(notes: Iterable[str]) -> list[str]:
    """What is to be said of a network whose classifier answers nothing, or gives way to another."""
    return [note for note in notes if checkpoint.ANEW not in note and checkpoint.KEPT not in note]


def named(section: config.Model, module: nn.Module | None, **options: Any) -> VisionModel:
    """The network that a section names, or a module in its place; `options` as for `catalog.build`."""
    return catalog.build(
        module if module is not None else section.model,
        checkpoint=section.checkpoint,
        pretrained=section.pretrained,
        arguments=section.arguments,
        mean=section.mean,
        std=section.std,
        input_size=section.input_size,
        which=section.weights,
        **options,
    )
