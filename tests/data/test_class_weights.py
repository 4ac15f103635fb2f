"""Weights of classes in a run file: by frequency, or by name, for photos and masks alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.class_weights import class_prior, effective_weights, frequency_weights, with_class_weights
from counterpoise.errors import ConfigError


@pytest.fixture
def uneven(image_folder: Path) -> Path:
    """8 circles, 4 squares and 2 stripes to train on."""
    for name, keep in (("square", 4), ("stripes", 2)):
        for path in sorted((image_folder / "train" / name).iterdir())[keep:]:
            path.unlink()
    return image_folder


def weights(folder: Path, given: object, key: str = "class_weight") -> list[float]:
    terms = {"cross_entropy": config.Term.model_validate({key: given})}
    found = with_class_weights(terms, sources.load(config.Data(path=folder)).train)["cross_entropy"]
    values: list[float] = found.arguments[key]
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


def test_effective_numbers_lie_between_all_alike_and_the_inverse_frequency(uneven: Path) -> None:
    images = sources.load(config.Data(path=uneven)).train
    assert effective_weights(images, 0.0).tolist() == [1, 1, 1]
    inverse = torch.tensor([1 / 8, 1 / 4, 1 / 2])
    torch.testing.assert_close(effective_weights(images, 1 - 1e-9), inverse / inverse.mean())
    by_formula = torch.tensor([(1 - 0.9) / (1 - 0.9**count) for count in (8, 4, 2)])
    torch.testing.assert_close(effective_weights(images, 0.9), by_formula / by_formula.mean())
    assert weights(uneven, "effective:0.9") == effective_weights(images, 0.9).tolist()
    assert weights(uneven, "effective") == weights(uneven, "effective:0.999") != weights(uneven, "effective:0.9")


@pytest.mark.parametrize("given", ["effective:1", "effective:-0.1", "effective:x", "effective:nan", "effectively"])
def test_a_beta_that_means_nothing_is_refused(uneven: Path, given: str) -> None:
    with pytest.raises(ConfigError, match=r"class_weight: expected effective or effective:BETA.* got 'effective"):
        weights(uneven, given)


def test_priors_are_shares_of_the_training_images_and_a_class_without_any_counts_as_one(uneven: Path) -> None:
    assert weights(uneven, "frequency", "class_prior") == pytest.approx([8 / 14, 4 / 14, 2 / 14])
    images = sources.load(config.Data(path=uneven)).train
    images.labels[images.labels == 2] = 0
    assert class_prior(images).tolist() == pytest.approx([10 / 15, 4 / 15, 1 / 15])


def test_classifiers_train_with_either(uneven: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    losses: list[str] = []
    small = ["--student.model", "cifar/resnet8", "--data.size", 16, "--train.epochs", 1, "--data.workers", 0]
    for flags in (
        ["--objective.cross_entropy.class_weight", "frequency"],
        ["--objective.cross_entropy.class_weight", "{circle: 0.5, stripes: 2}"],
        ["--objective.cross_entropy.class_weight", "effective:0.5"],
        ["--objective.cross_entropy.class_prior", "frequency"],
        [],
    ):
        code, _, told = run("train", "--data", uneven, "--out", f"runs/{len(losses)}", *small, *flags)
        assert code == 0, told
        losses.append(told.splitlines()[-1].partition(" left")[2])  # before it, the time
    assert losses[0] == losses[1] != ""
    assert len(set(losses)) == 4
