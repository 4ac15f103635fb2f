"""The embedded pictures of several labels: two of scikit-learn's digits on one canvas, and which digits they are.

Made on the fly in whole numbers from Philox draws: one seed gives the same pictures on every machine.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data import random
from counterpoise.data.sources import digits
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import UNLABELED, Splits
from counterpoise.data.sources.registry import register
from counterpoise.errors import ConfigError

EDGE = 20
_GLYPH = 8
_GLYPHS_FOR_TRAINING = 1200  # of the 1,797: no digit of a val picture was seen in training
_STREAM, _UNKNOWN_STREAM = 65, 66  # of random draws: their own
_WORDS = 7


@register(
    "digit_pairs",
    summary="two handwritten digits on each canvas, 20x20, made of scikit-learn's; for task multilabel",
    needs_path=False,
)
def load(data: config.Data, *, train_size: int = 1000, val_size: int = 500, unknown: float = 0.0) -> Splits:
    """Pairs of digits, side by side or one above the other; labels are which of the ten digits are there.

    Two of one digit are one label. Made anew from `data.split_seed`; train and val share no digit.

    Args:
        train_size: pictures for training.
        val_size: pictures for val.
        unknown: the share of the labels for training that nobody knows, 0 to below 1, drawn one by one.
    """
    for name, value in (("train_size", train_size), ("val_size", val_size)):
        if not 1 <= value <= 100_000:
            raise ConfigError(f"data.options.{name} must be 1 to 100000, got {value}.")
    if not 0 <= unknown < 1:
        raise ConfigError(f"data.options.unknown must be 0 to below 1, got {unknown:g}.")
    halves = []
    for half, source in enumerate(digits.load(data, train_size=_GLYPHS_FOR_TRAINING)):
        assert isinstance(source, ArraySet)
        count = (train_size, val_size)[half]
        images, labels = _pairs(source, random.words(data.split_seed, half, torch.arange(count), _STREAM, _WORDS))
        if not half and unknown:
            draws = random.words(data.split_seed, 0, torch.arange(count), _UNKNOWN_STREAM, labels.shape[1])
            labels = labels.masked_fill(random.to_uniform(draws.flatten()).view_as(labels) < unknown, UNLABELED)
        halves.append(ArraySet(images, labels, source.classes, names=("train pair", "val pair")[half]))
    return Splits(*halves)


def _pairs(glyphs: ArraySet, words: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures uint8 [N, 3, 20, 20] and labels int8 [N, 10] from random words [N, 7]."""
    first, second, upright, *places = words.unbind(1)
    chosen = [random.to_integers(word, len(glyphs)) for word in (first, second)]
    # A digit has half of the canvas, and lies anywhere in it.
    across, along = EDGE - _GLYPH, EDGE // 2 - _GLYPH
    images = torch.zeros(len(words), 3, EDGE, EDGE, dtype=torch.uint8)
    labels = torch.zeros(len(words), len(glyphs.classes), dtype=torch.int8)
    for number, which in enumerate(chosen):
        far = random.to_integers(places[2 * number], across + 1)
        near = random.to_integers(places[2 * number + 1], along + 1) + number * EDGE // 2
        turned = random.to_integers(upright, 2).bool()
        rows = torch.where(turned, near, far)[:, None] + torch.arange(_GLYPH)
        columns = torch.where(turned, far, near)[:, None] + torch.arange(_GLYPH)
        pictures = torch.arange(len(words))[:, None, None]
        images[pictures, :, rows[:, :, None], columns[:, None, :]] = glyphs.images[which].permute(0, 2, 3, 1)
        labels.scatter_(1, glyphs.labels[which][:, None], 1)
    return images, labels
