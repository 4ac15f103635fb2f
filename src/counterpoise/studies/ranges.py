"""What a search may choose: ranges by name, values that are computed from them, and points drawn beforehand."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import Field, model_validator

from counterpoise.config import Section
from counterpoise.errors import ConfigError, unknown

Point = dict[str, Any]
"""A value for each range, by name."""


class Range(Section):
    """Numbers from `low` to `high`, or `choices`.

    With `key` the value is that of a key of the run file; otherwise expressions such as "$total * $share" take it.
    """

    low: float | None = Field(None, allow_inf_nan=False, description="smallest value")
    high: float | None = Field(None, allow_inf_nan=False, description="largest value")
    log: bool = Field(False, description="drawn evenly on a logarithmic scale")
    choices: list[Any] | None = Field(None, description="the values themselves")
    key: str | None = Field(None, description="key of the run file that it is the value of")

    @model_validator(mode="after")
    def _holds_something(self) -> Range:
        if self.choices is not None:
            if not self.choices:
                raise ValueError("an empty range: choices hold nothing")
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("takes choices, or low and high, not both")
            return self
        if self.low is None or self.high is None:
            raise ValueError("needs low and high, or choices")
        if self.low >= self.high:
            raise ValueError(f"an empty range: low is {self.low:g} and high is {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"on a logarithmic scale low must be above 0, got {self.low:g}")
        return self

    def at(self, share: float) -> Any:
        """The value at a share of the range, 0 to 1."""
        if self.choices is not None:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        assert self.low is not None
        assert self.high is not None
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        # Four digits: what is written down is what was trained.
        return min(max(float(f"{value:.4g}"), self.low), self.high)


STANDARD = {
    "total": Range(low=0.5, high=30.0, log=True),
    "temperature": Range(low=1.0, high=8.0),
    "share": Range(low=0.1, high=0.9),
}
"""Ranges that a method gets where it uses their names and the file says nothing of them."""


def draw(ranges: Mapping[str, Range], trials: int, seed: int) -> list[Point]:
    """`trials` points over the ranges, which may be those of several methods: Sobol's sequence, scrambled by `seed`.

    Each name is one dimension, so that trial k of two methods has the same value of whatever both choose.
    """
    from scipy.stats import qmc

    names = sorted(ranges)
    sampler = qmc.Sobol(len(names), scramble=True, seed=seed)
    # Balanced in blocks of a power of two, of which the first are taken.
    shares = sampler.random_base2(max(trials - 1, 1).bit_length())[:trials]
    return [{name: ranges[name].at(float(row[i])) for i, name in enumerate(names)} for row in shares]


_OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_NAME = re.compile(r"\$([A-Za-z_]\w*)")


def fill(values: Any, point: Point, where: str) -> Any:
    """Values with each text that names a range, such as "$total * (1 - $share)", computed at a point.

    A text that is a name alone gives the value itself, number or not. Raises ConfigError at `where`.
    """
    if isinstance(values, Mapping):
        return {key: fill(value, point, f"{where}.{key}") for key, value in values.items()}
    if isinstance(values, list):
        return [fill(value, point, where) for value in values]
    if not isinstance(values, str) or "$" not in values:
        return values
    for name in _NAME.findall(values):
        if name not in point:
            raise ConfigError(f"{where}: '{values}': {unknown('Range', name, point)}")
    alone = _NAME.fullmatch(values.strip())
    if alone is not None:
        return point[alone[1]]
    try:
        tree = ast.parse(_NAME.sub(r"\1", values).strip(), mode="eval")
        return float(_compute(tree.body, point))
    except (SyntaxError, ValueError, TypeError, RecursionError):
        raise ConfigError(
            f"{where}: '{values}' cannot be computed; expected numbers, $names, + - * / and brackets."
        ) from None
    except (ZeroDivisionError, OverflowError):
        raise ConfigError(f"{where}: '{values}' has no finite value at {point}.") from None


def _compute(node: ast.AST, point: Point) -> float:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_compute(node.left, point), _compute(node.right, point))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_compute(node.operand, point))
    value = point.get(node.id) if isinstance(node, ast.Name) else getattr(node, "value", None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("no number")
    return value


def names_in(values: Any) -> set[str]:
    """The names of ranges that values take."""
    if isinstance(values, Mapping):
        return set().union(*map(names_in, values.values()))
    if isinstance(values, list):
        return set().union(*map(names_in, values))
    return set(_NAME.findall(values)) if isinstance(values, str) else set()
