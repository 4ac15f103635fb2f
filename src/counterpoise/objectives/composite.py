"""The objective of a run: named terms, each with a weight; weights and arguments may follow a schedule."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from counterpoise.config import Run, Schedule, Term, resolve
from counterpoise.config.validation_errors import explain
from counterpoise.errors import ConfigError, ObjectiveError, unknown
from counterpoise.objectives.arguments import WORDS, check_finite, check_outputs, hints, kinds_of
from counterpoise.objectives.base import Objective, Terms, counted, find, means
from counterpoise.objectives.kernels.compiling import Compiler
from counterpoise.objectives.kernels.fused_terms import fuse, fused_counts
from counterpoise.objectives.kernels.mixture import Inputs
from counterpoise.objectives.targets import Mean, Sum
from counterpoise.objectives.views import Counts, InParts, View, as_tensor
from counterpoise.outputs import Outputs


class WeightedSum(nn.Module):
    """sum_i weight_i(progress) * objective_i(progress).

    `set_progress` moves schedules and the ramps of objectives, such as the warm-up of `dkd`. Where nobody calls it,
    schedules stand at their start, and ramps at 1.
    """

    def __init__(self, terms: Mapping[str, Term | Mapping[str, Any]]) -> None:
        """Terms by name, as the section `objective` of a run file has them: `{"balance": {"weight": 2}}`."""
        super().__init__()
        self.terms = nn.ModuleDict()
        self._weights: dict[str, float | Schedule] = {}
        self._schedules: dict[str, dict[str, Schedule]] = {}
        self.weights: dict[str, float] = {}
        self.heads: tuple[str, str] | None = None
        """Features of the student that are logits: those that terms of labels are shown, and those of the teacher's."""
        self.compiler: Compiler | None = None
        """Set by whoever trains long enough for compiled code to pay; a loss does not compile by itself."""
        if not terms:
            raise ConfigError("The objective has no terms: give at least one, such as {'balance': {}}.")
        for name, term in _as_terms(terms).items():
            check_finite(f"objective.{name}.weight", term.weight)
            objective, schedules = _build(name, term.objective or name, term.arguments, ("weight", "objective"))
            try:
                self.terms[name] = objective
            except KeyError:  # 'type', say: modules have an attribute of this name
                raise ConfigError(f"objective.{name}: a term cannot be called '{name}', call it otherwise.") from None
            self._weights[name] = term.weight
            self._schedules[name] = schedules
        self._move(0.0)  # and not the ramps of objectives: who never tells of progress has none

    def forward(
        self,
        student: Outputs,
        teacher: Outputs | None,
        target: Tensor | None,
        weight: Tensor | None = None,
        together: Callable[[Tensor], Tensor] | None = None,
        batch: InParts | None = None,
    ) -> Terms:
        """Total and named parts; a part is named `term`, or `term/part` where a term has several.

        `together`: where several processes each hold a share of a batch, adds up a float64 tensor over all of them.
        Called once. Total and parts are then such that their mean over the processes is that of the whole batch,
        gradients included, as DistributedDataParallel takes it.
        `batch`: where this is one of several parts that a process takes one after the other. Total and parts are then
        such that their sum over these is that of the batch. No `weight` is taken then.
        """
        assert batch is None or weight is None
        check_outputs(student, teacher, target=target, weight=weight)
        views = self._views(student, teacher, target)
        counts = None
        if batch is not None and batch.divisors is not None:
            counts = Counts({}, batch.divisors)
        elif batch is not None or together is not None:
            later = [] if batch is None else [self._later(student, teacher, labels) for labels in batch.later]
            counts = self._counts(views, later, weight, together or torch.Tensor.clone)
            if batch is not None:
                batch.divisors = counts.divisors
        addends: list[Tensor] = []
        parts: dict[str, dict[str, Tensor]] = {}
        for view in views:
            rest = self._fused(view, weight, counts, addends, parts)  # the fast forms: the same numbers in one pass
            for name in rest.names:
                values = self._values(name, rest, weight, counts)
                parts[name] = {part: self.weights[name] * value for part, value in values.items()}
                addends.extend(parts[name].values())
        named = {
            f"{name}/{part}" if part else name: value for name in self.terms for part, value in parts[name].items()
        }
        return Terms(sum(addends[1:], start=addends[0]), named)

    @property
    def needs(self) -> frozenset[str]:
        """What any term needs: 'teacher', 'labels', 'features'."""
        return frozenset().union(*(self.objective(name).needs for name in self.terms))

    @property
    def of_features_alone(self) -> bool:
        """Whether no term need look at logits, so that a network's last layers may get no gradient."""
        return all("features" in self.objective(name).needs for name in self.terms)

    @property
    def of_teacher_features_alone(self) -> bool:
        """Whether no term looks at the teacher's logits, so that it needs no classifier."""
        return all({"teacher", "features"} & self.objective(name).needs != {"teacher"} for name in self.terms)

    @property
    def student_features(self) -> tuple[str, ...]:
        """Features of the student that any term wants."""
        wanted = (f for name in self.terms for f in self.objective(name).student_features)
        return tuple(dict.fromkeys([*wanted, *(self.heads or ())]))

    @property
    def teacher_features(self) -> tuple[str, ...]:
        """Features of the teacher that any term wants."""
        return tuple(dict.fromkeys(f for name in self.terms for f in self.objective(name).teacher_features))

    def prepare(self, student: Outputs, teacher: Outputs | None, samples: int) -> None:
        """Let each term build weights of its own, from one example of outputs and the size of the training set."""
        for name in self.terms:
            self.objective(name).prepare(student, teacher, samples)

    def set_classifier(self, rows: Tensor) -> None:
        """Tell each term what the teacher's last layer has for each class."""
        for name in self.terms:
            self.objective(name).set_classifier(rows)

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
        """Move all schedules and ramps to `progress`, 0 at the first step of training and 1 at the last."""
        self._move(progress)
        for name in self.terms:
            self.objective(name).set_progress(progress)

    def _move(self, progress: float) -> None:
        """Move the schedules of weights and arguments."""
        self.progress = progress
        for name in self.terms:
            weight = self._weights[name]
            self.weights[name] = value_at(weight, progress) if isinstance(weight, Schedule) else weight
            for argument, schedule in self._schedules[name].items():
                self.objective(name).set_argument(argument, value_at(schedule, progress))

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

    def _views(self, student: Outputs, teacher: Outputs | None, target: Tensor | None) -> list[View]:
        """What each term is shown, all of them once."""
        if self.heads is None:
            return [View(list(self.terms), student, teacher, target)]
        taught = [name for name in self.terms if "teacher" in self.objective(name).needs]
        labeled = [name for name in self.terms if name not in taught]
        return [
            View(names, student._replace(logits=student.features[head]), teacher, target)
            for names, head in zip((labeled, taught), self.heads, strict=True)
        ]

    def _values(self, name: str, view: View, weight: Tensor | None, counts: Counts | None) -> dict[str, Tensor]:
        """The parts of a term, unweighted: its means, or its share of those over all processes."""
        given = view.student, view.teacher, view.target, weight
        if counts is None:
            return means(self.objective(name).terms(*given))
        terms = counts.terms.get(name) or counted(self.objective(name).terms(*given), len(view.student.logits))
        return {part: term.over(counts.divisors[name][part].to(term.total.dtype)) for part, term in terms.items()}

    def _fused(
        self,
        view: View,
        weight: Tensor | None,
        counts: Counts | None,
        addends: list[Tensor],
        parts: dict[str, dict[str, Tensor]],
    ) -> View:
        """Append what a fast form covers of a view to the total, and enter its parts; the view of the other terms."""
        while view.names:
            teacher = None if view.teacher is None else view.teacher.logits
            inputs = Inputs(view.student.logits, teacher, view.target, weight, view.size)
            divisors = None if counts is None else counts.divisors
            fused = fuse(self._weighted(view), inputs, divisors, self.compiler)
            if fused is not None:
                addends.append(fused.total)
                parts.update(fused.parts)
            view = view._replace(names=[name for name in view.names if name not in parts])
            if view.size is None or not view.names:
                break
            # Once more on upsampled logits, which a fast form may cover where it does not upsample them itself.
            view = view.resampled(any("teacher" in self.objective(name).needs for name in view.names))
        return view

    def _later(self, student: Outputs, teacher: Outputs | None, target: Tensor) -> list[View]:
        """What each term is shown of a part of the batch that is still to come, as far as its target goes."""
        sides = [None if one is None else one.repeated(len(target)) for one in (student, teacher)]
        assert sides[0] is not None
        return self._views(sides[0], sides[1], target)

    def _counts(
        self,
        views: Sequence[View],
        later: Sequence[Sequence[View]],
        weight: Tensor | None,
        together: Callable[[Tensor], Tensor],
    ) -> Counts:
        """What each part of each term is divided by, from the counts of all processes and of the parts still to come.

        In an order that does not depend on the batch, nor on which of the terms a fast form covers.
        """
        fast: dict[str, dict[str, Sum]] = {}
        terms: dict[str, dict[str, Sum | Mean]] = {}
        for view in views:
            fast |= fused_counts(self._weighted(view), view.positions, view.target, weight, view.student.logits)
            rest = [name for name in view.names if name not in fast]
            seen = view.resampled(any("teacher" in self.objective(name).needs for name in rest)) if rest else view
            for name in rest:
                own = self.objective(name).terms(seen.student, seen.teacher, seen.target, weight)
                terms[name] = counted(own, len(seen.student.logits))
        found = {name: terms.get(name) or fast[name] for name in self.terms}
        keys = [(name, part) for name, parts in found.items() for part in parts]
        one = views[0].student.logits.new_ones((), dtype=torch.float64)
        here = torch.stack([one, *(as_tensor(found[name][part].count, one) for name, part in keys)])
        for others in later:
            more = self._counts_alone(others, weight)
            here[1:] += torch.stack([as_tensor(more[name][part], one) for name, part in keys])
        processes, *all_counts = together(here).unbind()
        divisors: dict[str, dict[str, Tensor]] = {name: {} for name in found}
        for (name, part), count in zip(keys, all_counts, strict=True):
            is_sum = found[name][part].count is None
            divisors[name][part] = (one if is_sum else torch.where(count == 0, one, count)) / processes
        return Counts(terms, divisors)

    def _counts_alone(self, views: Sequence[View], weight: Tensor | None) -> dict[str, dict[str, Tensor | int | None]]:
        """What each part of each term counts, without its value."""
        found: dict[str, dict[str, Tensor | int | None]] = {}
        for view in views:
            fast = fused_counts(self._weighted(view), view.positions, view.target, weight, view.student.logits)
            found |= {name: {part: term.count for part, term in parts.items()} for name, parts in fast.items()}
            rest = [name for name in view.names if name not in fast]
            seen = view.resampled(any("teacher" in self.objective(name).needs for name in rest)) if rest else view
            for name in rest:
                found[name] = self.objective(name).counts(seen.student, seen.teacher, seen.target, weight)
        return found

    def _weighted(self, view: View) -> dict[str, tuple[Objective, float]]:
        return {name: (self.objective(name), self.weights[name]) for name in view.names}


