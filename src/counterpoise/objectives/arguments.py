"""What an objective is given: its arguments by their type hints, and tensors where tensors go."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from torch import Tensor

from counterpoise.errors import ObjectiveError, shown
from counterpoise.objectives.logits import kind_of
from counterpoise.outputs import Outputs

WORDS = {float: "a number", int: "a whole number", bool: "True or False", str: "text", NoneType: "None"}
"""What a plain type hint asks for."""


def checked(init: Callable[..., None]) -> Callable[..., None]:
    """An `__init__` that compares its plain arguments with their type hints: "4" or NaN would else be found out by a
    step of training, or by nobody."""

    @functools.wraps(init)
    def checking(self: Any, *given: Any, **named: Any) -> None:
        try:
            arguments = inspect.signature(init).bind(self, *given, **named).arguments
        except TypeError:  # an argument too many, or too few: `init` says so
            arguments = {}
        allowed = {name: kinds_of(hint) for name, hint in hints(init).items()}
        plain = {name: value for name, value in arguments.items() if set(allowed.get(name, [Any])) <= WORDS.keys()}
        for name, value in plain.items():
            _check(name, value, allowed[name])
        init(self, *given, **named)
        for name, value in plain.items():  # last, for `init` may say between what it must be
            if float in allowed[name]:
                check_finite(name, value)

    return checking


def hints(init: Callable[..., None]) -> dict[str, Any]:
    """The type hints of an `__init__`; none where they are names that only a type checker imports."""
    try:
        return get_type_hints(init)
    except (NameError, TypeError):
        return {}


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """The types that a hint allows."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def check_tensors(**given: object) -> None:
    """Raise ObjectiveError where one of these is neither a tensor nor None."""
    for name, value in given.items():
        if value is not None and not isinstance(value, Tensor):
            raise ObjectiveError(f"{name} must be a tensor, got {kind_of(value)}.{_way(value)}")


def check_outputs(student: object, teacher: object, **tensors: object) -> None:
    """Raise ObjectiveError where a side is no `Outputs` of logits, or one of the others no tensor."""
    for side, given in (("student", student), ("teacher", teacher)):
        if isinstance(given, Outputs):
            tensors[f"{side}_logits"] = given.logits
        elif given is not None or side == "student":
            raise ObjectiveError(
                f"{side} must be Outputs(logits), of counterpoise.outputs, got {kind_of(given)}. An objective by "
                "itself takes tensors."
            )
    check_tensors(**tensors)


def check_number(name: str, value: object) -> None:
    """Raise ObjectiveError for what is no number."""
    _check(name, value, (float,))


def check_finite(name: str, value: object) -> None:
    """Raise ObjectiveError for a number that is infinite, or NaN."""
    if isinstance(value, Real) and not math.isfinite(value):
        raise ObjectiveError(f"{name} must be finite, got {value}.")


def _check(name: str, value: object, kinds: tuple[Any, ...]) -> None:
    if not any(_is(value, kind) for kind in kinds):
        told = kind_of(value) if isinstance(value, Tensor) else shown(value)
        raise ObjectiveError(f"{name} must be {' or '.join(WORDS[kind] for kind in kinds)}, got {told}.")


def _is(value: object, kind: type) -> bool:
    if kind in (float, int) and isinstance(value, Tensor):  # of one number, such as a temperature that is learned
        return value.ndim == 0
    if kind in (float, int):
        return isinstance(value, Real if kind is float else Integral) and not isinstance(value, bool)
    return isinstance(value, int if kind is bool else kind)


def _way(value: object) -> str:
    """What to do with a value that is no tensor."""
    if isinstance(value, tuple | list) and value and isinstance(value[0], Tensor):
        return " Give the one of them that is meant."
    return " torch.as_tensor makes one of it." if hasattr(value, "__len__") and not isinstance(value, str) else ""
