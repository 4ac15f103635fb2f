"""How the answers of a student's two heads are mixed: chosen on the images that it is validated on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from counterpoise.data.sources.base import UNLABELED
from counterpoise.engine.evaluator import answers
from counterpoise.engine.parts import Parts
from counterpoise.engine.processes import Processes
from counterpoise.errors import ConfigError
from counterpoise.models import two_heads
from counterpoise.models.network import VisionModel
from counterpoise.objectives.composite import WeightedSum

SHARES = tuple(tenth / 10 for tenth in range(11))
TEMPERATURES = (0.5, 1.0, 2.0)


class Mix(NamedTuple):
    """How much of the answer is that of the labels' head, and the temperature of the teacher's."""

    share: float
    temperature: float

    def told(self) -> str:
        """In a sentence."""
        return (
            f"Its answers are {100 * self.share:.0f}% those of the head that learned from labels, and else those of "
            f"the teacher's at temperature {self.temperature:g}, as did best on the val images."
        )


def route(objective: WeightedSum, student: VisionModel, task: str) -> None:
    """Have terms that listen to the teacher see the teacher's head of a student that has two, and others the labels'.

    Raises ConfigError where one of its heads would learn nothing, or the task mixes no softmax.
    """
    heads = two_heads.names(student.net)
    if heads is None:
        return
    if task != "classification":
        raise ConfigError(f"student.two_heads mixes the answers of two softmaxes, and the task is {task}.")
    # What looks at features teaches what lies below the heads.
    needs = [objective.objective(name).needs for name in objective.terms]
    sides = {"teacher" in needed for needed in needs if "features" not in needed}
    if sides != {True, False}:
        missing = "labels, such as cross_entropy" if True in sides else "the teacher, such as balance"
        raise ConfigError(f"student.two_heads: one head would learn nothing: there is no term of {missing}.")
    objective.heads = heads


def choose(weights: dict[str, Tensor], student: VisionModel, parts: Parts, processes: Processes) -> Mix | None:
    """Put into `weights` of a student with two heads the mixture that is right most often on the val images.

    Of several the one nearest to half and half, and to temperature 1. None, and nothing is changed, where it has not
    two heads or no val image has a label.
    """
    names = two_heads.names(student.net)
    if names is None:
        return None
    student.net.load_state_dict(weights)
    candidates = sorted(
        (Mix(share, temperature) for share in SHARES for temperature in TEMPERATURES),
        key=lambda mix: (abs(mix.share - 0.5), abs(mix.temperature - 1)),
    )
    right = torch.zeros(len(candidates), dtype=torch.float64)
    with _caught([student.net.get_submodule(name) for name in names]) as logits:
        for batch, _ in answers(student, parts.val, processes.device):
            labels, teacher = (logits.pop(0).float() for _ in names)
            target = batch.target.to(processes.device)
            known = target != UNLABELED
            for place, mix in enumerate(candidates):
                said = two_heads.mixed(labels, teacher, mix.share, mix.temperature).argmax(1)
                right[place] += int((said == target)[known].sum())
    right = processes.add(right)
    if not right.any():
        return None
    best = candidates[int(right.argmax())]
    two_heads.put(weights, best._asdict())
    return best


def settle(student: VisionModel, parts: Parts, processes: Processes) -> None:
    """Have a student with two heads answer by the mixture that would ship; others as they do."""
    if two_heads.names(student.net) is None:
        return
    weights = {name: value.clone() for name, value in student.net.state_dict().items()}
    if choose(weights, student, parts, processes) is not None:
        student.net.load_state_dict(weights)


@contextmanager
def _caught(modules: list[nn.Module]) -> Iterator[list[Tensor]]:
    """Within, what modules return, as it comes."""
    found: list[Tensor] = []
    hooks = [module.register_forward_hook(lambda _, __, output: found.append(output)) for module in modules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
