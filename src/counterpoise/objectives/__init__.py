"""What the student is asked to imitate: one published method a file. Here all their classes, by name:

from counterpoise.objectives import BalanceDivergence, DecoupledDistillation, objective
objective("dkd", alpha=1.0)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from counterpoise.objectives.base import LogitObjective, Objective
    from counterpoise.objectives.composite import WeightedSum, objective
    from counterpoise.objectives.gauge import Gauge

__all__ = ["Gauge", "LogitObjective", "Objective", "WeightedSum", "objective"]
_HOMES = {
    "Gauge": "gauge",
    "LogitObjective": "base",
    "Objective": "base",
    "WeightedSum": "composite",
    "objective": "composite",
}


def __getattr__(name: str) -> Any:
    """Import on first use, and find a class in whichever file registers it."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name[:1].isupper() and name in (kinds := _kinds()):  # modules, which are looked for here first, are lower case
        return kinds[name]
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_kinds()})


def _kinds() -> dict[str, type[Objective]]:
    from counterpoise.objectives.base import entries

    return {entry.kind.__name__: entry.kind for entry in entries().values()}
