"""Whether the teacher's terms pull against those of the labels, by their gradients over the first steps of a run."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.dense import reduced
from counterpoise.outputs import Outputs
from counterpoise.system.documents import parse_json
from counterpoise.system.files import regular

KIND = "pull"
"""Of the lines of metrics.jsonl that tell of it."""
MOST, FEWEST, OF = 10, 5, 50
"""Steps that are looked at: one in 50 of a run, the first, up to so many; of fewer nothing is said."""
SHARE, PHOTOS = 8, 64
"""Of a batch of scenes one in so many is looked at, of photos up to so many: it is to cost a run about 1% at most."""
CHANCE = 0.05
"""How seldom terms that have nothing to do with one another may be said to pull apart."""
_KNOWN = ("counterpoise.", "torch.")


class Sides(NamedTuple):
    """The terms that look at labels alone, and those that listen to the teacher, by name."""

    labels: list[str]
    teacher: list[str]


class Pull:
    """Looks at the gradients of the two sides of an objective with regard to the student's logits.

    Of copies: nothing of a run changes, neither its objective's own state nor its chance.

    Args:
        objective: of the run.
        steps: of the whole run.
        classes: names.
        sigmoid: whether each logit is a question of its own.

    Attributes:
        found: what the last step told, as a line of metrics.jsonl has it.
    """

    def __init__(self, objective: WeightedSum, steps: int, classes: Sequence[str], sigmoid: bool = False) -> None:
        self.objective = objective
        self.sigmoid = sigmoid
        self.classes = classes
        self.sides = sides(objective)
        self.steps = min(MOST, steps // OF) if self.sides is not None else 0
        if self.steps < FEWEST:
            self.steps = 0
        self.found: dict[str, Any] | None = None

    def __call__(self, student: Outputs, teacher: Outputs | None, target: Tensor) -> None:
        """Look at the answers to a batch, or to the first part of it."""
        if self.found is not None or teacher is None or self.sides is None:
            return
        some = max(1, len(target) // SHARE) if student.logits.ndim == 4 else PHOTOS
        given = Outputs(teacher.logits[:some].detach())
        target = target[:some]
        devices = [student.logits.device] if student.logits.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices), torch.enable_grad():
                labels, other = (
                    _gradient(part_of(self.objective, names), student.logits[:some], given, target)
                    for names in self.sides
                )
        except (ObjectiveError, RuntimeError):  # of a part of a batch, or of a copy, there is nothing to be told
            self.steps = 0
            return
        self.found = self._compared(labels, other, target)

    def line(self, step: int) -> dict[str, Any] | None:
        """What was found at this step, for metrics.jsonl, and a fresh start; None where nothing can be told."""
        found, self.found = self.found, None
        return {"kind": KIND, "step": step, **found} if found else None

    def _compared(self, labels: Tensor, teacher: Tensor, target: Tensor) -> dict[str, Any]:
        products = torch.stack([labels * teacher, labels.square(), teacher.square()])
        cosine = _cosine(*products.flatten(1).double().sum(1).tolist())
        if cosine is None:
            return {}
        by_class = self._by_class(products, target)
        return {"cosine": cosine, **({"by_class": by_class} if by_class else {})}

    def _by_class(self, products: Tensor, target: Tensor) -> dict[str, float]:
        """The cosine over the places whose label is a class, or which are a yes of a question, by its name."""
        count, dense = products.shape[2], products.ndim == 5
        near = reduced(target, products.shape[3:]) if dense else target
        if self.sigmoid and near.shape == products.shape[1:]:
            places = near == 1
            sums = (products * places).transpose(1, 2).flatten(2).sum(2)
        elif not near.is_floating_point() and near.shape == (len(target), *products.shape[3:]):
            known = (near >= 0) & (near < count)
            index = torch.where(known, near.long(), count).flatten()
            sums = products.new_zeros(3, count + 1).index_add_(1, index, products.sum(2).flatten(1))[:, :count]
        else:  # mixed
            return {}
        found = {name: _cosine(*values) for name, values in zip(self.classes, sums.double().T.tolist(), strict=True)}
        told = {name: value for name, value in found.items() if value is not None}
        return told if self.sigmoid or len(told) > 1 else {}


def sides(objective: WeightedSum) -> Sides | None:
    """The terms on both sides whose gradients meet in the logits; None where there is none on either.

    Not where each side has a head of its own, nor with terms from elsewhere, which may remember what they are shown.
    """
    if objective.heads is not None:
        return None
    found = Sides([], [])
    for name in objective.terms:
        needs = objective.objective(name).needs
        if "features" in needs:
            continue
        if any(not type(one).__module__.startswith(_KNOWN) for one in objective.terms[name].modules()):
            return None
        if "teacher" in needs:
            found.teacher.append(name)
        elif "labels" in needs:
            found.labels.append(name)
    return found if found.labels and found.teacher else None


def part_of(objective: WeightedSum, names: Iterable[str]) -> WeightedSum:
    """A copy with some of the terms, as they stand."""
    part = copy.copy(objective)
    part.__dict__ = dict(objective.__dict__)
    terms = nn.ModuleDict({name: copy.deepcopy(objective.terms[name]) for name in names})
    part._modules = {**objective._modules, "terms": terms}
    part.compiler = None  # it is not worth compiling
    return part


def _gradient(objective: WeightedSum, logits: Tensor, teacher: Outputs, target: Tensor) -> Tensor:
    logits = logits.detach().requires_grad_()
    total = objective(Outputs(logits), teacher, target)[0]
    (gradient,) = torch.autograd.grad(total, logits, allow_unused=True)
    return torch.zeros_like(logits).float() if gradient is None else gradient.float()


def _cosine(both: float, one: float, other: float) -> float | None:
    """None where a side has no gradient."""
    length = math.sqrt(one * other)
    return max(-1.0, min(1.0, both / length)) if length > 0 and math.isfinite(length) else None


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that tell of it, which are among its first; none where it cannot be read."""
    found: list[dict[str, Any]] = []
    try:
        with regular(path).open("rb") as lines:
            for text in lines:
                line = parse_json(text)
                if line.get("step", 0) > MOST:
                    break
                found += [line] if line["kind"] == KIND else []
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
    return found


