"""What is said of the networks and the data before a run starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from counterpoise import config
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.engine import networks, remarks
from counterpoise.models.network import VisionModel
from counterpoise.objectives.composite import WeightedSum


def said(labeled: int, weight: float = 1.0, **terms: dict[str, Any]) -> list[str]:
    labels = torch.full((1000,), -1)
    labels[:labeled] = torch.arange(labeled) % 2
    images = ArraySet(torch.zeros(1000, 3, 1, 1, dtype=torch.uint8), labels, ("a", "b"))
    run = config.resolve({"objective": {"cross_entropy": {"weight": weight}, **terms}, "train": {"batch_size": 50}})
    return list(remarks.of_few_labels(run, images, WeightedSum(run.objective)))


def test_few_labels_that_outweigh_the_teacher_are_said_with_the_weight_at_which_they_do_not() -> None:
    (found,) = said(100, balance={"weight": 1.0})
    assert found == (
        "10% of the training pictures have a label: of a batch of 50 about 5. cross_entropy is the mean over these, so "
        "that one label weighs as much as the teacher's word of 10 pictures; with --objective.cross_entropy.weight 0.1 "
        "as much as that of one."
    )
    assert "of 50 pictures; with --objective.cross_entropy.weight 0.02 " in said(1, balance={})[0]


@pytest.mark.parametrize(
    ("labeled", "weight", "taught"), [(100, 0.1, True), (300, 1.0, True), (0, 1.0, True), (100, 1.0, False)]
)
def test_nothing_is_said_where_labels_are_many_or_light_or_there_is_no_teacher(
    labeled: int, weight: float, taught: bool
) -> None:
    assert not said(labeled, weight, **({"balance": {}} if taught else {}))


@pytest.mark.parametrize(
    ("size", "taken", "crop", "told"),
    [
        (64, 224, "resized", "enlarged to 224 x 224"),
        (224, 64, "resized", "reduced to 64 x 64"),
        (64, 64, "resized", ""),
        (64, None, "resized", ""),
        (64, 224, "pad", ""),
    ],
)
def test_views_of_another_size_than_the_student_takes_are_told_with_the_way_out(
    size: int, taken: int | None, crop: str, told: str
) -> None:
    run = config.resolve({"data": {"size": size, "views": {"crop": crop}}})
    student = VisionModel(torch.nn.Identity(), name="n", num_classes=2, input_size=taken)
    found = list(remarks.of_resized_views(run, student))
    assert len(found) == bool(told)
    assert all(told in line and f"--student.input_size {size} instead" in line for line in found)


@pytest.mark.parametrize(
    ("task", "term", "told"),
    [
        ("segmentation", {"objective": "balance"}, True),
        ("segmentation", {"objective": "forward_kl"}, True),
        ("segmentation", {"objective": "balance", "ignore_index": 0}, False),
        ("segmentation", {"objective": "balance", "ignore_index": 255}, True),
        ("segmentation", {"objective": "class_weighted", "of": "balance", "class_weight": [1.0, 4.0]}, False),
        ("segmentation", {"objective": "cwd"}, False),
        ("classification", {"objective": "balance"}, False),
    ],
)
def test_a_teachers_word_that_is_not_weighed_as_labels_are_is_said(task: str, term: dict[str, Any], told: bool) -> None:
    terms = {"cross_entropy": {"class_weight": [1.0, 4.0]}, "teacher": term}
    run = config.resolve({"task": task, "objective": terms})
    objective = WeightedSum(run.objective)
    found = list(remarks.of_weighed_labels(run, objective))
    assert len(found) == told
    assert all(f"of: {term['objective']}, class_weight" in one for one in found)
    alone = config.resolve({"task": task, "objective": {"cross_entropy": {}, "teacher": term}})
    if term.get("class_weight") is None:
        assert list(remarks.of_weighed_labels(alone, WeightedSum(alone.objective))) == []


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"data": {"views": {"crop": "pad", "scale": (0.5, 1.0)}}}, ["data.views.scale"]),
        ({"data": {"views": {"crop": "resized", "padding": 2, "ratio": (1.0, 1.0)}}}, ["data.views.padding"]),
        (
            {"train": {"optimizer": {"name": "adamw", "momentum": 0.5, "betas": (0.8, 0.9)}}},
            ["train.optimizer.momentum"],
        ),
        ({"train": {"optimizer": {"betas": (0.8, 0.9)}, "schedule": {"final": 0.1}}}, ["train.optimizer.betas"]),
        ({"train": {"schedule": {"name": "constant", "final": 0.1, "gamma": 0.2}}}, ["gamma", "final"]),
        ({}, []),
    ],
)
def test_keys_that_change_nothing_under_what_was_chosen_are_told(section: dict[str, Any], told: list[str]) -> None:
    found = list(remarks.of_keys_without_effect(config.resolve(section)))
    assert len(found) == len(told)
    assert all(f"{key} changes nothing: it is of " in note for key, note in zip(told, found, strict=True))


@pytest.mark.parametrize(
    ("own", "section", "told"),
    [
        ({}, {}, True),
        ({}, {"mean": [0.5] * 3}, False),
        ({"mean": (0.5,) * 3, "std": (0.2,) * 3}, {}, False),
        ({"buffer": True}, {}, False),
    ],
)
def test_a_teacher_that_does_not_say_how_it_takes_pixels_is_told(
    own: dict[str, Any], section: dict[str, Any], told: bool
) -> None:
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    if own.pop("buffer", False):
        net.register_buffer("std", torch.ones(3))
    for key, value in own.items():
        setattr(net, key, value)
    run = config.resolve({"teacher": {"model": "own", "checkpoint": None, **section}})
    for features_alone in (False, True):
        notes = networks.build_teacher(run, ("a", "b", "c"), net, features_alone=features_alone).notes
        assert sum("does not say how it takes pixels" in note for note in notes) == told
