"""The embedded data set: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.division import split, split_by_fraction
from counterpoise.data.sources.registry import register
from counterpoise.errors import ConfigError


@register("digits", summary="1,797 handwritten digits, 8x8, embedded in scikit-learn", needs_path=False)
def load(data: config.Data, *, train_size: int | None = None) -> Splits:
    """The digits, split by `data.split_seed` in proportion from every class.

    Args:
        train_size: images for training, the rest is val; default: by `data.val_fraction`.
    """
    grey, labels, names = _read()
    whole = ArraySet(grey.unsqueeze(1).repeat(1, 3, 1, 1), labels.clone(), list(names), names="digit")
    if train_size is None:
        return split_by_fraction(whole, data.val_fraction, data.split_seed)
    classes = len(whole.classes)
    if not classes <= train_size <= len(whole) - classes:
        raise ConfigError(f"data.options.train_size must be {classes} to {len(whole) - classes}, got {train_size}.")
    return split(whole, len(whole) - train_size, data.split_seed)


@cache  # a text file of numbers: a comparison of many runs reads it once
def _read() -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Grey levels [N, 8, 8] uint8, labels [N] int64 and the names of the classes."""
    from sklearn.datasets import load_digits  # slow to import

    digits = load_digits()
    grey = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)  # they come as 0 to 16
    return grey, torch.from_numpy(digits.target), tuple(str(name) for name in digits.target_names)
