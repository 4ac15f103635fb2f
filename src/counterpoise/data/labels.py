"""How many images of a set have which label, counted once and without a copy of the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

if TYPE_CHECKING:
    from counterpoise.data.sources.base import ImageSet

_AT_ONCE = 2**20
_KNOWN: WeakKeyDictionary[ImageSet, tuple[Tensor, list[int]]] = WeakKeyDictionary()


def counts(images: ImageSet) -> list[int]:
    """How many images have each class; first of all, how many have none."""
    known = _KNOWN.get(images)
    if known is None or known[0] is not images.labels:
        found = torch.zeros(1 + len(images.classes), dtype=torch.int64)
        for part in torch.split(images.labels, _AT_ONCE):
            there = torch.bincount(part + 1, minlength=len(found))
            there[: len(found)] += found
            found = there
        known = _KNOWN[images] = images.labels, found.tolist()
    return known[1]


def unlabeled(images: ImageSet) -> int:
    """How many images have no label; of scenes, no mask."""
    return counts(images)[0]
