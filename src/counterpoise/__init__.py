"""Counterpoise: distil a large vision model into a small one with Balance Divergence, and ship the small one.

The loss alone:

    from counterpoise import BalanceDivergence
    loss = BalanceDivergence()(student_logits, teacher_logits)
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from counterpoise.commands.listing import listing as list
    from counterpoise.config import Run
    from counterpoise.data.sources.base import Splits
    from counterpoise.demos import demo
    from counterpoise.deploy.export import export
    from counterpoise.deploy.finetune import finetune
    from counterpoise.deploy.measuring.measure import measure
    from counterpoise.deploy.publishing import push
    from counterpoise.deploy.site.making import try_
    from counterpoise.deploy.verify import verify
    from counterpoise.engine.answers import check, evaluate, gauge, predict
    from counterpoise.engine.runs import distill, record, train
    from counterpoise.errors import CounterpoiseError, Interrupted
    from counterpoise.objectives.balance import BalanceDivergence, balance_divergence
    from counterpoise.objectives.composite import WeightedSum, objective
    from counterpoise.objectives.gauge import Gauge
    from counterpoise.pages.report.writing import report
    from counterpoise.pages.watching import watch
    from counterpoise.students.student import load_student
    from counterpoise.studies.compare import compare
    from counterpoise.studies.fitting.fit import fit
    from counterpoise.studies.search import search
    from counterpoise.teachers.stored import StoredTeacher

__all__ = [
    "BalanceDivergence",
    "CounterpoiseError",
    "Gauge",
    "Interrupted",
    "Run",
    "Splits",
    "StoredTeacher",
    "WeightedSum",
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
    "objective",
    "predict",
    "push",
    "record",
    "report",
    "search",
    "train",
    "try_",
    "verify",
    "watch",
]

_HOMES = {
    "BalanceDivergence": "objectives.balance",
    "CounterpoiseError": "errors",
    "Gauge": "objectives.gauge",
    "Interrupted": "errors",
    "Run": "config",
    "Splits": "data.sources.base",
    "StoredTeacher": "teachers.stored",
    "WeightedSum": "objectives.composite",
    "balance_divergence": "objectives.balance",
    "check": "engine.answers",
    "compare": "studies.compare",
    "demo": "demos",
    "distill": "engine.runs",
    "evaluate": "engine.answers",
    "export": "deploy.export",
    "fit": "studies.fitting.fit",
    "finetune": "deploy.finetune",
    "gauge": "engine.answers",
    "list": "commands.listing",
    "load_student": "students.student",
    "measure": "deploy.measuring.measure",
    "objective": "objectives.composite",
    "predict": "engine.answers",
    "push": "deploy.publishing",
    "record": "engine.runs",
    "report": "pages.report",
    "search": "studies.search",
    "train": "engine.runs",
    "try_": "deploy.site.making",
    "verify": "deploy.verify",
    "watch": "pages.watching",
}
_NAMES = {"list": "listing"}  # a module that defined `list` would hide Python's own from itself


def __getattr__(name: str) -> Any:
    """Import on first use: `counterpoise --help` must not wait for torch."""
    if name == "__version__":
        return version("counterpoise")
    if name not in _HOMES:
        raise AttributeError(f"module 'counterpoise' has no attribute '{name}'")
    return getattr(importlib.import_module(f"counterpoise.{_HOMES[name]}"), _NAMES.get(name, name))
