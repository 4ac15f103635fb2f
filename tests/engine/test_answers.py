"""What is compared is compared in one order of the classes, and as the task has it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import counterpoise
from counterpoise import tasks
from counterpoise.data.sources import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.engine.imitation import better
from counterpoise.errors import DataError

TRAIN: dict[str, Any] = {"epochs": 1, "batch_size": 20, "device": "cpu", "optimizer": {"learning_rate": 0.1}}


def pictures(classes: str, labels: torch.Tensor) -> Splits:
    """40 and 20 pictures in bands as bright as their labels say."""
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (60, 3, 8, 8), dtype=torch.uint8, generator=drawn)
    told = labels.view(60, -1)
    images[:, :, : told.shape[1]] += (100 * (told == told.max())).to(torch.uint8)[:, None, :, None]
    return Splits(*(ArraySet(images[part], labels[part], list(classes)) for part in (slice(40), slice(40, 60))))


def told(found: dict[str, Any]) -> tuple[float, float, float]:
    return found["forward_kl"], found["reverse_kl"], found["agreement"]["top1"]


def test_a_student_agrees_with_itself_in_whatever_order_the_data_have_the_classes(tmp_path: Path) -> None:
    labels, place = torch.arange(60) % 3, tmp_path / "run"
    counterpoise.train(
        {"student": {"model": "digits/cnn_4_8"}, "train": TRAIN, "out": str(place)}, data=pictures("abc", labels)
    )
    turned = pictures("cba", labels)
    found = counterpoise.gauge(place, teacher={"checkpoint": str(place)}, data_set=turned)
    assert told(found) == pytest.approx((0, 0, 100), abs=1e-5)


def test_several_teachers_of_several_labels_are_averaged_as_such(tmp_path: Path) -> None:
    labels, place = (
        (torch.rand(60, 4, generator=torch.Generator().manual_seed(1)) > 0.5).to(torch.int8),
        tmp_path / "run",
    )
    data = pictures("abcd", labels)
    run = {"task": "multilabel", "student": {"model": "digits/cnn_4_8"}, "train": TRAIN, "out": str(place)}
    counterpoise.train(run, data=data)
    weights = {"model": "digits/cnn_4_8", "checkpoint": str(place / "student" / "model.safetensors")}
    for members in ([weights, weights], [str(place), str(place)]):
        found = counterpoise.gauge(place, teacher={"members": members}, data_set=data)
        assert told(found)[:2] == pytest.approx((0, 0), abs=1e-5)


def test_pictures_of_elsewhere_are_all_compared_as_they_are_all_scored(
    image_folder: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    flags = ["--student.model", "digits/cnn_4_8", "--data.size", "16", "--train.epochs", "1", "--train.device", "cpu"]
    assert run("train", "--data", image_folder, *flags, "--out", "run")[0] == 0
    found = counterpoise.gauge("run", teacher={"checkpoint": "run"}, data=image_folder / "train")
    assert found["positions"] == counterpoise.evaluate("run", data=image_folder / "train")["images"] == 24


@pytest.mark.parametrize(("task", "name"), [("classification", "top1"), ("classification", "loss")])
def test_nan_is_worse_than_any_score(task: str, name: str) -> None:
    parts: Any = SimpleNamespace(
        task=tasks.get(task),
        objective=SimpleNamespace(of_features_alone=False),
        run=SimpleNamespace(train=SimpleNamespace(best_by=name)),
    )
    good, worse = ({name: value} for value in ((0.5, 0.9) if name == "loss" else (90.0, 10.0)))
    nothing = {name: math.nan}
    assert better(parts, nothing, {})
    assert better(parts, worse, nothing)
    assert not better(parts, nothing, worse)
    assert not better(parts, nothing, nothing)
    assert better(parts, good, worse)
    assert not better(parts, worse, good)


def test_scores_go_by_the_labels_of_the_val_pictures(tmp_path: Path) -> None:
    data = pictures("abc", torch.arange(60) % 3)
    teacher = {
        "student": {"model": "digits/cnn_4_8"},
        "train": {**TRAIN, "epochs": 8},
        "out": str(tmp_path / "teacher"),
    }
    counterpoise.train(teacher, data=data)
    run = {"teacher": {"checkpoint": str(tmp_path / "teacher")}, "student": {"model": "digits/cnn_4_8"}, "train": TRAIN}
    train, val = data
    blind = [ArraySet(part.images, torch.full_like(part.labels, -1), part.classes) for part in data]
    with pytest.raises(DataError, match="20 images of the val half have no label"):
        counterpoise.distill({**run, "out": str(tmp_path / "a")}, data=Splits(train, blind[1]))
    found = counterpoise.distill({**run, "out": str(tmp_path / "b")}, data=Splits(blind[0], val))
    assert found.teacher["top1"] > 40
    assert "top1" in found.last
