"""Pictures that are there twice: on both sides of a split, or in two classes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from counterpoise.data.problems import Problem, warning
from counterpoise.data.sources.base import UNLABELED, ImageSet, Splits
from counterpoise.system.files import regular

MOST = 100_000
"""Images up to which doubles are looked for before training; `check` looks among any number."""
_HEAD = 4096  # bytes that are compared first


class Place(NamedTuple):
    """An image of a set."""

    images: ImageSet
    at: int

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.images.name(self.at)


def between(splits: Splits) -> Iterator[Problem]:
    """Images of val that are in train, too, byte for byte (in memory: pixel for pixel)."""
    groups = _alike((Place(part, index) for part in splits for index in range(len(part))), splits.val)
    both = [group for group in groups if any(place.images is splits.train for place in group)]
    shared = [place.name for group in both for place in group if place.images is splits.val]
    if shared:
        yield warning(
            f"{len(shared):,} of {len(splits.val):,} images of val are in train, too, byte for byte.",
            "Scores are better than they should be: remove them from one side.",
            sorted(shared),
        )


def in_two_classes(splits: Splits) -> Iterator[Problem]:
    """Images of train that are there once more with another label."""
    train = splits.train
    groups = _alike((Place(train, index) for index in range(len(train))), train)
    torn = [group for group in groups if len({int(train.labels[place.at]) for place in group} - {UNLABELED}) > 1]
    if torn:
        yield warning(
            f"{len(torn):,} pictures are in more than one class of train.",
            "Leave each in the class that it is of.",
            [" and ".join(place.name for place in group) for group in torn],
        )


def _alike(places: Iterable[Place], needed: ImageSet) -> list[list[Place]]:
    """Groups of two or more with the same content, one of `needed` among them."""
    groups = [list(places)]
    for key in (_size, _head, _whole):
        finer: list[list[Place]] = []
        for group in groups:
            by: defaultdict[object, list[Place]] = defaultdict(list)
            for place in group:
                if (value := key(place)) is not None:
                    by[value].append(place)
            finer += [found for found in by.values() if len(found) > 1 and any(p.images is needed for p in found)]
        groups = finer
    return groups


def _size(place: Place) -> int | None:
    """Bytes of its file, or of its pixels; None where it cannot be read, which is said elsewhere."""
    file = _file(place)
    if isinstance(file, Path):
        try:
            return file.stat().st_size
        except OSError:
            return None
    return None if file is None else len(file)


def _head(place: Place) -> bytes | None:
    return _digest(place, _HEAD)


def _whole(place: Place) -> bytes | None:
    return _digest(place, -1)


def _digest(place: Place, count: int) -> bytes | None:
    file = _file(place)
    if isinstance(file, Path):
        try:
            with regular(file).open("rb") as opened:
                file = opened.read(count)
        except OSError:
            return None
    if file is None:
        return None
    return hashlib.blake2b(file if count < 0 else file[:count], digest_size=16).digest()


def _file(place: Place) -> Path | bytes | None:
    try:
        file = place.images.file(place.at)
    except Exception:  # a picture that is missing is named where it is read
        return None
    return place.images.identity(place.at) if file is None else file
