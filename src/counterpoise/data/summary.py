"""What a command found in its data, said before the first step and kept beside the run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from counterpoise.data.class_names import is_number
from counterpoise.data.labels import absences
from counterpoise.data.problems import Problem
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import ImageSet, Splits
from counterpoise.data.sources.masks_census import counted
from counterpoise.data.walking import ordered

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
    return _of(train=splits.train, val=splits.val)


def of_images(images: ImageSet, name: str = "images") -> Found:
    """What one set holds, such as that on which a student is evaluated."""
    return _of(**{name: images})


def _of(**sets: ImageSet) -> Found:
    found = Found()
    _classes(found, next(iter(sets.values())).classes)
    for name, images in sets.items():
        _images(found, name, images)
    _sizes(found, sets.values())
    for note in dict.fromkeys(note for images in sets.values() for note in images.notes):
        found.note(note)
    return found


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
    values = {
        "images": len(images),
        "unlabeled": images.unlabeled,
        "origin": images.origin,
        "per_class": images.per_class(),
    }
    found.add(name, f"{said}; {images.origin}" if images.origin else said, **{name: values})


def census(images: ImageSet) -> str:
    """How many there are of what, in a few words; empty where there is nothing to say."""
    missing = images.unlabeled
    if images.masked:
        without = f"{missing:,} without a mask" if missing else ""
        return ", ".join(part for part in (without, counted(images).text()) if part)
    if missing == len(images):
        return "without labels"
    counts = images.per_class() or [0]
    if images.multilabel:
        return _of_several(images, counts)
    said = _range(counts, images.classes)
    return f"{said} a class, {missing:,} without a label" if missing else f"{said} a class"


def _of_several(images: ImageSet, counts: Sequence[int]) -> str:
    known = sum(counts) + sum(absences(images.labels))
    unknown = 1 - known / images.labels.numel()
    missing = f", {100 * unknown:.3g}% of the labels unknown" if unknown else ""
    missing += f" (all of {images.unlabeled:,} images)" if images.unlabeled else ""
    return f"{_range(counts, images.classes)} a label, {sum(counts) / len(images):.3g} labels an image{missing}"


def _range(counts: Sequence[int], classes: Sequence[str]) -> str:
    low, high = min(counts), max(counts)
    if low == high:
        return f"{low:,}"
    return f"{low:,} ({classes[counts.index(low)]}) to {high:,} ({classes[counts.index(high)]})"


def _sizes(found: Found, sets: Iterable[ImageSet]) -> None:
    known = [extents for images in sets if len(extents := _extents(images))]
    if not known:
        return
    both = torch.cat(known)
    sizes = [both.amin(0).tolist(), both.amax(0).tolist()]
    least, most = (f"{width} x {height}" for height, width in sizes)
    found.add("sizes", least if least == most else f"{least} to {most}", sizes=sizes)


def _extents(images: ImageSet) -> Tensor:
    """Heights and widths of the images that can be read; of very many, of some spread evenly."""
    if len(images) > _HEADERS and not isinstance(images, ArraySet):
        images = images.subset(torch.tensor(images.spread(_HEADERS)))
    return images.extents[images.extents[:, 0] > 0]
