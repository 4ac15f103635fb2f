"""The contract of every objective: (student outputs, teacher outputs, target) -> Terms, and the registry of objectives.

An objective is one file in this folder. It registers a class; the run file's options for it are the class's arguments.

Under several processes each computes on its own share of a batch. A mean over the whole batch is no mean of means where
the shares count differently (weights, void, samples without a label), so an objective gives `sums`: what is added up,
and how much was counted. Whoever trains adds up the counts of all processes, and divides once.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from counterpoise.errors import ConfigError, ObjectiveError, nearest
from counterpoise.outputs import Outputs
from counterpoise.system import own_code
from counterpoise.system.registry import Registry

Reduction = Literal["mean", "sum", "none"]
Kind = TypeVar("Kind", bound="type[Objective]")


class Terms(NamedTuple):
    """A loss and what it is made of."""

    total: Tensor
    """Scalar that is minimized."""
    parts: dict[str, Tensor]
    """Scalars by name, weights included: they sum to `total`."""


@dataclass(frozen=True)
class Sum:
    """A part of a loss, not yet divided."""

    total: Tensor
    """Scalar: the sum over the positions that count."""
    count: Tensor | int | None
    """How many these are, or how much they weigh together; None where the part is a sum, which nothing divides."""
    factor: float = 1.0
    """Of the mean."""

    @property
    def mean(self) -> Tensor:
        """The part as one process alone has it; 0 where nothing is counted."""
        if self.count is None:
            return self.over(1)
        if isinstance(self.count, int):
            return self.over(max(self.count, 1))
        return self.over(torch.where(self.count == 0, torch.ones_like(self.count), self.count))

    def over(self, count: Tensor | int) -> Tensor:
        """The part, divided by what all processes count."""
        mean = self.total / count
        return mean if self.factor == 1 else self.factor * mean


class Objective(nn.Module, ABC):
    """What the student is asked to imitate. Subclasses implement `sums`, or `parts` where they are no mean.

    - `sums`: a mean over samples or positions, which several processes take over the whole batch, as one would.
    - `parts`: any scalars. Several processes each compute them on their own share of the batch, and the mean over the
      processes is taken, each with the weight of its samples: what a mean over samples is, and nothing else.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher"})
    """What it looks at beside the student's logits: any of 'teacher', 'labels', 'features', and 'maps' where
    its logits must have positions, [N, C, ...]."""

    sigmoid: bool = False
    """Whether it takes each logit for a question of its own, answered by a sigmoid; else all of them by one softmax."""

    student_features: tuple[str, ...] = ()
    teacher_features: tuple[str, ...] = ()
    """Names of the modules whose outputs it wants; "@0", "@-1": stages of the network, from the stem on."""

    def set_argument(self, name: str, value: float) -> None:
        """Change an argument that follows a schedule."""
        setattr(self, name, value)

    def set_progress(self, progress: float) -> None:
        """Told before each step: 0 at the first of training, 1 at the last. For methods with a warm-up of their own."""

    def set_batch(self, indices: Tensor) -> None:
        """Told before each step: int64 [N] on the CPU, which samples of the training set are coming."""

    def prepare(self, student: Outputs, teacher: Outputs | None, samples: int) -> None:
        """Build weights of its own, once: from one example of outputs, and the size of the training set."""

    def logged(self) -> dict[str, float]:
        """Numbers that move by a rule of its own, for the log."""
        return {}

    def parts(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Named scalars that sum to this objective. `target`: int64 [N, ...] or probabilities [N, C]."""
        return {name: part.mean for name, part in self.sums(student, teacher, target, weight).items()}

    def sums(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        """The same parts with what they are means of: the names do not depend on the batch."""
        if type(self).parts is Objective.parts:
            # No abstract method can say "one of two"; without this, each would call the other for good.
            raise NotImplementedError(f"{type(self).__name__} must implement sums or parts.")
        samples = len(student.logits)
        return {
            name: Sum(part * samples, samples) for name, part in self.parts(student, teacher, target, weight).items()
        }


def sums_of(
    objective: Objective, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
) -> dict[str, Sum]:
    """Its `sums`; from its `parts` where a subclass has made these its own, and not the sums that it inherits."""
    own = next(kind for kind in type(objective).__mro__ if {"sums", "parts"} & vars(kind).keys())
    sums = objective.sums if "sums" in vars(own) else partial(Objective.sums, objective)
    return sums(student, teacher, target, weight)


class LogitObjective(Objective):
    """An objective that is a mean over positions: samples, or pixels.

    Subclasses implement `values`. Called with logits it returns the loss, so that it serves in any loop.

    A class whose logit is -inf, in the student, in the teacher or in both, is left out of both at that position: both
    are compared over the classes that remain, whose probabilities sum to 1, and the gradient of a class left out is 0.
    (Else a class to which the teacher gives mass and the student none would cost infinitely much, and p log p of none
    would be NaN.) Where no class remains, the value is 0. `remaining` does it; `values` sees `LEFT_OUT` there.
    """

    def __init__(self, ignore_index: int | None = None, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.reduction: Reduction = check_reduction(reduction)

    @abstractmethod
    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        """Each named part at every position, [N, ...], from logits [N, C, ...] in float32 or float64.

        Classes that are left out are at `LEFT_OUT` on both sides; without a teacher, logits are as they were given.
        """

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None = None,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss.

        Computed as the formula says, by fast code where there is any; nothing is compiled.

        Args:
            student_logits: [N, C] or [N, C, ...], any floating dtype; computed in float32 (float64 stays).
            teacher_logits: the same shape; receives no gradient.
            target: [N, ...]; positions that hold `ignore_index` are not counted. Of probabilities [N, C], rows of zeros
                have no label, and are not counted where `ignore_index` is negative.
            weight: [N] or [N, ...], weight of each position.

        Returns:
            "mean": scalar, the (weighted) mean over counted positions, 0 where none is counted; "sum": scalar;
            "none": [N, ...], 0 at ignored positions.

        Raises:
            ObjectiveError: shapes or devices that do not fit.
        """
        values = self._checked_values(student_logits, teacher_logits, target)
        total = torch.stack(list(values.values())).sum(0) if len(values) > 1 else next(iter(values.values()))
        return reduce(total, target, weight, self.ignore_index, self.reduction)

    def sums(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum]:
        values = self._checked_values(student.logits, None if teacher is None else teacher.logits, target)
        return {
            name: summed(value, target, weight, self.ignore_index, self.reduction) for name, value in values.items()
        }

    def _checked_values(
        self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None
    ) -> dict[str, Tensor]:
        check_logits(student_logits, teacher_logits, needs_teacher="teacher" in self.needs)
        check_device(student_logits, "target", target)
        student, teacher = widen(student_logits), None if teacher_logits is None else widen(teacher_logits.detach())
        with torch.autocast(student_logits.device.type, enabled=False):
            if teacher is not None and "teacher" in self.needs:
                student, teacher = remaining(student, teacher)
            return self.values(student, teacher, target)


def widen(logits: Tensor) -> Tensor:
    """Logits in float32, or float64 where they come so: half precision has no room for log-probabilities."""
    return logits if logits.dtype == torch.float64 else logits.float()


def check_reduction(reduction: Reduction) -> Reduction:
    """`reduction`, which must be one of the three."""
    if reduction not in ("mean", "sum", "none"):
        raise ObjectiveError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}.")
    return reduction


