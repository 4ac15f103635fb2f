"""Thin structures on drawn pictures of 12 patients, scored by case: each patient is held out once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from counterpoise.demos.base import Demo, Results, objectives
from counterpoise.demos.drawn_vessels import WHITE, draw

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


def overlays(out: Path, data: Any, results: Results) -> None:
    """Draw the pictures of the last fold as overlays/N.png: picture, truth, and what each kind of network answers."""
    from counterpoise.engine.student import load_student
    from counterpoise.tasks.overlays import overlay
    from counterpoise.tasks.segmentation import segment

    networks = {kind: load_student(rows[-1].folder) for kind, rows in results.items()}
    (out / "overlays").mkdir(exist_ok=True)
    for number in range(len(data.val)):
        image = data.val.read(number)
        masks = {"truth": data.val.read_mask(number)}
        masks |= {kind: segment(network, image) for kind, network in networks.items()}
        overlay(out / "overlays" / f"{number + 1}.png", image, masks, data.val.classes)


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
        "train": {
            "epochs": epochs,
            "batch_size": 8,
            "precision": "fp32",
            "channels_last": True,
            "device": "cpu",
            "evaluate_every": epochs,
            "optimizer": {"name": "adamw", "learning_rate": learning_rate, "weight_decay": 0.01},
            "schedule": {"name": "one_cycle"},
        },
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
    pictures=overlays,
    draw=draw,
    folds=FOLDS,
    teachers={"binary balance": ("binary teacher", QUESTIONS)},
    scores=("dice", "precision", "recall"),
)
