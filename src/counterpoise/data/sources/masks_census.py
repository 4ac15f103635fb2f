"""How the pixels of masks divide over the classes, and what is wrong with that before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from counterpoise.data.problems import Problem, fault, warning
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import IGNORE, UNLABELED, ImageSet
from counterpoise.data.sources.questions import by_question
from counterpoise.errors import CorruptImage

LOOKED_AT = 100
"""Masks of a set, spread evenly; more only where a class has not been met in them."""
NAMED = 8
_WAY_OUT = (
    "If data.options.ignore makes void what is a class, take it away, and write the value behind every name in the "
    "classes file (lesion 255); else bring masks that hold it."
)


@dataclass(frozen=True)
class Census:
    """What masks hold.

    Attributes:
        pixels: of each class, in the masks that were read.
        void: pixels of no class.
        every: pixels of any class, where these may overlap; None: their sum.
        read: masks that were read.
        total: masks that there are.
    """

    classes: tuple[str, ...]
    pixels: tuple[int, ...]
    void: int
    read: int
    total: int
    every: int | None = None

    @property
    def present(self) -> list[str]:
        """Classes that occur."""
        return [name for name, count in zip(self.classes, self.pixels, strict=True) if count]

    @property
    def absent(self) -> list[str]:
        """Classes that occur in no mask: all were read to find that out."""
        return [name for name, count in zip(self.classes, self.pixels, strict=True) if not count]

    def text(self) -> str:
        """Shares of the pixels, the largest first, in a few words."""
        every = (sum(self.pixels) if self.every is None else self.every) + self.void
        if not every:
            return ""
        order = sorted(range(len(self.classes)), key=lambda row: -self.pixels[row])
        shown = [f"{self.classes[row]} {percent(self.pixels[row], every)}" for row in order]
        if len(shown) > NAMED:
            shown = [*shown[: NAMED - 2], "...", *shown[-2:]]
        if self.void:
            shown.append(f"void {percent(self.void, every)}")
        where = "" if self.read == self.total else f" in {self.read:,} of {self.total:,} masks"
        each = "" if self.every is None else ", each a question of its own"
        return f"pixels{where}{each}: {', '.join(shown)}"


_COUNTED: WeakKeyDictionary[ImageSet, Census] = WeakKeyDictionary()


def counted(images: ImageSet) -> Census:
    """`census` of scenes; masks that lie in files are read once."""
    # What lies in memory may have been changed, and is soon counted.
    if images not in _COUNTED or isinstance(images, ArraySet):
        _COUNTED[images] = census(images)
    return _COUNTED[images]


def census(images: ImageSet, looked_at: int = LOOKED_AT) -> Census:
    """Count the pixels of some masks, spread evenly, and of all others until each class is met, or each question's yes.

    Masks that cannot be read are said, or left out, where they are trained on.

    Raises:
        DataError: a mask holds what is no class.
    """
    labeled = torch.nonzero(images.labels != UNLABELED).flatten().tolist()
    count = min(looked_at, len(labeled))
    first = [labeled[place * len(labeled) // count] for place in range(count)]
    pixels = torch.zeros(IGNORE + 1, dtype=torch.int64)
    read = 0
    for place, index in enumerate([*first, *sorted(set(labeled) - set(first))]):
        if place >= count and bool((_of_classes(images, pixels) > 0).all()):
            break
        try:
            pixels += images.mask_counts(index)
        except CorruptImage:
            continue
        read += 1
    return Census(
        tuple(images.classes),
        tuple(_of_classes(images, pixels).tolist()),
        int(pixels[IGNORE]),
        read,
        len(labeled),
        None if images.questions is None else int(pixels[:IGNORE].sum()),
    )


def _of_classes(images: ImageSet, pixels: Tensor) -> Tensor:
    """Pixels of each class, or the yes of each question, from those of each value."""
    if images.questions is None:
        return pixels[: len(images.classes)]
    return by_question(images.questions, pixels)[0]


def problems_of(found: Census, where: str) -> Iterator[Problem]:
    """Classes that no mask holds; an error where only one is left, which any answer would get right.

    Args:
        where: what the masks are of: a half of a data set, in words.
    """
    absent = found.absent
    if not found.total or not absent:
        return
    if found.every is not None and not found.present and found.every:
        yield fault(
            f"No pixel in the masks of {where} is a yes of any question, {listed(absent)}: no score says how well they "
            "are told.",
            "Bring masks that hold some; see data.questions.",
        )
    elif not found.present:
        yield fault(f"All masks of {where} are void: no pixel has a class.", _WAY_OUT)
    elif found.every is not None:
        yield warning(
            f"No pixel in the masks of {where} is a yes of the question {listed(absent)}: it is not learned from "
            "labels where this is for training; where it is for evaluation no score says how well it is known, and its "
            "threshold stays at 0.5."
        )
    elif len(found.present) == 1:
        yield fault(
            f"The masks of {where} hold no class but '{found.present[0]}', and no pixel of {listed(absent)}: there is "
            "nothing to tell apart, and a score over one class is 100 whatever is answered.",
            _WAY_OUT,
        )
    else:
        yield warning(
            f"No pixel in the masks of {where} is of the class {listed(absent)}: it is not learned from labels where "
            "this is for training, and no score says how well it is known where it is for evaluation."
        )


def listed(names: Sequence[str]) -> str:
    """Names in quotes, the first few."""
    shown = ", ".join(f"'{name}'" for name in names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown}, ..."


def percent(count: int, every: int) -> str:
    """A share in percent with two digits that count."""
    return f"{100 * count / every:.2g}%" if count < 0.995 * every else f"{100 * count / every:.4g}%"