LEFT_OUT = -1e30
"""A logit: its exponential is 0, and its difference from another such one, where -inf makes NaN."""


def remaining(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N, C, ...] of both sides with the classes that are at -inf in either at `LEFT_OUT` in both."""
    if not (may_be_out(student) or may_be_out(teacher)):
        return student, teacher
    out = (student == -torch.inf) | (teacher == -torch.inf)
    return student.masked_fill(out, LEFT_OUT), teacher.masked_fill(out, LEFT_OUT)


def may_be_out(logits: Tensor) -> bool:
    """Whether any of the logits may be -inf; where that cannot be read without waiting, yes."""
    return not readable(logits) or (logits.numel() > 0 and bool(logits.detach().amin() == -torch.inf))


def readable(values: Tensor) -> bool:
    """Whether numbers may be looked at: on a CPU, and not while the step is compiled or transformed."""
    if torch.compiler.is_compiling() or values.device.type != "cpu":
        return False
    return not torch._C._are_functorch_transforms_active()


def check_device(student: Tensor, name: str, other: Tensor | None, mine: str = "student logits are") -> None:
    """Raise ObjectiveError where `other` lies on another device than what is the student's."""
    if other is not None and other.device != student.device:
        raise ObjectiveError(
            f"{mine} on {student.device} and {name} on {other.device}: bring them to one device, "
            "as with .to(student_logits.device)."
        )


