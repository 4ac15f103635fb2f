"""Scenes whose labels are outlines of objects: each mask is drawn when it is asked for."""

from __future__ import annotations

import hashlib
import io
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from counterpoise import config
from counterpoise.data.label_map import LabelMap
from counterpoise.data.mask_file import resized
from counterpoise.data.problems import SHOWN, Problem, fault, of_corrupt
from counterpoise.data.sources.base import IGNORE, Splits
from counterpoise.data.sources.division import name_parts, split_by_fraction
from counterpoise.data.sources.files import FileSet
from counterpoise.data.sources.masks_files import of_one_shape
from counterpoise.data.split_names import Halves
from counterpoise.errors import CorruptImage, DataError, UnfitMask

BACKGROUND = "background"
MOST_CLASSES = 254
_AT_ONCE = 2**22
_FAR = 4  # how many times the size of a picture a coordinate may lie away
Ring = NDArray[np.float64]
"""x, y of each corner, [V, 2], in pixels; the middle of the first pixel is 0.5, 0.5."""
Runs = Mapping[str, Any]
"""A mask as lengths of runs, as pycocotools has it: size and counts."""
Fill = Callable[[Sequence[Ring], Runs | None, int, int], NDArray[np.bool_]]
"""From the rings of an object, or its runs, height and width to its pixels."""


@dataclass
class Objects:
    """The objects of many pictures, one after the other in plain arrays: millions of them travel to other processes.

    Attributes:
        numbers: x, y, x, y, ... of all rings.
        ring_ends: in numbers, behind each ring.
        object_ends: in rings, behind each object.
        image_ends: in objects, behind each picture.
        classes: of each object.
        below: of each object, whether it lies below all that are not: a crowd.
        runs: of objects that are runs and no rings, by their number.
    """

    numbers: array[float] = field(default_factory=lambda: array("d"))
    ring_ends: array[int] = field(default_factory=lambda: array("q"))
    object_ends: array[int] = field(default_factory=lambda: array("q"))
    image_ends: array[int] = field(default_factory=lambda: array("q"))
    classes: array[int] = field(default_factory=lambda: array("B"))
    below: array[int] = field(default_factory=lambda: array("B"))
    runs: dict[int, Runs] = field(default_factory=dict)

    def add(self, label: int, rings: Sequence[Sequence[float]], runs: Runs | None = None, below: bool = False) -> None:
        """Add an object to the picture that is not ended yet."""
        for ring in rings:
            self.numbers.extend(ring)
            self.ring_ends.append(len(self.numbers))
        if runs is not None:
            self.runs[len(self.classes)] = runs
        self.object_ends.append(len(self.ring_ends))
        self.classes.append(label)
        self.below.append(below)

    def end_image(self) -> None:
        """What is added next is of another picture."""
        self.image_ends.append(len(self.classes))

    def of(self, index: int) -> range:
        """The numbers of the objects of a picture."""
        return range(self.image_ends[index - 1] if index else 0, self.image_ends[index])

    def rings(self, number: int) -> list[Ring]:
        """The rings of an object."""
        found = []
        for ring in range(self.object_ends[number - 1] if number else 0, self.object_ends[number]):
            first = self.ring_ends[ring - 1] if ring else 0
            found.append(np.array(self.numbers[first : self.ring_ends[ring]], dtype=np.float64).reshape(-1, 2))
        return found


class DrawnScenes(FileSet):
    """Image files whose masks lie in no file as they are: each is made when it is asked for."""

    masked = True
    resize = False

    @property
    def label_map(self) -> LabelMap:
        """What the values of its masks mean, as of masks in files."""
        return LabelMap(self.asked_of or self.classes, (), frozenset(), IGNORE, self.origin)

    def mask_file(self, index: int) -> bytes:
        """A gray PNG of classes, which no file holds."""
        written = io.BytesIO()
        Image.fromarray(self.read_mask(index).numpy()).save(written, "PNG")
        return written.getvalue()

    def mask_name(self, index: int) -> str:
        """What the mask would be called."""
        return f"{self.files[index]}.png"


