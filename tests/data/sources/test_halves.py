"""What is asked of both halves, whether a source read them or they were handed in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import counterpoise
from counterpoise import config
from counterpoise.data.sources import ArraySet, Splits
from counterpoise.data.sources.base import IGNORE
from counterpoise.data.sources.halves import agreed, handed_in
from counterpoise.deploy.pictures import data_of
from counterpoise.engine.inputs import val_of
from counterpoise.errors import ConfigError, CounterpoiseError, DataError

PIXELS = torch.arange(4 * 3 * 8 * 8).reshape(4, 3, 8, 8).to(torch.uint8)


def pictures(labels: list[int] | Tensor, classes: str = "ab") -> ArraySet:
    return ArraySet(PIXELS[: len(labels)], torch.as_tensor(labels), classes)


def scenes(value: int = 1) -> ArraySet:
    masks = torch.zeros(4, 8, 8, dtype=torch.uint8)
    masks[:, 0], masks[:, 1], masks[3, 7, 7] = 1, IGNORE, value
    return ArraySet.of_scenes(PIXELS, masks, "ab")


@pytest.mark.parametrize("given", [(1, 2), pictures([0, 1]), "photos", (pictures([0]),), {"train": 1, "val": 2}])
def test_what_is_no_two_sets_is_refused_wherever_it_is_handed_in(given: Any, tmp_path: Path) -> None:
    for call in (handed_in, lambda data: data_of(tmp_path, None, data), lambda data: val_of(config.Data(), data)):
        with pytest.raises(ConfigError, match=r"Splits\(train, val\), two sets of images; got "):
            call(given)
    assert isinstance(handed_in((pictures([0]), pictures([1]))), Splits)


def test_val_is_put_in_the_order_of_the_classes_of_train() -> None:
    train, val = agreed(Splits(pictures([0, 1]), pictures([0, 0, 1], "ba")), "here")
    assert (train.classes, val.classes, val.labels.tolist()) == (("a", "b"), ("a", "b"), [1, 1, 0])
    several = [torch.tensor([[1, 0], [0, -1]], dtype=torch.int8)] * 2
    _, val = agreed(Splits(pictures(several[0]), pictures(several[1], "ba")), "here")
    assert val.labels.tolist() == [[0, 1], [-1, 0]]


@pytest.mark.parametrize(
    ("halves", "message"),
    [
        (lambda: (pictures([0, 1]), pictures([], "ab")), r"The val half of the data \(here\) holds no images"),
        (lambda: (pictures([0, 1, 4]), pictures([0, 1])), "Labels of the train half are 0 to 4, expected 0 to 1"),
        (lambda: (pictures([0, 1]), pictures([-2, 1])), "Labels of the val half are -2 to 1, expected 0 to 1"),
        (lambda: (pictures([0, -1], ""), pictures([0, -1])), "Labels of the train half are -1 to 0, expected -1, as"),
        (lambda: (pictures([0, 1]), pictures([0, 1], "abc")), "The classes of train and val differ"),
        (lambda: (pictures([0, 1]), pictures([0, 1, -1])), "1 images of the val half have no label"),
        (lambda: (scenes(2), scenes()), "The mask of image #3 of the train half holds 2, expected 0 to 1, the classes"),
        (lambda: (scenes(), scenes().in_order("ab").subset(torch.tensor([]).long())), "val half .* holds no images"),
    ],
)
def test_what_no_training_can_rely_on_is_refused(halves: Callable[[], Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        agreed(Splits(*halves()), "here")


def test_masks_keep_the_order_of_their_classes() -> None:
    other = ArraySet.of_scenes(PIXELS, scenes().masks, "ba")
    with pytest.raises(DataError, match=r"classes of train and val differ: \['a', 'b'\] and \['b', 'a'\]"):
        agreed(Splits(scenes(), other), "here")
    assert agreed(Splits(scenes(IGNORE), scenes()), "here").val.masked


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0.5, 1.5], "ab", "Labels are whole numbers, the places of classes, got 0.5"),
        ([float("nan"), 1.0], "ab", "whole numbers, .* got nan"),
        ([[1.0, 0.0], [0.0, 0.5]], "ab", r"A table of labels holds 1, 0 and -1 \(unknown\), got 0.5"),
        ([[1.0, 0.0], [0.0, float("nan")]], "ab", "A table of labels .* got nan"),
        ([0, 1], "aa", "Class name 'a' is there twice"),
    ],
)
def test_labels_that_are_none_and_doubled_names_are_refused_where_a_set_is_made(
    labels: list[Any], classes: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        pictures(torch.tensor(labels), classes)
    assert pictures(torch.tensor([1.0, 0.0])).labels.tolist() == [1, 0]


def test_sets_that_are_handed_in_are_looked_at_wherever_they_go(tmp_path: Path) -> None:
    run = {
        "data": {"workers": 0, "views": {"crop": "none"}},
        "student": {"model": "digits/cnn_4_8", "input_size": 8},
        "train": {"epochs": 1, "batch_size": 2, "device": "cpu"},
        "out": tmp_path / "run",
    }
    good, beyond = pictures([0, 1, 0, 1]), pictures([0, 1, 4])
    for train in (counterpoise.train, counterpoise.Distillation):
        with pytest.raises(CounterpoiseError, match="Labels of the train half are 0 to 4"):
            train(run, data=Splits(beyond, good))
    student = counterpoise.train(run, data=Splits(good, good)).folder / "student"
    given: dict[str, Any] = {"data_set": Splits(good, beyond)}
    for judge, options in (
        (counterpoise.evaluate, given),
        (counterpoise.promise, given),
        (counterpoise.gauge, {**given, "teacher": {"checkpoint": student}}),
        (counterpoise.cascade, {**given, "teacher": student}),
    ):
        with pytest.raises(DataError, match="Labels of the val half are 0 to 4, expected 0 to 1"):
            judge(student, **options)
    with pytest.raises(DataError, match="Labels of the val half are 0 to 4"):  # export, verify
        data_of(student, None, given["data_set"])
