"""Pictures that are there twice: on both sides of a split, or in two classes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from counterpoise.data.labels import differ
from counterpoise.data.problems import Problem, warning
from counterpoise.data.sources.base import ImageSet, Splits
from counterpoise.system.files import regular

MOST = 100_000
"""Images up to which doubles are looked for before training; `check` looks among any number."""
_WORSE = "Scores are better than they should be: remove them from one side."
_THUMB, _ALIKE, _CONTRAST = 16, 3.0, 8.0
_MOST_PAIRS = 10**9
_HEAD = 4096  # bytes that are compared first


class Picture(NamedTuple):
    """An image of a set."""

    images: ImageSet
    at: int

    @property
    def name(self) -> str:
        return self.images.name(self.at)


def between(splits: Splits) -> Iterator[Problem]:
    """Images of val that are in train, too, byte for byte (in memory: pixel for pixel).

    None where val is said to be a part of train, as where all is recorded that folds are of.
    """
    if splits.val.split_from is splits.train:
        return
    groups = _alike((Picture(part, index) for part in splits for index in range(len(part))), splits.val)
    both = [group for group in groups if any(picture.images is splits.train for picture in group)]
    shared = [picture.name for group in both for picture in group if picture.images is splits.val]
    if shared:
        yield warning(
            f"{len(shared):,} of {len(splits.val):,} images of val are in train, too, byte for byte.",
            _WORSE,
            sorted(shared),
        )


def by_pixels(splits: Splits, digests: Mapping[Picture, bytes]) -> Iterator[Problem]:
    """Images of val whose pixels are those of an image of train in another file: saved anew, or of another format.

    Args:
        digests: of the pixels of all images that can be read.
    """
    if splits.val.split_from is splits.train:
        return
    known: defaultdict[bytes, list[Picture]] = defaultdict(list)
    for picture, digest in digests.items():
        if picture.images is splits.train:
            known[digest].append(picture)
    found = {
        picture.name: known[digest][0].name
        for picture, digest in digests.items()
        if picture.images is splits.val
        and digest in known
        and not any(_digest(other) == _digest(picture) for other in known[digest])
    }
    if found:
        yield warning(
            f"{len(found):,} of {len(splits.val):,} images of val are in train, too, pixel for pixel, in other files.",
            _WORSE,
            [f"{name} and {other}" for name, other in sorted(found.items())],
        )


def by_looks(splits: Splits, thumbs: Mapping[Picture, NDArray[np.float32]]) -> Iterator[Problem]:
    """Images of val that look like an image of train: of another size, saved with loss, or the next frame of a video.

    That is, none of 16 x 16 places differs by more than 3 of 256 levels. Images without contrast are left out.

    Args:
        thumbs: `thumb_of` the images that were not found otherwise.
    """
    sides = [[each for each in thumbs.items() if each[0].images is part] for part in splits]
    if splits.val.split_from is splits.train or not all(sides) or len(sides[0]) * len(sides[1]) > _MOST_PAIRS:
        return
    known = np.stack([thumb for _, thumb in sides[0]])
    means = known.mean(1)
    order = np.argsort(means)
    known, means = known[order], means[order]
    found = []
    for picture, thumb in sides[1]:
        first, last = np.searchsorted(means, [thumb.mean() - _ALIKE, thumb.mean() + _ALIKE])
        near = np.flatnonzero((np.abs(known[first:last] - thumb) <= _ALIKE).all(1))
        if len(near):
            found.append(f"{picture.name} and {sides[0][order[first + near[0]]][0].name}")
    if found:
        yield warning(
            f"{len(found):,} of {len(splits.val):,} images of val look like images of train: copies of another size, "
            "or saved with loss, or frames of one video.",
            _WORSE,
            sorted(found),
        )


def thumb_of(image: Tensor) -> NDArray[np.float32] | None:
    """An image as 16 x 16 levels of gray, float32 [256]; None where it has no contrast, or is smaller than that."""
    if min(image.shape[1:]) < _THUMB:
        return None
    gray = image.float().mean(0)[None, None]
    small = torch.nn.functional.interpolate(gray, (_THUMB, _THUMB), mode="bilinear", antialias=True)
    thumb: NDArray[np.float32] = small.flatten().numpy()
    return thumb if float(thumb.std()) >= _CONTRAST else None


def digest_of(image: Tensor) -> bytes:
    """What tells the pixels of an image from those of others."""
    pixels = image.contiguous().numpy()
    return hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()


def in_two_classes(splits: Splits) -> Iterator[Problem]:
    """Images of train that are there once more with another label."""
    train = splits.train
    groups = _alike((Picture(train, index) for index in range(len(train))), train)
    torn = [group for group in groups if differ(train.labels[[picture.at for picture in group]])]
    if torn:
        yield warning(
            f"{len(torn):,} pictures are in train more than once, with other labels."
            if train.multilabel
            else f"{len(torn):,} pictures are in more than one class of train.",
            "Leave each once, with its labels." if train.multilabel else "Leave each in the class that it is of.",
            [" and ".join(picture.name for picture in group) for group in torn],
        )


def copies(images: ImageSet, others: ImageSet) -> set[int]:
    """By index, which images are among the others byte for byte, wherever they lie."""
    groups = _alike((Picture(part, index) for part in (images, others) for index in range(len(part))), images)
    return {
        picture.at
        for group in groups
        if any(picture.images is others for picture in group)
        for picture in group
        if picture.images is images
    }


def _alike(pictures: Iterable[Picture], needed: ImageSet) -> list[list[Picture]]:
    """Groups of two or more with the same content, one of `needed` among them."""
    groups = [list(pictures)]
    for key in (_size, partial(_digest, count=_HEAD), _digest):
        finer: list[list[Picture]] = []
        for group in groups:
            by: defaultdict[object, list[Picture]] = defaultdict(list)
            for picture in group:
                with suppress(Exception):  # one that cannot be read is named where it is
                    by[key(picture)].append(picture)
            finer += [found for found in by.values() if len(found) > 1 and any(p.images is needed for p in found)]
        groups = finer
    return groups


def _size(picture: Picture) -> int | bytes:
    """Bytes of its file. Pixels in memory, which are all of one size, are told apart at once."""
    content = _content(picture)
    return content.stat().st_size if isinstance(content, Path) else _digest(picture)


def _digest(picture: Picture, count: int = -1) -> bytes:
    content = _content(picture)
    if isinstance(content, Path):
        with regular(content).open("rb") as opened:
            content = opened.read(count)
    return hashlib.blake2b(content if count < 0 else content[:count], digest_size=16).digest()


def _content(picture: Picture) -> Path | bytes:
    file = picture.images.file(picture.at)
    return picture.images.identity(picture.at) if file is None else file
