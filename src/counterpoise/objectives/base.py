"""The contract of every objective: terms(student, teacher, target, weight) -> named terms; and their registry.

An objective is one file in this folder. It registers a class; the run file's options for it are the class's arguments.

Under several processes each computes on its own share of a batch. A mean over the whole batch is no mean of means where
the shares count differently (weights, void, samples without a label), so a term that is a mean over positions is given
as a `Sum`: what is added up, and how much was counted. Whoever trains adds up the counts of all processes, and divides
once.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from counterpoise.errors import ConfigError, nearest
from counterpoise.objectives.arguments import check_tensors, checked
from counterpoise.objectives.logits import check_device, check_logits, remaining, widen
from counterpoise.objectives.targets import Mean, Reduction, Sum, Target, check_reduction
from counterpoise.outputs import Outputs, in_eval_mode
from counterpoise.system import own_code
from counterpoise.system.registry import Registry

Kind = TypeVar("Kind", bound="type[Objective]")


PLACES = ("student_logits", "teacher_logits", "target", "weight")
"""What an objective is called with."""


class Terms(NamedTuple):
    """A loss and what it is made of."""

    total: Tensor
    """Scalar that is minimized."""
    parts: dict[str, Tensor]
    """Scalars by name, weights included: they sum to `total`."""


class Objective(nn.Module, ABC):
    """What the student is asked to imitate. Subclasses implement `terms`."""

    needs: ClassVar[frozenset[str]] = frozenset({"teacher"})
    """What it looks at beside the student's logits: any of 'teacher', 'labels', 'features', 'classifier' where it is
    told what the teacher's last layer has for each class, and 'maps' where its logits must have positions, [N, C, ...].
    """

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

    def set_classifier(self, rows: Tensor) -> None:
        """Told once, before training, where it needs 'classifier': [C, D], what the teacher's last layer has for each
        class."""

    def logged(self) -> dict[str, float]:
        """Numbers that move by a rule of its own, for the log."""
        return {}

    @abstractmethod
    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> Mapping[str, Sum | Mean | Tensor]:
        """Named terms that add up to this objective; the names do not depend on the batch.

        - `Sum`: a mean over samples or positions, which several processes take over the whole batch, as one would.
        - A scalar, or `Mean`: each process computes it on its own share of the batch, and the mean over the processes
          is taken, each with the weight of its samples: what a mean over samples is, and nothing else.

        Args:
            student, teacher: logits [N, C, ...], and features by name.
            target: int64 [N, ...] or probabilities [N, C].
            weight: [N] or [N, ...], weight of each sample or position.
        """

    def counts(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Tensor | int | None]:
        """What each of `terms` would count; None of a sum, which nothing divides. Changes nothing.

        Asked of the parts of a batch that are still to come, with their target and outputs that are only shaped alike:
        so it must follow from target and weight. By default `terms` are asked in eval mode, in which what moves while
        training stays where it is; those that remember or draw otherwise say it by themselves.
        """
        with in_eval_mode(self), torch.no_grad():
            found = counted(self.terms(student, teacher, target, weight), len(student.logits))
        return {name: term.count for name, term in found.items()}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = vars(cls)
        if "terms" not in own and (former := own.get("sums", own.get("parts"))):  # as code of one's own may have it
            cls.terms = former  # type: ignore[method-assign]
        if "__init__" in own:
            cls.__init__ = checked(own["__init__"])  # type: ignore[method-assign]

    def __call__(self, *given: Any, **named: Any) -> Tensor:
        """The loss: see `forward`. Raises ObjectiveError where something else stands in the place of a tensor."""
        check_tensors(
            **dict(zip(PLACES, given, strict=False)), **{name: named.get(name) for name in PLACES[len(given) :]}
        )
        loss: Tensor = super().__call__(*given, **named)
        return loss

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None = None,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar, of logits alone; arguments as of `terms`."""
        sides = Outputs(student_logits), None if teacher_logits is None else Outputs(teacher_logits)
        values = list(means(self.terms(*sides, target, weight)).values())
        return values[0] if len(values) == 1 else torch.stack(values).sum()


def means(terms: Mapping[str, Sum | Mean | Tensor]) -> dict[str, Tensor]:
    """Terms as scalars, as one process alone has them."""
    return {name: term if isinstance(term, Tensor) else term.mean for name, term in terms.items()}


def counted(terms: Mapping[str, Sum | Mean | Tensor], samples: int) -> dict[str, Sum | Mean]:
    """Terms with what each counts: a scalar its `samples`."""
    return {name: Mean(term, samples) if isinstance(term, Tensor) else term for name, term in terms.items()}


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

    def target(self, logits: Tensor, target: Tensor | None, weight: Tensor | None) -> Target:
        """What this objective takes a batch's target and weights for."""
        return Target(target, weight, self.ignore_index)

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
        counts = self.target(student_logits, target, weight)
        values = list(self._checked_values(student_logits, teacher_logits, counts.asked).values())
        return counts.reduce(values[0] if len(values) == 1 else torch.stack(values).sum(0), self.reduction)

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> Mapping[str, Sum]:
        counts = self.target(student.logits, target, weight)
        values = self._checked_values(student.logits, None if teacher is None else teacher.logits, counts.asked)
        return {name: counts.sum(value, self.reduction) for name, value in values.items()}

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