def value_at(schedule: Schedule, progress: float) -> float:
    """Value at `progress` (0 at the first step, 1 at the last): constant, linear, or cosine (slow at both ends)."""
    if schedule.shape == "constant" or schedule.end is None:
        return schedule.start
    share = (1 - math.cos(math.pi * progress)) / 2 if schedule.shape == "cosine" else progress
    return schedule.start + (schedule.end - schedule.start) * share


def described(terms: Mapping[str, Term]) -> str:
    """The terms of a run file on one line, with what each was given."""
    parts = []
    for name, term in terms.items():
        weight = "scheduled" if isinstance(term.weight, Schedule) else f"{term.weight:g}"
        given = {**({"objective": term.objective} if term.objective else {}), **term.arguments}
        told = ", ".join(f"{key} {value}" for key, value in given.items())
        parts.append(f"{weight} x {name}{f' ({told})' if told else ''}")
    return " + ".join(parts)


def answers_by_sigmoid(objective: Mapping[str, Term]) -> bool:
    """Whether a term of a run takes each logit for a question of its own. Of code of one's own nothing is known."""
    return any(
        term.arguments.get("sigmoid") is True or find(kind).kind.sigmoid
        for name, term in objective.items()
        for kind in (term.objective or name, term.arguments.get("of"))
        if isinstance(kind, str) and ".py:" not in kind
    )


