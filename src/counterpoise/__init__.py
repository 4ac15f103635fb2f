"""Counterpoise: distil a large vision model into a small one with Balance Divergence, and ship the small one.

The loss alone:

    from counterpoise import BalanceDivergence
    loss = BalanceDivergence()(student_logits, teacher_logits)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from counterpoise.config import Run
    from counterpoise.errors import CounterpoiseError
    from counterpoise.objectives.balance import BalanceDivergence, balance_divergence

__version__ = "0.1.0"

__all__ = [
    "BalanceDivergence",
    "CounterpoiseError",
    "Run",
    "__version__",
    "balance_divergence",
]

_HOMES = {
    "BalanceDivergence": "objectives.balance",
    "CounterpoiseError": "errors",
    "Run": "config",
    "balance_divergence": "objectives.balance",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `counterpoise --help` must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'counterpoise' has no attribute '{name}'")
    return getattr(importlib.import_module(f"counterpoise.{_HOMES[name]}"), name)
