"""Weights of classes in a run file: by frequency, or by name, for photos and masks alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.class_weights import frequency_weights, with_class_weights
from counterpoise.errors import ConfigError


@pytest.fixture
def uneven(image_folder: Path) -> Path:
    """8 circles, 4 squares and 2 stripes to train on."""
    for name, keep in (("square", 4), ("stripes", 2)):
        for path in sorted((image_folder / "train" / name).iterdir())[keep:]:
            path.unlink()
    return image_folder


def weights(folder: Path, given: object) -> list[float]:
    terms = {"cross_entropy": config.Term.model_validate({"class_weight": given})}
    found = with_class_weights(terms, sources.load(config.Data(path=folder)).train)["cross_entropy"]
    values: list[float] = found.arguments["class_weight"]
    return values


def test_rare_classes_of_photos_count_more_by_their_frequency(uneven: Path) -> None:
    assert frequency_weights(sources.load(config.Data(path=uneven)).train).tolist() == [0.5, 1, 2]
    assert weights(uneven, "frequency") == [0.5, 1, 2]


def test_weights_by_name_leave_the_others_at_one(uneven: Path) -> None:
    assert weights(uneven, {"stripes": 3, "circle": 0.25}) == [0.25, 1, 3]
    assert weights(uneven, [1, 2, 3]) == [1, 2, 3]
    with pytest.raises(ConfigError, match=r"class_weight: 'strips' is no class. Did you mean 'stripes'"):
        weights(uneven, {"strips": 3})
    with pytest.raises(ConfigError, match="the weight of 'circle' must be a number, got 'much'"):
        weights(uneven, {"circle": "much"})


def test_classifiers_train_with_either(uneven: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    losses = []
    small = ["--student.model", "cifar/resnet8", "--data.size", 16, "--train.epochs", 1, "--data.workers", 0]
    for flags in (
        ["--objective.cross_entropy.class_weight", "frequency"],
        ["--objective.cross_entropy.class_weight", "{circle: 0.5, stripes: 2}"],
        [],
    ):
        code, _, told = run("train", "--data", uneven, "--out", f"runs/{len(losses)}", *small, *flags)
        assert code == 0, told
        losses.append(told.splitlines()[-1])
    assert losses[0] == losses[1] != losses[2]
