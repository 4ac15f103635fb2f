"""A teacher that answers by prompts: built for the classes of a run, and its one number fitted on labeled images."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from counterpoise import config, tasks
from counterpoise.data.sources.base import UNLABELED, ImageSet
from counterpoise.engine.evaluator import answers
from counterpoise.errors import ConfigError
from counterpoise.models import catalog
from counterpoise.models.network import VisionModel
from counterpoise.models.prompts import reading
from counterpoise.models.prompts.network import by_prompts
from counterpoise.teachers.identity import Identity

IMAGES = 1000
"""Labeled training images that a temperature is fitted on, spread evenly over all of them."""
COLDEST, HOTTEST = 0.01, 100.0
"""Between which temperatures are looked for."""
_CALIBRATION = "calibration"


def build(
    section: config.Teacher, classes: tuple[str, ...], module: nn.Module | None, device: torch.device
) -> VisionModel:
    """The network that a section names, in the order of its prompts; classes: of the data, empty where it has none.

    Raises:
        ConfigError: something beside prompts that they leave no room for.
        ModelError: prompts that are not for these classes; whatever is wrong with the file or the network.
    """
    assert section.prompts is not None
    others = {
        "checkpoint": section.checkpoint,
        "arguments": section.arguments,
        "input_size": section.input_size,
        "a module": module,
        f"outputs: {section.outputs}": section.outputs == "probabilities",
        f"pretrained: {section.pretrained}": isinstance(section.pretrained, str),
    }
    for what, given in others.items():
        if given:
            raise ConfigError(
                f"teacher.prompts and {what}: a network that takes words is named by teacher.model, comes with its own "
                "weights and sees pictures of one size."
            )
    prompts = reading.read(Path(section.prompts))
    if classes and section.classes is None:
        reading.require_classes(prompts, classes, section.prompts)
    model = catalog.prompted(section.model, prompts, device, section.mean, section.std)
    net = by_prompts(model)
    if net is not None and section.calibrate != "auto":
        net.temperature = section.calibrate
    return model


def calibrated(run: config.Run, teacher: VisionModel | None, images: ImageSet, device: torch.device) -> config.Run:
    """The run with its teacher's temperature decided; what is to be said of that is among the teacher's notes.

    Args:
        teacher: shown pictures as the run shows them.
        images: the training half. The val images choose nothing.

    Raises:
        ConfigError: there is nothing to fit it on, or none fits; the teacher does not answer by prompts.
    """
    section = run.teacher
    if section is None or section.calibrate == 1.0:
        return run
    net = None if teacher is None else by_prompts(teacher)
    if net is None or teacher is None:
        raise ConfigError(
            "teacher.calibrate is for teachers by prompts (teacher.prompts): one that was trained on labels is too "
            "sure of the images that it saw. Objectives have a temperature of their own; a store has the teacher's."
        )
    if section.calibrate != "auto":
        return run
    if section.shard:
        raise ConfigError(
            "teacher.calibrate: auto asks the whole teacher before it is shared out (teacher.shard): give the number "
            "by which logits are divided, as a run where it fits whole has found it."
        )
    if tasks.get(run.task).sigmoid:
        raise ConfigError(
            f"teacher.calibrate: auto fits a softmax, and {run.task} answers by sigmoids: give the number itself."
        )
    if section.views > 1:
        raise ConfigError(
            "teacher.calibrate: auto fits answers to one view: find the number with teacher.views 1, and give it."
        )
    labeled = torch.nonzero(images.labels != UNLABELED).flatten()
    if not len(labeled):
        raise ConfigError(
            "teacher.calibrate: auto needs labeled training images, and the data has none: leave it out, or give the "
            "number by which logits are divided."
        )
    step = max(1.0, len(labeled) / IMAGES)
    some = images.subset(labeled[torch.arange(0, len(labeled), step).long()])
    logits, target = _answered(teacher, some, run, device)
    temperature = fitted(logits, target)
    net.temperature = temperature
    before, after = (_cross_entropy(logits, target, one) for one in (1.0, temperature))
    said = (
        f"teacher.calibrate: temperature {temperature:g}, by {len(target):,} labeled training images, whose "
        f"cross-entropy with the teacher goes from {before:.3f} to {after:.3f}; no val image was looked at."
    )
    teacher.notes = (*teacher.notes, said)
    return run.model_copy(update={"teacher": section.model_copy(update={"calibrate": temperature})})


def known(run: config.Run, found: dict[str, str]) -> Identity:
    """The identity of a teacher without what is still to be fitted."""
    open_ = run.teacher is not None and run.teacher.calibrate == "auto"
    return {key: value for key, value in found.items() if not (open_ and key == _CALIBRATION)}


def fitted(logits: Tensor, target: Tensor) -> float:
    """The temperature at which the cross-entropy of logits [N, C] is least, to 3 digits. Raises ConfigError."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda exponent: _cross_entropy(logits, target, math.exp(exponent)),
        bounds=(math.log(COLDEST), math.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    temperature = float(f"{math.exp(found.x):.3g}")
    right = 100 * float((logits.argmax(1) == target).double().mean())
    if right == 100 or not 1.05 * COLDEST < temperature < HOTTEST / 1.05:  # all right: the colder, the better
        raise ConfigError(
            f"teacher.calibrate: no temperature between {COLDEST:g} and {HOTTEST:g} fits {len(target)} labeled images, "
            f"of which the teacher has {right:.1f}% right. Give the number itself, or look at the prompts."
        )
    return temperature


def _answered(teacher: VisionModel, images: ImageSet, run: config.Run, device: torch.device) -> tuple[Tensor, Tensor]:
    loader = tasks.get(run.task).eval_loader(images, teacher, run.data, batch_size=run.train.batch_size)
    pairs = [(logits.float().cpu(), batch.target.cpu()) for batch, logits in answers(teacher, loader, device)]
    return torch.cat([logits for logits, _ in pairs]), torch.cat([target for _, target in pairs])


def _cross_entropy(logits: Tensor, target: Tensor, temperature: float) -> float:
    return float(nn.functional.cross_entropy(logits.double() / temperature, target))
