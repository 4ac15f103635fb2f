"""The embedded digits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from counterpoise import config
from counterpoise.data import sources
from counterpoise.errors import ConfigError


def load(**values: Any) -> sources.Splits:
    return sources.load(config.Data(source="digits", **values))


def test_digits_use_the_whole_range_of_grey() -> None:
    train, val = load()
    assert isinstance(train, sources.ArraySet)
    assert train.images.shape[1:] == (3, 8, 8)
    assert (int(train.images.min()), int(train.images.max())) == (0, 255)
    assert torch.equal(train.images[:, 0], train.images[:, 2])
    assert len(train) + len(val) == 1797
    assert train.classes == tuple("0123456789")
    assert len(val) == 180


def test_train_size_is_exact_and_in_proportion() -> None:
    train, val = load(options={"train_size": 600})
    assert (len(train), len(val)) == (600, 1197)
    whole = torch.bincount(torch.cat([train.labels, val.labels]))
    assert (torch.bincount(train.labels) - whole * 600 / 1797).abs().max() < 1
    assert train.fingerprint() == load(options={"train_size": 600}).train.fingerprint()
    assert train.fingerprint() != load(options={"train_size": 600}, split_seed=1).train.fingerprint()


@pytest.mark.parametrize("size", [0, 9, 1788, -5])
def test_impossible_train_size_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"train_size must be 10 to 1787, got {size}"):
        load(options={"train_size": size})
