"""The objective of a run: named terms, each with a weight; weights and arguments may follow a schedule."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from counterpoise.config import Run, Schedule, Term
from counterpoise.errors import ConfigError, ObjectiveError, unknown
from counterpoise.mistakes import explain
from counterpoise.objectives.base import Objective, Terms, find
from counterpoise.objectives.kernels.fusing import Fused, fuse
from counterpoise.objectives.schedule import value_at
from counterpoise.outputs import Outputs


class WeightedSum(nn.Module):
    """sum_i weight_i(progress) * objective_i(progress)."""

    def __init__(self, terms: Mapping[str, Term]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict()
        self._weights: dict[str, float | Schedule] = {}
        self._schedules: dict[str, dict[str, Schedule]] = {}
        self.weights: dict[str, float] = {}
        for name, term in terms.items():
            objective, schedules = _build(name, term)
            try:
                self.terms[name] = objective
            except KeyError:  # 'type', say: modules have an attribute of this name
                raise ConfigError(f"objective.{name}: a term cannot be called '{name}', call it otherwise.") from None
            self._weights[name] = term.weight
            self._schedules[name] = schedules
        self.set_progress(0.0)

    @property
    def needs(self) -> frozenset[str]:
        """What any term needs: 'teacher', 'labels', 'features'."""
        return frozenset().union(*(self.objective(name).needs for name in self.terms))

    def needs_by_term(self) -> dict[str, frozenset[str]]:
        """What each term needs."""
        return {name: self.objective(name).needs for name in self.terms}

    @property
    def student_features(self) -> tuple[str, ...]:
        """Features of the student that any term wants."""
        return tuple(dict.fromkeys(f for name in self.terms for f in self.objective(name).student_features))

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """Features of the teacher that any term wants."""
        return tuple(dict.fromkeys(f for name in self.terms for f in self.objective(name).teacher_features))

    def prepare(self, student: Outputs, teacher: Outputs | None, samples: int) -> None:
        """Let each term build weights of its own, from one example of outputs and the size of the training set."""
        for name in self.terms:
            self.objective(name).prepare(student, teacher, samples)

    def set_batch(self, indices: Tensor) -> None:
        """Tell each term which samples are coming."""
        for name in self.terms:
            self.objective(name).set_batch(indices)

    def objective(self, name: str) -> Objective:
        """The objective of a term."""
        objective = self.terms[name]
        assert isinstance(objective, Objective)
        return objective

    def set_progress(self, progress: float) -> None:
        """Move all schedules to `progress`, 0 at the first step of training and 1 at the last."""
        self.progress = progress
        for name in self.terms:
            weight = self._weights[name]
            self.weights[name] = value_at(weight, progress) if isinstance(weight, Schedule) else weight
            for argument, schedule in self._schedules[name].items():
                self.objective(name).set_argument(argument, value_at(schedule, progress))
            self.objective(name).set_progress(progress)

    def moving(self) -> dict[str, float]:
        """The weights and arguments that move, as they stand, by `term.argument`."""
        values = {
            f"{name}.weight": self.weights[name]
            for name, weight in self._weights.items()
            if isinstance(weight, Schedule)
        }
        for name, schedules in self._schedules.items():
            for argument in schedules:
                values[f"{name}.{argument}"] = value_at(schedules[argument], self.progress)
            values |= {f"{name}.{key}": value for key, value in self.objective(name).logged().items()}
        return values

    def forward(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> Terms:
        """Total and named parts; a part is named `term`, or `term/part` where a term has several."""
        return self._added(*self._values(list(self.terms), student, teacher, target, weight))

    def _values(
        self,
        names: Sequence[str],
        student: Outputs,
        teacher: Outputs | None,
        target: Tensor | None,
        weight: Tensor | None = None,
    ) -> tuple[list[Tensor], dict[str, dict[str, Tensor]]]:
        """What the terms of these names add to the total, and their parts by term."""
        fused = self._fused(names, student, teacher, target, weight)
        parts = {} if fused is None else dict(fused.parts)
        addends = [] if fused is None else [fused.total]
        for name in names:
            if name not in parts:
                values = self.objective(name).parts(student, teacher, target, weight)
                parts[name] = {part: self.weights[name] * value for part, value in values.items()}
                addends.extend(parts[name].values())
        return addends, parts

    def _fused(
        self,
        names: Sequence[str],
        student: Outputs,
        teacher: Outputs | None,
        target: Tensor | None,
        weight: Tensor | None,
        size: tuple[int, int] | None = None,
    ) -> Fused | None:
        """What a fast form covers of these terms, logits upsampled to `size` first."""
        weighted = {name: (self.objective(name), self.weights[name]) for name in names}
        return fuse(weighted, student.logits, None if teacher is None else teacher.logits, target, weight, size)

    def _added(self, addends: Sequence[Tensor], parts: Mapping[str, Mapping[str, Tensor]]) -> Terms:
        """Total and parts, in the order of the terms."""
        named = {
            f"{name}/{part}" if part else name: value for name in self.terms for part, value in parts[name].items()
        }
        return Terms(sum(addends[1:], start=addends[0]), named)


def answers_by_sigmoid(objective: Mapping[str, Term]) -> bool:
    """Whether a term of a run takes each logit for a question of its own. Of code of one's own nothing is known."""
    return any(
        term.arguments.get("sigmoid") is True or find(kind).kind.sigmoid
        for name, term in objective.items()
        for kind in (term.objective or name, term.arguments.get("of"))
        if isinstance(kind, str) and ".py:" not in kind
    )