def check_logits(student: Tensor, teacher: Tensor | None, needs_teacher: bool = True) -> None:
    """Raise ObjectiveError unless both are [N, C, ...] of one shape, on one device."""
    if student.ndim < 2:
        raise ObjectiveError(f"logits must be [N, C] or [N, C, ...], got shape {list(student.shape)}.")
    if not student.is_floating_point():
        raise ObjectiveError(f"logits must be floating point, got {student.dtype}.")
    if teacher is None:
        if needs_teacher:
            raise ObjectiveError("this objective needs teacher logits, got none.")
    elif teacher.shape != student.shape:
        what = "class counts" if teacher.ndim == student.ndim and teacher.shape[1] != student.shape[1] else "shapes"
        raise ObjectiveError(
            f"{what} of student and teacher differ: logits {list(student.shape)} and {list(teacher.shape)}."
        )
    check_device(student, "teacher logits", teacher)


def reduce(
    values: Tensor, target: Tensor | None, weight: Tensor | None, ignore_index: int | None, reduction: Reduction
) -> Tensor:
    """Reduce `values` [N, ...] over the positions that count."""
    if reduction == "none":
        return _weighted(values, target, weight, ignore_index)[0]
    return summed(values, target, weight, ignore_index, reduction).mean


def summed(
    values: Tensor,
    target: Tensor | None,
    weight: Tensor | None,
    ignore_index: int | None,
    reduction: Reduction = "mean",
) -> Sum:
    """The sum of `values` [N, ...] over the positions that count, and the sum of their weights; "none" is "mean"."""
    weighted, count = _weighted(values, target, weight, ignore_index)
    return Sum(weighted.sum(), None if reduction == "sum" else count)


def _weighted(
    values: Tensor, target: Tensor | None, weight: Tensor | None, ignore_index: int | None
) -> tuple[Tensor, Tensor | int]:
    """`values` [N, ...] times the weight of each position, and the sum of the weights."""
    counted = torch.ones_like(values) if weight is None else _spread(weight, values)
    if ignore_index is not None and target is not None:
        ignored = _ignored(values, target, ignore_index)
        counted = counted.masked_fill(ignored, 0.0)
        # Not a product with zero alone: an ignored position may hold anything.
        values = values.masked_fill(ignored, 0.0)
    elif weight is None:
        return values, values.numel()
    return values * counted, counted.sum()


