"""Distillation on images that everyone has: the handwritten digits of scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from counterpoise.demos.base import Demo, objectives, training

TEACHER = "digits/cnn_32_64"
STUDENT = "digits/cnn_4_8"
TOTAL_WEIGHT = 3.6
"""Weight of the teacher's word, the same for KD and Balance, so that neither wins by a larger one."""

OBJECTIVES = objectives({"cross_entropy": {"weight": 1.0}}, TOTAL_WEIGHT)


def student_run(out: Path, model: str, seed: int, epochs: int, objective: Mapping[str, Any]) -> dict[str, Any]:
    """The values of one run of the demo."""
    return {"out": str(out), "seed": seed, "objective": objective, **_values(model, epochs)}


def _values(model: str, epochs: int) -> dict[str, Any]:
    return {
        # Digits are neither mirrored nor cropped: a crop of 8 x 8 pixels loses the digit.
        "data": {
            "source": "digits",
            "options": {"train_size": 600},
            "views": {"crop": "pad", "padding": 1, "flip": False},
        },
        "student": {"model": model},
        "train": training(epochs, 32, {"learning_rate": 0.05}),
    }


DEMO = Demo(
    title="Handwritten digits",
    metric="top1",
    unit="top-1",
    out="runs/demo",
    seeds=5,
    teacher=_values(TEACHER, epochs=30),
    student=_values(STUDENT, epochs=20),
    objectives=OBJECTIVES,
)
