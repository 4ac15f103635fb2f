"""Counterpoise: distil a large vision model into a small one with Balance Divergence, and ship the small one.

The loss alone:

    from counterpoise import BalanceDivergence
    loss = BalanceDivergence()(student_logits, teacher_logits)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from counterpoise.api import check, distill, evaluate, gauge, predict, record, train, try_, watch
    from counterpoise.api import listing as list
    from counterpoise.comparing.compare import compare
    from counterpoise.comparing.search import search
    from counterpoise.config import Run
    from counterpoise.demos import demo
    from counterpoise.deploy.export import export
    from counterpoise.deploy.finetune import finetune
    from counterpoise.deploy.measuring.measure import measure
    from counterpoise.deploy.publishing import push
    from counterpoise.deploy.verify import verify
    from counterpoise.errors import CounterpoiseError
    from counterpoise.fitting.fit import fit
    from counterpoise.models.student import load_student
    from counterpoise.objectives.balance import BalanceDivergence, balance_divergence

__version__ = "0.1.0"

__all__ = [
    "BalanceDivergence",
    "CounterpoiseError",
    "Run",
    "__version__",
    "balance_divergence",
    "check",
    "compare",
    "demo",
    "distill",
    "evaluate",
    "export",
    "finetune",
    "fit",
    "gauge",
    "list",
    "load_student",
    "measure",
    "predict",
    "push",
    "record",
    "search",
    "train",
    "try_",
    "verify",
    "watch",
]

_HOMES = {
    "BalanceDivergence": "objectives.balance",
    "CounterpoiseError": "errors",
    "Run": "config",
    "balance_divergence": "objectives.balance",
    "check": "api",
    "compare": "comparing.compare",
    "demo": "demos",
    "distill": "api",
    "evaluate": "api",
    "export": "deploy.export",
    "fit": "fitting.fit",
    "finetune": "deploy.finetune",
    "gauge": "api",
    "list": "api",
    "load_student": "models.student",
    "measure": "deploy.measuring.measure",
    "predict": "api",
    "push": "deploy.publishing",
    "record": "api",
    "search": "comparing.search",
    "train": "api",
    "try_": "api",
    "verify": "deploy.verify",
    "watch": "api",
}
_NAMES = {"list": "listing"}  # a module that defined `list` would hide Python's own from itself


def __getattr__(name: str) -> Any:
    """Import on first use: `counterpoise --help` must not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'counterpoise' has no attribute '{name}'")
    return getattr(importlib.import_module(f"counterpoise.{_HOMES[name]}"), _NAMES.get(name, name))