def _ignored(values: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """bool [N, ...], where positions are not counted."""
    if target.shape == values.shape:
        return target == ignore_index
    mixed = target.is_floating_point() and target.shape[:1] + target.shape[2:] == values.shape
    if not mixed:
        raise ObjectiveError(
            f"target must have shape {list(values.shape)} beside ignore_index, got {list(target.shape)}."
        )
    check_no_class(ignore_index, target)
    # Probabilities hold no such value, but for those without a label: a row of zeros is what else is -1.
    return target.sum(1) <= 0 if ignore_index < 0 else torch.zeros_like(values, dtype=torch.bool)


def check_no_class(ignore_index: int | None, target: Tensor) -> None:
    """Raise ObjectiveError where `ignore_index` is a class of a target of probabilities [N, C]."""
    if ignore_index is not None and 0 <= ignore_index < target.shape[1]:
        raise ObjectiveError(
            f"ignore_index {ignore_index} is a class, and a target of probabilities, as mixup and cutmix give, has no "
            "position of one class alone."
        )


def check_class_weight(given: object) -> tuple[float, ...] | None:
    """A weight for each class, or None. Raises ObjectiveError for anything else than finite numbers from 0 on."""
    if given is None:
        return None
    if isinstance(given, list | tuple) and all(isinstance(w, int | float) and 0 <= w < float("inf") for w in given):
        return tuple(map(float, given))
    raise ObjectiveError(f"class_weight must be numbers from 0 on, one a class, got {given!r}.")


def weigh_by_class(
    class_weight: tuple[float, ...] | None, logits: Tensor, target: Tensor | None, weight: Tensor | None
) -> Tensor | None:
    """The weight of each position, that of its label's class included; 1 for labels that are no class.

    Raises ObjectiveError where there is not one weight for each class of `logits`, or the target holds probabilities.
    """
    if class_weight is None or target is None:
        return weight
    if target.is_floating_point():
        raise ObjectiveError("class_weight needs a class for each sample, which mixup and cutmix do not leave.")
    if len(class_weight) != logits.shape[1]:
        raise ObjectiveError(f"class_weight has {len(class_weight)} numbers, and the logits {logits.shape[1]} classes.")
    weights = torch.tensor(class_weight, device=target.device)
    known = (target >= 0) & (target < len(weights))
    by_class = torch.where(known, weights[torch.where(known, target, 0)], 1.0)
    if weight is None:
        return by_class
    return by_class * weight.reshape(weight.shape + (1,) * (by_class.ndim - weight.ndim))


def _spread(weight: Tensor, values: Tensor) -> Tensor:
    """Weight [N] or [N, ...] over the positions of values [N, ...]."""
    check_device(values, "weight", weight)
    if weight.shape != values.shape and weight.shape != values.shape[:1]:
        raise ObjectiveError(
            f"weight must have shape {list(values.shape[:1])} or {list(values.shape)}, got {list(weight.shape)}."
        )
    return weight.to(values.dtype).reshape(weight.shape + (1,) * (values.ndim - weight.ndim)).expand_as(values)


@dataclass(frozen=True)
class Entry:
    """A registered objective."""

    name: str
    kind: type[Objective]
    summary: str
    paper: str
    year: int | None

    @property
    def defaults(self) -> dict[str, Any]:
        """Its arguments and their defaults."""
        parameters = inspect.signature(self.kind).parameters.values()
        return {
            p.name: (None if p.default is p.empty else p.default) for p in parameters if p.kind is not p.VAR_KEYWORD
        }


OBJECTIVES: Registry[Entry] = Registry("Objective", "counterpoise.objectives", "counterpoise.objectives")


def register(name: str, *, summary: str, paper: str = "", year: int | None = None) -> Callable[[Kind], Kind]:
    """Class decorator that makes an objective known under `name`."""

    def enter(kind: Kind) -> Kind:
        OBJECTIVES.add(name, Entry(name, kind, summary, paper, year), kind.__module__)
        return kind

    return enter


def entries() -> Mapping[str, Entry]:
    """All objectives by name."""
    return dict(sorted(OBJECTIVES.entries().items()))


def find(name: str) -> Entry:
    """The objective called `name`, or the class at `path/to/file.py:Class`. Raises ConfigError where there is none."""
    if own_code.is_file(name):
        return _from_file(name)
    return OBJECTIVES.get(name)


def needs_teacher(name: str) -> bool:
    """Whether the objective looks at the teacher."""
    return "teacher" in find(name).kind.needs


def _from_file(name: str) -> Entry:
    path, _, attribute = name.rpartition(":")
    try:
        module = own_code.load(name, ConfigError)
    except ConfigError as error:
        raise ConfigError(f"Objective '{name}': {error}") from error.__cause__
    kind = getattr(module, attribute, None)
    if not (isinstance(kind, type) and issubclass(kind, Objective)):
        classes = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, Objective)]
        raise ConfigError(
            f"Objective '{name}': {path} has no Objective class '{attribute}'.{nearest(attribute, classes)}"
        )
    return Entry(name, kind, (kind.__doc__ or "").strip().split("\n")[0], "", None)
