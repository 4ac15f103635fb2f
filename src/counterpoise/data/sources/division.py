"""An image set divided into one to train on and one to judge by, by chance that is a function of a seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from counterpoise import config
from counterpoise.data import random
from counterpoise.data.sources.base import ImageSet, Splits
from counterpoise.data.split_names import Halves
from counterpoise.errors import DataError


def split(images: ImageSet, val_count: int, seed: int) -> Splits:
    """Hold out `val_count` images, in proportion from every class, drawn by `seed`; both halves keep their order.

    A class of two or more images has at least one on either side, which moves the count where classes are tiny.
    Raises DataError where one side would be empty.
    """
    members = [torch.nonzero(images.labels == label).flatten() for label in torch.unique(images.labels).tolist()]
    counts = torch.tensor([len(indices) for indices in members])
    quotas = counts.double() * val_count / max(1, len(images))
    held = quotas.floor().long()
    rest = torch.argsort(quotas - held, descending=True, stable=True)[: val_count - int(held.sum())]
    held[rest] += 1  # largest remainders
    held = torch.minimum(held.clamp(min=1), (counts - 1).clamp(min=0))
    draws = random.words(seed, 0, torch.arange(len(images)), random.SPLIT, 1).flatten()
    val = torch.zeros(len(images), dtype=torch.bool)
    for indices, count in zip(members, held.tolist(), strict=True):
        val[indices[torch.argsort(draws[indices], stable=True)[:count]]] = True
    if val.all() or not val.any():
        raise DataError(f"{len(images)} images cannot be split into train and val; every class needs at least 2.")
    positions = [torch.nonzero(side).flatten() for side in (~val, val)]
    parts = Splits(*(images.subset(where) for where in positions))
    for part, where in zip(parts, positions, strict=True):
        part.split_from, part.positions = images, where
        part.origin, part.divided_as = images.origin, images.classes
    whole = f"{images.origin}, " if images.origin else ""
    share = 100 * len(parts.val) / len(images)
    parts.val.origin = f"{whole}{share:.3g}% held out of every class by data.split_seed {seed}"
    parts.train.notes = list(images.notes)
    return parts


def split_by_fraction(images: ImageSet, val_fraction: float, seed: int) -> Splits:
    """`split` with a share of the images, 0 to 1."""
    return split(images, round(val_fraction * len(images)), seed)


def divided(data: config.Data, root: Path, halves: Halves, collect: Callable[[Path], ImageSet]) -> Splits:
    """The halves that are folders below `root`, or `data.val_fraction` held out where there is one of them alone.

    Args:
        collect: the set of images in a folder.
    """
    train = collect(root / halves.train)
    if halves.val is None:
        splits = split_by_fraction(train, data.val_fraction, data.split_seed)
    else:
        splits = Splits(train, collect(root / halves.val))
        splits.val.origin = f"{root / halves.val} ({halves.why})" if halves.why else str(root / halves.val)
    name_parts(splits, halves)
    if halves.unused:
        splits.train.notes.append(f"not used: {', '.join(str(root / name) for name in halves.unused)}")
    return splits


def name_parts(splits: Splits, halves: Halves) -> None:
    """Have both parts say what they are called in their source, and the first what others there are."""
    for part, name in zip(splits, (halves.train, halves.val or halves.train), strict=True):
        part.called = name
    splits.train.unused = halves.unused
