"""Thin structures on drawn pictures of 12 patients, scored by case: each patient is held out once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoise.demos.base import Demo, Results, objectives, overlays, training
from counterpoise.demos.drawn_vessels import WHITE, draw

if TYPE_CHECKING:
    from counterpoise.data.sources.base import Splits

FOLDS = 3
TEACHER = "digits/unet_16_32_96"
STUDENT = "digits/unet_8_8"
TOTAL_WEIGHT = 1.0
LABELS: Mapping[str, Any] = {"cross_entropy": {"weight": 1.0}}
QUESTIONS: Mapping[str, Any] = {"binary_cross_entropy": {"weight": 1.0}}
"""Labels of a network whose logits are questions, each with an answer of its own."""
OBJECTIVES = {
    **objectives(LABELS, TOTAL_WEIGHT),
    "binary balance": {
        **QUESTIONS,
        "binary_balance": {
            "weight": TOTAL_WEIGHT,
            "forward_weight": 0.5,
            "reverse_weight": 0.5,
            "forward_temperature": 2.0,
            "reverse_temperature": 2.0,
        },
    },
}


def seen(out: Path, data: Splits, results: Results) -> None:
    """Draw what each kind of network makes of the pictures of the last fold."""
    overlays(out, data, {kind: rows[-1].folder for kind, rows in results.items()})


def _values(model: str, epochs: int, learning_rate: float) -> dict[str, Any]:
    return {
        "task": "segmentation",
        "data": {
            "options": {"group": r"(patient_\d+)"},
            "white_level": WHITE,
            "workers": 0,
            # Few pictures: eight crops of each make an epoch of 16 steps.
            "scenes": {"size": [96, 96], "scale": [0.8, 1.25], "crops": 8, "flip_vertical": True},
        },
        "student": {"model": model},
        "train": training(
            epochs,
            8,
            {"name": "adamw", "learning_rate": learning_rate, "weight_decay": 0.01},
            channels_last=True,
            evaluate_every=epochs,
        ),
    }


DEMO = Demo(
    title="Drawn vessels",
    metric="miou",
    unit="mIoU",
    out="runs/demo-vessels",
    seeds=1,
    teacher=_values(TEACHER, epochs=12, learning_rate=0.005),
    student=_values(STUDENT, epochs=12, learning_rate=0.01),
    objectives=OBJECTIVES,
    pictures=seen,
    draw=draw,
    folds=FOLDS,
    teachers={"binary balance": ("binary teacher", QUESTIONS)},
    scores=("dice", "precision", "recall"),
)
