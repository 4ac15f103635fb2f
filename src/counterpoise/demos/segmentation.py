"""Distillation of dense answers on images that everyone has: scikit-learn's digits on its two photographs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterpoise.demos.base import Demo, Results, objectives

if TYPE_CHECKING:
    from counterpoise.data.sources.base import Splits

TEACHER = "digits/unet_16_32_96"
STUDENT = "digits/unet_16_16_16"
TOTAL_WEIGHT = 1.0
"""Weight of the teacher's word, the same for KD and Balance, so that neither wins by a larger one."""

SHOWN = 8  # scenes

# Nine tenths of all pixels are background. Unweighted, a small network says nothing else for many epochs, alone or from
# a teacher: labels of digits count more, and the teacher is listened to where the digits are.
LABELS: Mapping[str, Any] = {
    "cross_entropy": {"weight": 1.0, "class_weight": [0.2, *[1.0] * 10]},
    "dice": {"weight": 2.0},
}
OBJECTIVES = objectives(LABELS, TOTAL_WEIGHT, ignore_index=0)


def overlays(out: Path, data: Splits, results: Results) -> None:
    """Draw the first scenes of val as overlays/N.png: image, truth, teacher, and a student of each kind, of seed 1."""
    from counterpoise.engine.student import load_student
    from counterpoise.tasks.overlays import overlay
    from counterpoise.tasks.segmentation import segment

    titles = {"teacher": "teacher", "alone": "student alone", "kd": "KD", "balance": "Balance"}
    networks = {titles[kind]: load_student(rows[0].folder) for kind, rows in results.items()}
    (out / "overlays").mkdir(exist_ok=True)
    for number in range(min(SHOWN, len(data.val))):
        image = data.val.read(number)
        masks = {"truth": data.val.read_mask(number)}
        masks |= {title: segment(network, image) for title, network in networks.items()}
        overlay(out / "overlays" / f"{number + 1}.png", image, masks, data.val.classes)


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
        "train": {
            "epochs": epochs,
            "batch_size": 16,
            "precision": "fp32",
            "channels_last": True,
            "device": "cpu",
            "optimizer": {"name": "adamw", "learning_rate": learning_rate, "weight_decay": 0.01},
            "schedule": {"name": "one_cycle"},
        },
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
    pictures=overlays,
)