def _build(name: str, term: Term) -> tuple[Objective, dict[str, Schedule]]:
    entry = find(term.objective or name)
    parameters = inspect.signature(entry.kind).parameters
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    hints = _hints(entry.kind)
    arguments: dict[str, Any] = {}
    schedules: dict[str, Schedule] = {}
    for key, value in term.arguments.items():
        where = f"objective.{name}.{key}"
        known = key in parameters and parameters[key].kind is not inspect.Parameter.VAR_KEYWORD
        if not known and not free:
            raise ConfigError(f"{where}: {unknown('Argument', key, [*parameters, 'weight', 'objective'])}")
        default = parameters[key].default if known else inspect.Parameter.empty
        hint = hints.get(key, type(default) if isinstance(default, bool | int | float | str) else Any) if known else Any
        if isinstance(value, Mapping) and {"start"} <= set(value) <= {"shape", "start", "end"}:
            if known and hint is not float:
                raise ConfigError(f"{where}: only a number may follow a schedule.")
            schedules[key] = _schedule(where, value)
        else:
            arguments[key] = _checked(where, value, hint) if _plain(hint) else _numbers(value)
    for progress in (1.0, 0.0):  # both ends must be values that the objective accepts
        moved = {key: value_at(schedule, progress) for key, schedule in schedules.items()}
        try:
            objective = entry.kind(**arguments, **moved)
        except (ObjectiveError, TypeError, ValueError) as error:
            raise ConfigError(f"objective.{name}: {error}") from None
    return objective, schedules


def _schedule(where: str, value: Mapping[str, Any]) -> Schedule:
    try:
        return Schedule.model_validate(value)
    except ValidationError as error:
        raise ConfigError(explain(error, where, Run)) from None


def _hints(kind: type[Objective]) -> dict[str, Any]:
    try:
        return get_type_hints(kind.__init__)
    except (NameError, TypeError):  # names that only a type checker imports
        return {}


def _plain(hint: Any) -> bool:
    """Whether it is for a type hint alone to say what is allowed; the objective itself looks at lists and mappings."""
    if get_origin(hint) in (Union, UnionType):
        return all(_plain(kind) for kind in get_args(hint))
    return hint in (bool, int, float, str, NoneType) or get_origin(hint) is Literal


def _checked(where: str, value: Any, hint: Any) -> Any:
    """`value` as its type hint has it: an integer may stand for a float, and so may text such as 5e-1."""
    try:
        # Strict with truth values alone, which would otherwise pass for numbers.
        return TypeAdapter(hint).validate_python(value, strict=isinstance(value, bool))
    except ValidationError:
        kinds = get_args(hint) or [hint]
        names = [kind.__name__ if isinstance(kind, type) else repr(kind) for kind in kinds]
        expected = " or ".join(names).replace("NoneType", "null")
        raise ConfigError(f"{where}: expected {expected}, got {value!r}.") from None


def _numbers(value: Any) -> Any:
    """`value` with its numbers: YAML 1.1, unlike 1.2, reads 5e-1 as text."""
    if isinstance(value, Mapping):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value) else value
