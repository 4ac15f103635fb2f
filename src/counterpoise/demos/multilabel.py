"""Distillation of several labels a picture on images that everyone has: two of scikit-learn's digits on each canvas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from counterpoise.demos.base import Demo, training

TEACHER = "digits/cnn_32_64_64"
STUDENT = "digits/cnn_8_16"
TOTAL_WEIGHT = 1.0
"""Weight of the teacher's word, the same for KD and Balance, so that neither wins by a larger one."""

LABELS: Mapping[str, Any] = {"binary_cross_entropy": {"weight": 1.0}}


def _taught(forward: float, reverse: float) -> Mapping[str, Any]:
    """The labels, and forward and reverse KL of sigmoids by these parts of the weight."""
    parts = {"forward_weight": forward, "reverse_weight": reverse}
    temperatures = {"forward_temperature": 2.0, "reverse_temperature": 2.0}
    return {**LABELS, "binary_balance": {"weight": TOTAL_WEIGHT, **parts, **temperatures}}


OBJECTIVES = {"alone": LABELS, "kd": _taught(1.0, 0.0), "balance": _taught(0.5, 0.5)}


def _values(model: str, epochs: int) -> dict[str, Any]:
    return {
        "task": "multilabel",
        "data": {
            "source": "digit_pairs",
            "options": {"train_size": 1500, "val_size": 500},
            "views": {"crop": "pad", "padding": 1, "flip": False},
        },
        "student": {"model": model, "input_size": 20},
        "train": training(epochs, 32, {"learning_rate": 0.05}),
    }


DEMO = Demo(
    title="Pairs of handwritten digits",
    metric="map",
    unit="mean average precision",
    out="runs/demo-multilabel",
    seeds=3,
    teacher=_values(TEACHER, epochs=12),
    student=_values(STUDENT, epochs=10),
    objectives=OBJECTIVES,
)