def objective(name: str, /, **arguments: Any) -> Objective:
    """The objective called `name`, or the class at `path/to/file.py:Class`, with these arguments.

    Raises ConfigError for an unknown name or argument, with the nearest, and for a value that does not fit.
    """
    built, schedules = _build(name, name, arguments)
    for key in schedules:
        raise ConfigError(f"objective.{name}.{key}: a schedule moves in a WeightedSum; here goes a value.")
    return built


def _as_terms(terms: Mapping[str, Term | Mapping[str, Any]]) -> dict[str, Term]:
    given = {name: term for name, term in terms.items() if isinstance(term, Term)}
    plain = {name: term for name, term in terms.items() if name not in given}
    read = resolve({"objective": plain}, "objective").objective if plain else {}
    return {name: given.get(name) or read[name] for name in terms}


def _build(
    name: str, kind: str, given: Mapping[str, Any], others: Sequence[str] = ()
) -> tuple[Objective, dict[str, Schedule]]:
    """The objective of a term, and its arguments that move. others: what else may stand beside the arguments."""
    entry = find(kind)
    parameters = inspect.signature(entry.kind).parameters
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    known_hints = hints(entry.kind.__init__)
    arguments: dict[str, Any] = {}
    schedules: dict[str, Schedule] = {}
    for key, value in given.items():
        where = f"objective.{name}.{key}"
        known = key in parameters and parameters[key].kind is not inspect.Parameter.VAR_KEYWORD
        if not known and not free:
            raise ConfigError(f"{where}: {unknown('Argument', key, [*parameters, *others])}")
        default = parameters[key].default if known else inspect.Parameter.empty
        hint = (
            known_hints.get(key, type(default) if isinstance(default, bool | int | float | str) else Any)
            if known
            else Any
        )
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


def _plain(hint: Any) -> bool:
    """Whether it is for a type hint alone to say what is allowed; the objective itself looks at lists and mappings."""
    return all(kind in WORDS or get_origin(kind) is Literal for kind in kinds_of(hint))


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
