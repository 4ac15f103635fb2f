"""What is known of each image: one class, or of every class whether it is there; counted without a copy of the labels.

One class an image is int64 [N], -1 where it is unknown. Several labels are int8 [N, C] of 1 (there), 0 (not there) and
-1 (unknown).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from counterpoise.errors import DataError

UNKNOWN = -1
_AT_ONCE = 2**20
_KNOWN = WeakTensorKeyDictionary()


def as_labels(labels: Tensor, classes: int) -> Tensor:
    """Labels as sets of images keep them: int64 [N], or int8 [N, classes] of 1, 0 and -1.

    Raises DataError for a table of another width, or with other numbers, and for labels that are no whole numbers.
    """
    if labels.ndim != 2:
        places = labels.to(torch.int64)
        if labels.is_floating_point() and bool((other := places != labels).any()):
            raise DataError(f"Labels are whole numbers, the places of classes, got {labels[other][0].item():g}.")
        return places
    if labels.shape[1] != classes:
        raise DataError(f"A table of labels must have {classes} columns, one a class, got {labels.shape[1]}.")
    whole = not labels.is_floating_point() or bool((labels == labels.round()).all())
    if labels.numel() and not (whole and labels.min() >= UNKNOWN and labels.max() <= 1):
        strange = labels[(labels.to(torch.int8) != labels) | (labels < UNKNOWN) | (labels > 1)][0].item()
        raise DataError(f"A table of labels holds 1, 0 and -1 (unknown), got {strange:g}.")
    return labels.to(torch.int8)


def counts(labels: Tensor, classes: int) -> list[int]:
    """How many images are of each class; first of all, of how many nothing is known."""
    known: tuple[int, list[int]] | None = _KNOWN.get(labels)  # type: ignore[no-untyped-call]
    if known is None or known[0] != classes:
        found = torch.zeros(1 + classes, dtype=torch.int64)
        for part in torch.split(labels, _AT_ONCE):
            if labels.ndim == 2:
                there = torch.cat([(part < 0).all(1).sum()[None], (part > 0).sum(0)])
            else:
                there = torch.bincount(part + 1, minlength=len(found))
            there[: len(found)] += found
            found = there
        known = _KNOWN[labels] = classes, found.tolist()
    return known[1]


def absences(labels: Tensor) -> list[int]:
    """Of several labels: of how many images each class is known not to be there."""
    return (labels == 0).sum(0).tolist()


def renumbered(labels: Tensor, classes: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Labels of the same images with the classes in another order. Raises DataError where they are other ones."""
    if sorted(wanted) != sorted(classes) or len(set(wanted)) < len(wanted):
        raise DataError(f"{list(classes)[:5]} ... are other classes than {list(wanted)[:5]} ...")
    places = {name: number for number, name in enumerate(wanted)}
    numbers = [places[name] for name in classes]
    if labels.ndim == 2:
        return labels[:, torch.tensor(numbers).argsort()]
    return torch.tensor([*numbers, UNKNOWN])[labels]  # one more at the end, which -1 finds


def strata(labels: Tensor, classes: int) -> Tensor:
    """By what images are divided in proportion, int64 [N]: their class, or of several labels the rarest one there.

    Where none is there, by that: images without a label that is known lie apart from those of which all are absent.
    """
    if labels.ndim != 2:
        return labels
    rarity = torch.tensor(counts(labels, classes)[1:], dtype=torch.int64)
    ranked = torch.where(labels > 0, rarity, rarity.max() + 1) if classes else labels.long()
    nothing = torch.where((labels < 0).all(1), UNKNOWN, classes)
    return torch.where((labels > 0).any(1), ranked.argmin(1), nothing)


def names(labels: Tensor, classes: tuple[str, ...]) -> str | list[str] | None:
    """The class of an image, or all that are there; None where nothing is known. labels: those of one image."""
    if labels.ndim:
        return None if bool((labels < 0).all()) else [classes[index] for index in torch.nonzero(labels > 0).flatten()]
    return None if int(labels) < 0 else classes[int(labels)]


def differ(labels: Tensor) -> bool:
    """Whether labels of what is one picture say different things of it: what is unknown says nothing."""
    if labels.ndim == 2:
        return bool(((labels > 0).any(0) & (labels == 0).any(0)).any())
    return len(set(labels.tolist()) - {UNKNOWN}) > 1