def remark(lines: Sequence[Mapping[str, Any]], found: Sides) -> str | None:
    """What is to be said where the two sides pull apart; None where they do not, or it cannot be told.

    They do where the cosine of their gradients was below 0 in so many of the steps as chance alone would have it in
    less than 5 of 100 runs (a sign test); of single classes, in 5 of 100 over all of them.
    """
    steps = [line["cosine"] for line in lines]
    named = f"the teacher's terms ({', '.join(found.teacher)}) against those of the labels ({', '.join(found.labels)})"
    way_out = (
        "There the student unlearns from the one what it learns from the other: look at how the teacher scores on the "
        "training images, at teacher.classes, and at class weights, which both sides should have."
    )
    if apart(steps, CHANCE):
        return f"Over the first {len(steps)} steps the gradients pull apart, {named}: {_told(steps)}. {way_out}"
    classes: dict[str, list[float]] = {}
    for line in lines:
        for name, value in line.get("by_class", {}).items():
            classes.setdefault(name, []).append(value)
    against = {name: values for name, values in classes.items() if apart(values, CHANCE / len(classes))}
    if not against:
        return None
    worst = sorted(against, key=lambda name: _mean(against[name]))[:5]
    told = "; ".join(f"{name}, {_told(against[name])}" for name in worst)
    return (
        f"Where the label is one of {len(against)} of the classes, the gradients pull apart, {named}: {told}. {way_out}"
    )


def apart(cosines: Sequence[float], chance: float) -> bool:
    """Whether so many of them are below 0 as has less than this chance, were either sign as likely."""
    from scipy.special import bdtrc

    below = sum(cosine < 0 for cosine in cosines)
    return len(cosines) >= FEWEST and float(bdtrc(below - 1, len(cosines), 0.5)) < chance


def _told(cosines: Sequence[float]) -> str:
    mean = _mean(cosines)
    return (
        f"cosine {mean:.2f} ({math.degrees(math.acos(mean)):.0f} degrees), below 0 in "
        f"{sum(cosine < 0 for cosine in cosines)} of {len(cosines)} steps"
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
