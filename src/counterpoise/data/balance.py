"""Epochs in which rare classes come more often: which images are shown how many times, by (seed, epoch) alone.

Every class has its share of the places of an epoch. A class shows its images round by round, each round in a random
order of its own, and goes on in the next epoch where it stopped: no image is shown twice before all of its class were
shown once. Where it stopped follows from the number of the epoch, so that nothing is remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from counterpoise.data import random
from counterpoise.data.labels import UNKNOWN

_AT_ONCE = 2**20  # images drawn at once: what lies between takes 100 bytes each


class Shares(NamedTuple):
    """What each class shows in an epoch; images without a label are one more class, which comes first.

    Attributes:
        members: int64 [N], images by class, rising within each.
        sizes: int64 [G], images of each class, 1 or more.
        places: int64 [G], places of each in an epoch, 1 or more, N in all.
        unlabeled: whether the first class is that of images without a label.
    """

    members: Tensor
    sizes: Tensor
    places: Tensor
    unlabeled: bool

    @property
    def most_often(self) -> int:
        """How many times an epoch shows one image at most."""
        return int((-(-self.places // self.sizes)).max())


def shares(labels: Tensor, power: float) -> Shares:
    """The share of each class in an epoch: in proportion to n^(1 - power), where n is how many images are of it.

    So 0 leaves the classes as they are, 1 shows all of them equally often. Images without a label keep their places.

    Args:
        labels: int64 [N], one class an image.
        power: 0 to 1.
    """
    found, sizes = torch.unique(labels, return_counts=True)
    unlabeled = bool(len(found)) and int(found[0]) == UNKNOWN
    own = sizes[int(unlabeled) :].double()
    places = sizes.clone()
    if len(own):
        wanted = own.pow(1 - power)
        wanted = (own.sum() * wanted / wanted.sum()).mul(1e6).round().div(1e6)  # the same on every machine
        whole = wanted.floor()
        left = int(own.sum() - whole.sum())
        whole[(wanted - whole).argsort(descending=True, stable=True)[:left]] += 1
        places[int(unlabeled) :] = whole.long()
    return Shares(labels.argsort(stable=True), sizes, places, unlabeled)


def order(shares: Shares, seed: int, epoch: int) -> Tensor:
    """The images at the places of an epoch, int64 [N]."""
    images = torch.cat([*_shown(shares, seed, epoch)])
    return images[random.permutation(seed, epoch, len(images))]


def _shown(shares: Shares, seed: int, epoch: int) -> Iterator[Tensor]:
    """What is shown in an epoch, class by class."""
    sizes, places = shares.sizes.numpy(), shares.places.numpy()
    first, skipped = np.divmod(epoch * places, sizes)  # the round in which a class is, and what it has shown of it
    rounds = -(-(skipped + places) // sizes)
    lengths, offsets = rounds * sizes, np.cumsum(sizes) - sizes
    parts = np.cumsum(lengths) // _AT_ONCE
    for part in np.unique(parts):
        rows = np.flatnonzero(parts == part)
        begins = np.cumsum(lengths[rows]) - lengths[rows]
        group = np.repeat(np.arange(len(rows)), lengths[rows])
        turn, member = np.divmod(np.arange(len(group)) - begins[group], sizes[rows][group])
        images = shares.members.numpy()[offsets[rows][group] + member]
        number = torch.from_numpy(first[rows][group] + turn)
        keys = random.keys(seed, number, torch.from_numpy(images), random.BALANCE).numpy()
        images = images[np.lexsort((keys, turn, group))]
        place = np.arange(len(group)) - (begins + skipped[rows])[group]
        yield torch.from_numpy(images[(place >= 0) & (place < places[rows][group])])
