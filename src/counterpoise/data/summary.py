"""What a command found in its data, said before the first step and kept beside the run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from counterpoise.data.problems import Problem
from counterpoise.data.sources.base import UNLABELED, ArraySet, ImageSet, Splits
from counterpoise.data.sources.masks_census import counted
from counterpoise.data.walking import is_number, ordered

_NAMED = 6  # classes that are named one by one
_WIDTH = 9
_HEADERS = 20_000  # of more images than that, some are looked at


@dataclass
class Found:
    """What was found, for people and for programs.

    Attributes:
        lines: topic and sentence, in the order in which they are printed.
        values: the same as JSON holds it.
    """

    lines: list[tuple[str, str]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    def add(self, topic: str, sentence: str, **values: Any) -> Found:
        """Say one thing more."""
        if sentence:
            self.lines.append((topic, sentence))
        self.values.update(values)
        return self

    def note(self, sentence: str) -> Found:
        """Say something that has no number."""
        return self.add("note", sentence, notes=[*self.values.get("notes", []), sentence])

    def warn(self, problems: Iterable[Problem]) -> Found:
        """Say what is not as it should be."""
        problems = list(problems)
        for problem in problems:
            self.lines.append((problem.severity, problem.sentence))
        if problems:
            self.values["problems"] = [*self.values.get("problems", []), *(problem.values() for problem in problems)]
        return self

    def corrupt(self, names: Sequence[str]) -> Found:
        """Say which images were left out already."""
        if names:
            self.add("corrupt", f"{len(names):,} left out, such as {names[0]}")
        return self

    def text(self) -> list[str]:
        """The lines as they are printed."""
        return [f"{topic:<{_WIDTH}}{sentence}" for topic, sentence in self.lines]


def of_splits(splits: Splits) -> Found:
    """What two halves hold. Reads headers, decodes nothing."""
    found = Found()
    _classes(found, splits.train.classes)
    for name, images in (("train", splits.train), ("val", splits.val)):
        _images(found, name, images)
    _sizes(found, splits)
    return _notes(found, splits)


def of_images(images: ImageSet, name: str = "images") -> Found:
    """What one set holds, such as that on which a student is evaluated."""
    found = Found()
    _classes(found, images.classes)
    _images(found, name, images)
    _sizes(found, [images])
    return _notes(found, [images])


def extent_words(low: tuple[int, int], high: tuple[int, int]) -> str:
    """Smallest and largest height and width, as width x height."""
    least, most = (f"{width} x {height}" for height, width in (low, high))
    return least if least == most else f"{least} to {most}"


def _classes(found: Found, classes: Sequence[str]) -> None:
    if not classes:
        found.add("classes", "none: images without labels", classes=[])
        return
    shown = classes if len(classes) <= _NAMED else [*classes[: _NAMED - 1], "...", classes[-1]]
    numbers = "numbers" if list(classes) == ordered(classes) else "text"
    order = f" in the order of {numbers}" if all(map(is_number, classes)) else ""
    found.add("classes", f"{len(classes):,}{order}: {', '.join(shown)}", classes=list(classes))


def _images(found: Found, name: str, images: ImageSet) -> None:
    parts = [f"{len(images):,} {'scenes' if images.masked else 'images'}", census(images)]
    said = ", ".join(part for part in parts if part)
    labels = images.labels[images.labels != UNLABELED]
    values = {
        "images": len(images),
        "unlabeled": len(images) - len(labels),
        "origin": images.origin,
        "per_class": images.per_class(),
    }
    found.add(name, f"{said}; {images.origin}" if images.origin else said, **{name: values})


def census(images: ImageSet) -> str:
    """How many there are of what, in a few words; empty where there is nothing to say."""
    unlabeled = int((images.labels == UNLABELED).sum())
    if images.masked:
        missing = f"{unlabeled:,} without a mask" if unlabeled else ""
        return ", ".join(part for part in (missing, counted(images).text()) if part)
    if unlabeled == len(images):
        return "without labels"
    counts = images.per_class() or [0]
    low, high = min(counts), max(counts)
    said = f"{low:,}"
    if low < high:
        classes = images.classes
        said = f"{low:,} ({classes[counts.index(low)]}) to {high:,} ({classes[counts.index(high)]})"
    return f"{said} a class, {unlabeled:,} without a label" if unlabeled else f"{said} a class"


def _sizes(found: Found, sets: Iterable[ImageSet]) -> None:
    known = [extents for images in sets if len(extents := _extents(images))]
    if not known:
        return
    low = tuple(int(min(extents[:, side].min() for extents in known)) for side in (0, 1))
    high = tuple(int(max(extents[:, side].max() for extents in known)) for side in (0, 1))
    found.add("sizes", extent_words((low[0], low[1]), (high[0], high[1])), sizes=[list(low), list(high)])


def _extents(images: ImageSet) -> Tensor:
    """Heights and widths of the images that can be read; of very many, of some spread evenly."""
    if len(images) <= _HEADERS or isinstance(images, ArraySet):
        found = images.extents
    else:
        some = torch.arange(_HEADERS) * len(images) // _HEADERS
        found = images.subset(some).extents
    return found[found[:, 0] > 0]


def _notes(found: Found, sets: Iterable[ImageSet]) -> Found:
    for note in dict.fromkeys(note for images in sets for note in images.notes):
        found.note(note)
    return found
