"""Counterpoise: distil a large vision model into a small one with Balance Divergence, and ship the small one.

The loss alone:

    from counterpoise import BalanceDivergence
    loss = BalanceDivergence()(student_logits, teacher_logits)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from counterpoise.api import distill, evaluate, predict, train
    from counterpoise.config import Run
    from counterpoise.demos import demo
    from counterpoise.errors import CounterpoiseError
    from counterpoise.models.student import load_student
    from counterpoise.objectives.balance import BalanceDivergence, balance_divergence

__version__ = "0.1.0"

__all__ = [
    "BalanceDivergence",
    "CounterpoiseError",
    "Run",
    "__version__",
    "balance_divergence",
    "demo",
    "distill",
    "evaluate",
    "load_student",
    "predict",
    "train",
]

_HOMES = {
    "BalanceDivergence": "objectives.balance",
    "CounterpoiseError": "errors",
    "Run": "config",
    "balance_divergence": "objectives.balance",
    "demo": "demos",
    "distill": "api",
    "evaluate": "api",
    "load_student": "models.student",
    "predict": "api",
    "train": "api",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `counterpoise --help` must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'counterpoise' has no attribute '{name}'")
    return getattr(importlib.import_module(f"counterpoise.{_HOMES[name]}"), name)
