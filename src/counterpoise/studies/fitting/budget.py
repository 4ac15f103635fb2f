"""What a student may cost, such as "latency<=15ms, size<=4MB", and what a candidate does cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from counterpoise.errors import ConfigError, nearest, unknown

# Of each quantity: the unit that its limit and costs have, and what others are in it. Megabytes are 10^6 bytes.
UNITS: dict[str, dict[str, float]] = {
    "latency": {"ms": 1.0, "us": 1e-3, "s": 1e3},
    "size": {"MB": 1.0, "KB": 1e-3, "kB": 1e-3, "GB": 1e3, "B": 1e-6},
    "memory": {"MB": 1.0, "KB": 1e-3, "kB": 1e-3, "GB": 1e3},
    "multiply_adds": {"M": 1.0, "G": 1e3, "K": 1e-3},
    "parameters": {"": 1.0, "K": 1e3, "M": 1e6},
}
EXAMPLE = 'expected such as "latency<=15ms, size<=4MB"'
_LIMIT = re.compile(r"\s*([A-Za-z_-]+)\s*(<=|<|≤|=<|>=|>|==?|≥)\s*([-+\d.]+)\s*([A-Za-z]*)\s*")


@dataclass(frozen=True)
class Cost:
    """How much of a quantity: as it is told, and the upper end of its interval, which has to keep a limit."""

    value: float
    high: float


Costs = Mapping[str, Cost]


@dataclass(frozen=True)
class Budget:
    """Limits by quantity, each in the first unit of `UNITS`."""

    limits: Mapping[str, float]

    def __str__(self) -> str:
        return ", ".join(f"{name}<={shown(name, limit)}" for name, limit in self.limits.items())

    def excess(self, costs: Costs) -> dict[str, float]:
        """By quantity that is over its limit, how many times it is that."""
        return {
            name: costs[name].high / limit
            for name, limit in self.limits.items()
            if name in costs and costs[name].high > limit
        }

    def loosened(self, costs: Costs) -> Budget:
        """The smallest budget above this one that such costs keep: what it would take."""
        return Budget(
            {
                name: max(limit, _above(costs[name].high)) if name in costs else limit
                for name, limit in self.limits.items()
            }
        )


def parse(text: str) -> Budget:
    """A budget from its text. Raises ConfigError that says what is wrong with it."""
    limits: dict[str, float] = {}
    for part in text.split(","):
        found = _LIMIT.fullmatch(part)
        if found is None:
            raise ConfigError(f"Budget '{text}': '{part.strip()}' is no limit; {EXAMPLE}.")
        name, sign, number, unit = found.groups()
        if name not in UNITS:
            raise ConfigError(f"Budget '{text}': {unknown('Quantity', name, UNITS)}")
        if sign not in ("<=", "<", "≤"):
            raise ConfigError(
                f"Budget '{text}': {name} can be kept below something only: write {name}<={number}{unit}."
            )
        if unit not in UNITS[name]:
            known = ", ".join(unit or "no unit" for unit in UNITS[name])
            raise ConfigError(
                f"Budget '{text}': {name} is given in {known}, got '{unit}'."
                + (nearest(unit, UNITS[name]) or f" Such as {name}<={number}{next(iter(UNITS[name]))}." * (not unit))
            )
        if name in limits:
            raise ConfigError(f"Budget '{text}': {name} has two limits.")
        try:
            limits[name] = float(number) * UNITS[name][unit]
        except ValueError:
            raise ConfigError(f"Budget '{text}': '{number}' is no number; {EXAMPLE}.") from None
        if not 0 < limits[name] < float("inf"):
            raise ConfigError(f"Budget '{text}': the limit of {name} must be above 0, got {number}.")
    return Budget(limits)


def shown(name: str, value: float) -> str:
    """A value of a quantity with its unit, as a budget is written."""
    number = f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}"
    return f"{number}{next(iter(UNITS[name]))}"


def costs_of(entry: Mapping[str, Any], threads: int) -> dict[str, Cost]:
    """The costs of one picture by one entry of `measure`, with so many threads."""
    case = next(case for case in entry["cases"] if (case["threads"], case["batch"]) == (threads, 1))
    costs = {"latency": Cost(case["median_ms"], case["high_ms"])} if case["high_ms"] is not None else {}
    exact = {
        "size": None if entry["bytes"] is None else entry["bytes"] / 1e6,
        "memory": case["peak_mb"],
        "multiply_adds": None if entry["multiply_adds"] is None else entry["multiply_adds"] / 1e6,
        "parameters": entry["parameters"],
    }
    return {**costs, **{name: Cost(value, value) for name, value in exact.items() if value is not None}}


def _above(value: float) -> float:
    """Three digits, rounded up: what is below the result is below what is printed of it."""
    text = f"{value:.3g}"
    step = 10.0 ** (int(f"{value:e}".partition("e")[2]) - 2)
    return float(text) if float(text) >= value else float(f"{float(text) + step:.3g}")
