"""`counterpoise check`: everything that is wrong with a data set, at once, with the way out of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from counterpoise import config
from counterpoise.data import duplicates, naming, sources
from counterpoise.data.duplicates import Picture
from counterpoise.data.labels import absences
from counterpoise.data.noticing import cut_off
from counterpoise.data.problems import Problem, fault, of_corrupt, warning
from counterpoise.data.sources import loading
from counterpoise.data.sources.base import ImageSet, Splits
from counterpoise.data.sources.masks_census import counted, problems_of
from counterpoise.data.summary import Found, of_splits
from counterpoise.data.views import SMALL
from counterpoise.errors import CorruptImage, CounterpoiseError

FEW = 5
"""Training images a class below which that is worth a word."""
IMBALANCE = 20
"""How many times more images one class may have than another before that is worth a word."""


class Checked(NamedTuple):
    """A data set that was looked through.

    Attributes:
        found: what is there; None where it cannot be loaded.
    """

    source: str
    found: Found | None
    problems: list[Problem]


def check(data: config.Data, fits: Callable[[ImageSet], None] | None = None) -> Checked:
    """Look a data set through: its folders, its labels, and every file to its end.

    Args:
        fits: raises where images are not what they are wanted for.

    Raises:
        DataError, ConfigError: there is no such data, source or option.
    """
    problems = loading.problems(data)
    try:
        splits = sources.load(data)
        if fits is not None:
            for part in splits:
                fits(part)
    except CounterpoiseError as error:
        if not any(problem.severity == "error" for problem in problems):
            problems.append(fault(str(error)))
        return Checked(loading.source_of(data), None, problems)
    problems += [*_of_masks(splits), *_of_labels(splits)]
    if not splits.train.masked:
        problems += duplicates.in_two_classes(splits)
    problems += [*duplicates.between(splits), *naming.across(splits)]
    seen = _read_all(splits)
    problems += unreadable(seen, data.on_corrupt)
    problems += _copies(splits, {picture: what for picture, what in seen.items() if what is not None})
    found = of_splits(splits)
    if data.fit == "crop" and not splits.train.masked and splits.train.small_extent(SMALL) is None:
        for note in cut_off(splits.train):
            found.note(note)
    return Checked(loading.source_of(data), found, problems)


def overview(sections: Iterable[config.Data]) -> list[str]:
    """What is there, as lines to print, once for each of the data sets that several runs speak of.

    One that cannot be loaded here is left out: its runs say why.
    """
    lines: list[str] = []
    for data in {section.model_dump_json(include=_WHAT): section for section in sections}.values():
        try:
            splits = sources.load(data)
        except CounterpoiseError:
            continue
        lines += of_splits(splits).warn(cheap(splits)).text()
    return lines


_WHAT = {"path", "source", "options", "class_order", "unlabeled", "val_fraction", "split_seed", "fold", "held_out"}


def cheap(splits: Splits) -> list[Problem]:
    """What can be seen before training without decoding pictures; some masks are read."""
    few = sum(map(len, splits)) <= duplicates.MOST
    twice = [*duplicates.between(splits), *naming.across(splits)] if few else []
    return [*_of_masks(splits), *_of_labels(splits), *twice]


class _Seen(NamedTuple):
    """What of an image is kept to compare it with others."""

    digest: bytes
    thumb: NDArray[np.float32] | None


def unreadable(seen: Mapping[Picture, _Seen | None], on_corrupt: str) -> Iterator[Problem]:
    """Images that cannot be decoded to their end, of both halves."""
    bad = [picture for picture, what in seen.items() if what is None]
    if bad:
        way_out = "Mend or remove them, or leave them out: --data.on_corrupt skip."
        names = [picture.name for picture in bad]
        yield of_corrupt(f"{len(bad)} images cannot be read.{_reason(bad[0])}", way_out, names, on_corrupt)


def _reason(picture: Picture) -> str:
    """Why it cannot be read, a sentence."""
    try:
        picture.images.read(picture.at)
    except CorruptImage as error:
        return f" {error}"
    return ""


def _read_all(splits: Splits) -> dict[Picture, _Seen | None]:
    """Of every image what is kept of it; None where it cannot be read."""
    both = [Picture(part, index) for part in splits for index in range(len(part))]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        return dict(zip(both, threads.map(_look, both), strict=True))


def _copies(splits: Splits, seen: Mapping[Picture, _Seen]) -> Iterator[Problem]:
    """Images of val that are in train in another file, by their pixels or by their looks."""
    yield from duplicates.by_pixels(splits, {picture: what.digest for picture, what in seen.items()})
    known = {what.digest for picture, what in seen.items() if picture.images is splits.train}
    others = {
        picture: what.thumb
        for picture, what in seen.items()
        if what.thumb is not None and (picture.images is splits.train or what.digest not in known)
    }
    yield from duplicates.by_looks(splits, others)


def _of_masks(splits: Splits) -> Iterator[Problem]:
    """Classes that no mask of a half holds."""
    for half, name in zip(splits, ("train", "val"), strict=True):
        if half.masked:
            yield from problems_of(counted(half), half.origin or name)


def _of_labels(splits: Splits) -> Iterator[Problem]:
    train, val = (_counts(part) for part in splits)
    if train is None or val is None or not len(train):
        return
    classes = splits.train.classes
    absent = [name for name, have in zip(classes, val.tolist(), strict=True) if not have]
    if absent:
        yield warning(
            f"{len(absent)} of {len(classes)} classes have no image in val: no score says how well they are known.",
            "Put some there, or hold a part of train out: --data.held_out N.",
            absent,
        )
    if splits.train.multilabel:
        yield from _always_there(splits)
    few = [name for name, have in zip(classes, train.tolist(), strict=True) if have < FEW]
    if few:
        yield warning(f"{len(few)} of {len(classes)} classes have fewer than {FEW} images in train.", "", few)
    low, high = int(train.argmin()), int(train.argmax())
    if int(train[high]) > IMBALANCE * max(1, int(train[low])):
        most, least = int(train[high]), int(train[low])
        yield warning(
            f"Class '{classes[high]}' has {most:,} images in train and '{classes[low]}' {least:,}.",
            "Rare labels count more with --objective.binary_cross_entropy.pos_weight frequency."
            if splits.train.multilabel
            else "Rare classes count more with --objective.cross_entropy.class_weight frequency.",
        )


def _always_there(splits: Splits) -> Iterator[Problem]:
    """Labels that no image is known to lack."""
    for half, name in zip(splits, ("train", "val"), strict=True):
        there = half.per_class() or ()
        both = zip(half.classes, there, absences(half.labels), strict=False)
        if always := [label for label, some, none in both if some and not none]:
            tells = "a network that always says yes errs nowhere" if name == "train" else "their scores say nothing"
            yield warning(
                f"{len(always)} of {len(half.classes)} labels are there in all images of {name} of which they are "
                f"known: {tells}.",
                "Where a label that is not said is not there: --data.options.blank absent.",
                always,
            )


def _counts(images: ImageSet) -> Tensor | None:
    counts: Sequence[int] | None = images.per_class()
    return None if counts is None or not any(counts) else torch.tensor(counts)


def _look(picture: Picture) -> _Seen | None:
    try:
        image = picture.images.read(picture.at)
    except CorruptImage:
        return None
    return _Seen(duplicates.digest_of(image), duplicates.thumb_of(image))
