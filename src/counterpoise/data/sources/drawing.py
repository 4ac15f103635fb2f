"""Which images are held out: in proportion from every class, groups whole, by chance that is a function of a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.data import random
from counterpoise.errors import DataError

ALWAYS = -1
"""Of an image that is trained on in every fold."""


class Drawn(NamedTuple):
    """What was drawn.

    Attributes:
        bins: int64 [N], the part of each image: 0, 1, ... of those that are held out, or ALWAYS. Images without a label
            are held out with their group.
        alone: classes, by number, of which all images must stay in train: one image, or one group, has them all.
    """

    bins: Tensor
    alone: list[int]


def held_out(labels: Tensor, groups: Tensor | None, count: int, seed: int) -> Drawn:
    """Hold out `count` of the labeled images, or of all where none has a label.

    A class of two or more images has at least one on either side, which moves the count where classes are tiny. Whole
    groups move it, too.

    Args:
        labels: int64 [N], -1 where unknown.
        groups: int64 [N], or None where each image is one of its own.
    """
    considered = _considered(labels)
    share = count / max(1, int(considered.sum()))
    if groups is not None:
        return _of_groups(labels, groups, considered, [1 - share, share], seed, folds=False)
    members = _members(labels, considered)
    counts = torch.tensor([len(indices) for indices in members])
    quotas = counts.double() * count / max(1, int(considered.sum()))
    held = quotas.floor().long()
    rest = torch.argsort(quotas - held, descending=True, stable=True)[: count - int(held.sum())]
    held[rest] += 1  # largest remainders
    held = torch.minimum(held.clamp(min=1), (counts - 1).clamp(min=0))
    draws = random.words(seed, 0, torch.arange(len(labels)), random.SPLIT, 1).flatten()
    bins = torch.full((len(labels),), ALWAYS)
    for indices, number in zip(members, held.tolist(), strict=True):
        bins[indices[torch.argsort(draws[indices], stable=True)[:number]]] = 0
    return Drawn(bins, _alone(labels, members))


def folds(labels: Tensor, groups: Tensor | None, count: int, seed: int) -> Drawn:
    """Deal the images into `count` folds, each held out once; arguments as above.

    Raises DataError where a fold would hold nothing.
    """
    considered = _considered(labels)
    if groups is not None:
        return _of_groups(labels, groups, considered, [1 / count] * count, seed, folds=True)
    draws = random.words(seed, 0, torch.arange(len(labels)), random.SPLIT, 1).flatten()
    bins = torch.full((len(labels),), ALWAYS)
    members = _members(labels, considered)
    first = 0
    for indices in members:
        if len(indices) > 1:
            order = indices[torch.argsort(draws[indices], stable=True)]
            bins[order] = (first + torch.arange(len(order))) % count
            first += len(order)
    if first < count:
        raise DataError(f"{first} images cannot be divided into {count} folds.")
    return Drawn(bins, _alone(labels, members))


def _considered(labels: Tensor) -> Tensor:
    """Those that may be held out: images with a label, or all where none has one."""
    known = labels >= 0
    return known if bool(known.any()) else torch.ones_like(known)


def _members(labels: Tensor, considered: Tensor) -> list[Tensor]:
    return [
        torch.nonzero((labels == label) & considered).flatten() for label in torch.unique(labels[considered]).tolist()
    ]


def _alone(labels: Tensor, members: Sequence[Tensor]) -> list[int]:
    several = len(members) > 1
    return [int(labels[indices[0]]) for indices in members if len(indices) == 1 and several]


def _of_groups(
    labels: Tensor, groups: Tensor, considered: Tensor, shares: Sequence[float], seed: int, folds: bool
) -> Drawn:
    """Whole groups, the largest first, each into the part whose classes come nearest to their share by it.

    Without `folds` there are two parts, and the first is what is trained on.
    """
    _, of = torch.unique(groups, return_inverse=True)
    held = _held(labels[considered], of[considered])
    shared = _shared(held)
    kept = {label for classes in held.values() for label in classes} - shared
    if not shared and len(held) > 1:
        raise DataError(
            "Every class is in one group alone, so that none can be held out whole: leave the groups out, or hold "
            "classes out by a column of parts."
        )
    free = {group: classes for group, classes in held.items() if not kept & classes.keys()}
    if len(free) < (len(shares) if folds else 1) or len(held) < 2:
        what = f"{len(shares)} folds" if folds else "train and val"
        stay = f", of which {len(held) - len(free)} hold all there is of a class and stay in train" if kept else ""
        raise DataError(f"{len(held)} groups cannot be divided into {what}{stay}.")
    parts = _dealt(held, free, shares, seed, int(of.max()) + 1, folds)
    if not folds:
        parts = {group: 0 for group, part in parts.items() if part == 1}
    table = torch.full((int(of.max()) + 1,), ALWAYS)
    for group, part in parts.items():
        table[group] = part
    return Drawn(table[of], sorted(kept))


def _held(labels: Tensor, of: Tensor) -> dict[int, dict[int, int]]:
    """How many images of which class each group has."""
    width = int(labels.max()) + 2
    pairs, counts = torch.unique(of * width + labels + 1, return_counts=True)
    held: dict[int, dict[int, int]] = {}
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        held.setdefault(pair // width, {})[pair % width - 1] = count
    return held


def _shared(held: dict[int, dict[int, int]]) -> set[int]:
    """The classes that several groups have."""
    once: set[int] = set()
    more: set[int] = set()
    for classes in held.values():
        more |= once & classes.keys()
        once |= classes.keys()
    return more


def _dealt(
    held: dict[int, dict[int, int]],
    free: dict[int, dict[int, int]],
    shares: Sequence[float],
    seed: int,
    count: int,
    folds: bool,
) -> dict[int, int]:
    """The part of each free group.

    sum over parts p and classes c of n[p, c]^2 / (share[p] N[c]) is least where n[p, c] = share[p] N[c]; each group
    goes where it adds least to that.
    """
    draws = random.words(seed, 0, torch.arange(count), random.SPLIT, 1).flatten().tolist()
    totals: dict[int, int] = {}
    there: list[dict[int, int]] = [{} for _ in shares]
    filled = [0] * len(shares)
    for group, classes in held.items():
        for label, number in classes.items():
            totals[label] = totals.get(label, 0) + number
            if group not in free and not folds:  # they are trained on already
                there[0][label] = there[0].get(label, 0) + number
                filled[0] += number
    parts = {}
    for group in sorted(free, key=lambda group: (-sum(free[group].values()), draws[group], group)):
        costs = [
            (
                sum(n * (2 * have.get(label, 0) + n) / (totals[label] * share) for label, n in free[group].items()),
                filled[part] / share,
                part,
            )
            for part, (have, share) in enumerate(zip(there, shares, strict=True))
        ]
        chosen = parts[group] = min(costs)[2]
        for label, number in free[group].items():
            there[chosen][label] = there[chosen].get(label, 0) + number
            filled[chosen] += number
    for part in range(len(shares)) if folds else (1,):  # the last ones are the smallest
        if part not in parts.values():
            last = next(g for g in reversed(parts) if not folds or list(parts.values()).count(parts[g]) > 1)
            parts[last] = part
    return parts