class OutlinedScenes(DrawnScenes):
    """Image files, and the outlines of what is on them.

    Where objects overlap, the smaller one is on top, and of equal ones the later; crowds lie below all others. Pixels
    of no object are of class 0, background.

    Args:
        classes: background and those of the objects.
        fill: how an object becomes pixels; a function of a module, which travels by its name.
        sizes: height and width of the pictures as the outlines have them; None: coordinates are shares of them.
        fitted: bring masks of another size to that of their picture, by the nearest pixel.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        classes: Sequence[str],
        objects: Objects,
        fill: Fill,
        sizes: Sequence[tuple[int, int]] | None = None,
        fitted: bool = False,
    ) -> None:
        super().__init__(root, files, torch.zeros(len(files), dtype=torch.int64), classes)
        self.objects, self._fill, self._sizes, self._fitted = objects, fill, sizes, fitted

    def read_mask(self, index: int) -> Tensor:
        height, width = self._size(index)
        objects = self.objects
        drawn = []
        for number in objects.of(index):
            rings = objects.rings(number)
            if self._sizes is None:
                rings = [ring * (width, height) for ring in rings]
            pixels = self._fill(rings, objects.runs.get(number), height, width)
            area = int(pixels.sum())
            if area:
                rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
                box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
                drawn.append((not objects.below[number], -area, number, box, pixels[box].copy()))
        mask = np.zeros((height, width), dtype=np.uint8)
        for _, _, number, box, pixels in sorted(drawn, key=lambda one: one[:3]):
            mask[box][pixels] = objects.classes[number]
        return resized(torch.from_numpy(mask), self.extent(index)) if self._fitted else torch.from_numpy(mask)

    def misfit(self, index: int) -> str:
        """What is wrong with the size of a picture, as its header and its outlines have it; empty where nothing is."""
        if self._sizes is None or (found := self.extent(index)) == self._sizes[index]:
            return ""
        if self._fitted and of_one_shape(self._sizes[index], found):
            return ""
        given, there = (f"{width} x {height}" for height, width in (self._sizes[index], found))
        turned = ", after the turn that its EXIF data asks for" if found == self._sizes[index][::-1] else ""
        other = ", which is another shape" if self._fitted else ""
        return f"is for a picture of {given} pixels, and the file has {there}{turned}{other}"

    def is_resized(self, index: int) -> bool:
        """Whether the outlines are for a picture of another size, which the mask is then brought to."""
        return self._fitted and self._sizes is not None and self.extent(index) != self._sizes[index]

    def identity(self, index: int) -> bytes:
        moved = b" resize" if self._fitted else b""  # others keep their fingerprint
        return super().identity(index) + b" " + self._digest(index) + moved

    def _size(self, index: int) -> tuple[int, int]:
        if wrong := self.misfit(index):
            raise UnfitMask(self.name(index), f"{wrong}.")
        return self.extent(index) if self._sizes is None else self._sizes[index]

    def _digest(self, index: int) -> bytes:
        objects, digest = self.objects, hashlib.sha256()
        for number in objects.of(index):
            rings = objects.rings(number)
            runs = objects.runs.get(number)
            digest.update(repr((objects.classes[number], objects.below[number], len(rings))).encode())
            for ring in rings:
                digest.update(str(len(ring)).encode() + ring.tobytes())
            digest.update(repr(runs and sorted(runs.items())).encode())
        return digest.hexdigest()[:16].encode()


def with_background(names: Sequence[str], where: str) -> tuple[tuple[str, ...], list[int]]:
    """The classes: background, and then `names`; and the class of each name. One called background is that one.

    Raises DataError for no names, too many, or one twice.
    """
    if not names:
        raise DataError(f"{where} names no classes.")
    if (twice := next((name for number, name in enumerate(names) if name in names[:number]), None)) is not None:
        raise DataError(f"{where} has the class '{twice}' twice.")
    others = [name for name in names if name.casefold() != BACKGROUND]
    if len(others) > MOST_CLASSES - 1 or not others:
        raise DataError(f"{where} names {len(others)} classes; expected 1 to {MOST_CLASSES - 1}.")
    classes = (BACKGROUND, *others)
    return classes, [0 if name.casefold() == BACKGROUND else classes.index(name) for name in names]


def centers_inside(rings: Sequence[Ring], runs: Runs | None, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels whose center is inside an odd number of rings: adjacent objects share no pixel and leave none out."""
    flips = np.zeros((height, width + 1), dtype=np.int32)
    centers = np.arange(height) + 0.5
    for ring in rings:
        step = max(1, _AT_ONCE // height)
        ends = np.roll(ring, -1, axis=0)
        for first in range(0, len(ring), step):
            (x, y), (to_x, to_y) = ring[first : first + step].T, ends[first : first + step].T
            edge, row = np.nonzero((y[:, None] <= centers) != (to_y[:, None] <= centers))
            across = x[edge] + (centers[row] - y[edge]) * (to_x[edge] - x[edge]) / (to_y[edge] - y[edge])
            column = np.clip(np.ceil(across - 0.5), 0, width).astype(np.int64)
            np.add.at(flips, (row, column), 1)
    inside: NDArray[np.bool_] = np.cumsum(flips[:, :width], axis=1) % 2 == 1
    return inside


def position(numbers: Sequence[float], size: tuple[int, int]) -> Literal["inside", "partly", "outside", "far"]:
    """Whether corners x, y, x, y, ... lie in a picture of this height and width, give or take a pixel.

    far: so far outside, or no numbers, that they are of another picture or unit. What is partly outside is clipped.
    """
    limit = _FAR * max(size)
    try:
        if not all(-limit <= number <= limit for number in numbers):  # nor is NaN
            return "far"
    except TypeError:
        return "far"
    spans = ((numbers[0::2], size[1]), (numbers[1::2], size[0]))
    if any(max(values) <= 0 or min(values) >= most for values, most in spans):
        return "outside"
    return "inside" if all(min(values) >= -1 and max(values) <= most + 1 for values, most in spans) else "partly"


def of_outside(names: Sequence[str], where: str) -> list[Problem]:
    """An error where outlines lie outside their pictures; names: of these, in words."""
    if not names:
        return []
    what = (
        f"{len(names):,} outlines of {where} lie outside their picture, such as {names[0]}: no pixel would be of them."
    )
    return [
        fault(what, "See whether they are of another picture, or of one of another size; else take them out.", names)
    ]


def look_at_sizes(parts: Sequence[OutlinedScenes], on_corrupt: str, most: int | None = None) -> list[Problem]:
    """Headers of some pictures, or all, beside what outlines are for; what is resized becomes a note.

    Args:
        most: pictures of a part that are looked at.
    """
    problems = []
    for part in parts:
        wrong, moved = [], 0
        looked = part.spread(len(part) if most is None else most)
        for index in looked:
            with suppress(CorruptImage):  # said when it is read
                if found := part.misfit(index):
                    wrong.append(f"{part.name(index)} {found}")
                else:
                    moved += part.is_resized(index)
        if moved:
            of = f"of {len(looked):,} masks of {part.origin}"
            part.notes.append(f"{moved:,} {of} are resized to their pictures, by the nearest pixel")
        if wrong:
            what = f"{len(wrong):,} pictures of {part.origin} are of another size than their outlines: {wrong[0]}."
            way_out = (
                "Bring the pictures that were outlined, have masks resized by the nearest pixel, "
                "--data.options.resize_masks true, or leave these out with --data.on_corrupt skip."
            )
            problems.append(of_corrupt(what, way_out, wrong[:SHOWN], on_corrupt))
    return problems


def finish(data: config.Data, parts: Sequence[DrawnScenes], halves: Halves, notes: Sequence[str]) -> Splits:
    """Both halves, one of them alone divided."""
    unused = [f"not used: {', '.join(halves.unused)} of {data.path}"] if halves.unused else []
    parts[0].notes = list(dict.fromkeys([*notes, *parts[0].notes, *unused]))
    if len(parts) == 1:
        return split_by_fraction(parts[0], data.val_fraction, data.split_seed)
    splits = Splits(parts[0], parts[1])
    name_parts(splits, halves)
    if halves.why:
        splits.val.origin += f" ({halves.why})"
    return splits
