"""Kinds of task by name, those of other packages included."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from counterpoise.tasks.base import TASKS
from counterpoise.tasks.classification import Classification

Run = Callable[..., tuple[int, str, str]]


class Plates(Classification):
    """A task of another package."""

    name = "plates"


def test_a_task_of_another_package_is_trained_and_scored_as_ours_are(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\ndef net(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), "
        "nn.Linear(32, num_classes))\n"
    )
    with TASKS.trial():
        TASKS.add("plates", Plates(), __name__)
        code, out, error = run(
            *("train", "--task", "plates", "--data.source", "digits", "--student.model", "mine.py:net"),
            *("--train.epochs", "1", "--out", "run", "--json", "--quiet"),
        )
        assert code == 0, error
        assert json.loads((tmp_path / "run/student/student.json").read_text())["task"] == "plates"
        code, scored, error = run("evaluate", "run", "--model", "mine.py:net", "--json")
        assert code == 0, error
        assert json.loads(scored)["top1"] == json.loads(out)["last"]["top1"]


def test_an_unknown_task_is_told_with_the_nearest(run: Run) -> None:
    code, _, error = run("train", "--task", "segmentaton", "--data.source", "digits")
    assert (code, error) == (
        2,
        "Error: Task 'segmentaton' is unknown. Did you mean 'segmentation'? "
        "Available: classification, multilabel, multilabel_segmentation, segmentation.\n",
    )
