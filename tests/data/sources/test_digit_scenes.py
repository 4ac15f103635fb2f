"""The embedded scenes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils import Bunch

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.errors import ConfigError


def load(seed: int = 0, **options: Any) -> tuple[ArraySet, ArraySet]:
    options = {"train_size": 40, "val_size": 20} | options
    train, val = sources.load(config.Data(source="digit_scenes", split_seed=seed, options=options))
    assert isinstance(train, ArraySet)
    assert isinstance(val, ArraySet)
    return train, val


def test_scenes_have_the_size_and_number_asked_for() -> None:
    train, val = load(train_size=30, val_size=7, edge=48)
    assert (len(train), len(val)) == (30, 7)
    assert train.images.shape == (30, 3, 48, 48)
    assert train.read(3).dtype == train.read_mask(3).dtype == torch.uint8
    assert train.read_mask(3).shape == train.read(3).shape[1:] == train.extent(3)
    assert train.classes == val.classes == ("background", *"0123456789")
    assert train.labels.unique().tolist() == [0]
    assert (train.name(3), val.name(3)) == ("train scene #3", "val scene #3")


def test_every_class_is_there_and_most_of_a_scene_is_background() -> None:
    train, _ = load(train_size=100)
    share = torch.bincount(train.masks.flatten().long(), minlength=11) / train.masks.numel()
    assert len(share) == 11
    assert share[1:].min() > 0.004
    assert 0.75 < share[0] < 0.95
    assert all(1 <= len(mask.unique()) - 1 <= 3 for mask in train.masks)


def test_mask_is_where_the_digit_is_drawn() -> None:
    """Within a digit colors are nearly one, and unlike the ground around it."""
    inside, across = [], []
    train, _ = load(train_size=60)
    for image, mask in zip(train.images.float(), train.masks, strict=True):
        for label in mask.unique().tolist()[1:]:
            digit = mask == label
            grown = torch.nn.functional.max_pool2d(digit[None].float(), 9, 1, 4)[0].bool() & (mask == 0)
            center = image[:, digit].median(1).values
            inside.append((image[:, digit].median(1).values - image[:, digit].mean(1)).abs().mean())
            across.append((image[:, grown].mean(1) - center).abs().mean())
    assert torch.stack(inside).mean() < 20
    assert torch.stack(across).mean() > 60


def test_scenes_are_a_function_of_the_seed() -> None:
    first, again, other = load(seed=3), load(seed=3), load(seed=4)
    for half in (0, 1):
        assert torch.equal(first[half].images, again[half].images)
        assert torch.equal(first[half].masks, again[half].masks)
        assert first[half].fingerprint() == again[half].fingerprint() != other[half].fingerprint()
    longer, _ = load(seed=3, train_size=50)
    assert torch.equal(longer.images[:40], first[0].images)


def test_val_shares_no_ground_with_train(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn import datasets

    photo = np.zeros((100, 200, 3), dtype=np.uint8)
    photo[:, :120, 0] = photo[:, 120:, 2] = 255
    monkeypatch.setattr(datasets, "load_sample_images", lambda: Bunch(images=[photo, photo]))
    for scenes, own, others in zip(load(), ((255, 0, 0), (0, 0, 255)), ((0, 0, 255), (255, 0, 0)), strict=True):
        own_share, others_share = (
            (scenes.images == torch.tensor(color, dtype=torch.uint8).view(1, 3, 1, 1)).all(1).float().mean()
            for color in (own, others)
        )
        assert own_share > 0.7
        assert others_share == 0


def test_fingerprint_sees_the_mask() -> None:
    train, _ = load()
    masks = train.masks.clone()
    masks[0, 0, 0] = 255
    assert ArraySet.of_scenes(train.images, masks, train.classes).fingerprint() != train.fingerprint()


@pytest.mark.parametrize(("option", "value"), [("train_size", 0), ("val_size", -1), ("edge", 15), ("edge", 257)])
def test_impossible_options_are_refused(option: str, value: int) -> None:
    with pytest.raises(ConfigError, match=rf"data\.options\.{option} must be .* got {value}"):
        load(**{option: value})
