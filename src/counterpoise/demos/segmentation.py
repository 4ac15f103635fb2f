"""Distillation of dense answers on images that everyone has: scikit-learn's digits on its two photographs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoise.demos.base import Demo, Results, objectives, overlays, training

if TYPE_CHECKING:
    from counterpoise.data.sources.base import Splits

TEACHER = "digits/unet_16_32_96"
STUDENT = "digits/unet_16_16_16"
TOTAL_WEIGHT = 1.0
"""Weight of the teacher's word, the same for KD and Balance, so that neither wins by a larger one."""

# Nine tenths of all pixels are background. Unweighted, a small network says nothing else for many epochs, alone or from
# a teacher: labels of digits count more, and the teacher is listened to where the digits are.
LABELS: Mapping[str, Any] = {
    "cross_entropy": {"weight": 1.0, "class_weight": [0.2, *[1.0] * 10]},
    "dice": {"weight": 2.0},
}
OBJECTIVES = objectives(LABELS, TOTAL_WEIGHT, ignore_index=0)


def seen(out: Path, data: Splits, results: Results) -> None:
    """Draw what the teacher and a student of each kind, of seed 1, make of the first scenes of val."""
    titles = {"teacher": "teacher", "alone": "student alone", "kd": "KD", "balance": "Balance"}
    overlays(out, data, {titles[kind]: rows[0].folder for kind, rows in results.items()})


def _values(model: str, epochs: int, learning_rate: float) -> dict[str, Any]:
    return {
        "task": "segmentation",
        "data": {
            "source": "digit_scenes",
            "options": {"train_size": 2500, "val_size": 200, "edge": 48},
            # Whole scenes, for there are enough of them, and a mirrored digit is none. Students are compared with their
            # teacher at the logits' own resolution: at that of the scenes it would take longer than all else.
            "scenes": {"scale": (1.0, 1.0), "flip": False, "resolution": "logits"},
            "workers": 0,
        },
        "student": {"model": model},
        "train": training(
            epochs,
            16,
            {"name": "adamw", "learning_rate": learning_rate, "weight_decay": 0.01},
            channels_last=True,
        ),
    }


DEMO = Demo(
    title="Handwritten digits on photographs",
    metric="miou",
    unit="mIoU",
    out="runs/demo-segmentation",
    seeds=3,
    teacher=_values(TEACHER, epochs=10, learning_rate=0.006),
    student=_values(STUDENT, epochs=4, learning_rate=0.01),
    objectives=OBJECTIVES,
    pictures=seen,
)
