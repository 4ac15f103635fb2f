"""The JSON of COCO's: images, categories, and the outlines of objects, as polygons or as runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from counterpoise.data.sources.base import IGNORE
from counterpoise.data.sources.outlines import Objects, OutlinedScenes, Ring, Runs, position, with_background
from counterpoise.data.sources.runs import letters
from counterpoise.decoding import Reading
from counterpoise.errors import DataError
from counterpoise.system import documents

COCO_BYTES = 2**32
Without = Literal["stop", "void", "background"]
"""What becomes of an object that has a box and no outline."""


def fill(rings: Sequence[Ring], runs: Runs | None, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels that pycocotools finds in the union of polygons, or in runs."""
    from pycocotools import mask

    found = (
        runs if runs is not None else mask.merge(mask.frPyObjects([r.ravel().tolist() for r in rings], height, width))
    )
    pixels: NDArray[np.bool_] = mask.decode(found).astype(bool)
    return pixels


@dataclass
class Part:
    """One JSON as it is read.

    Attributes:
        classes: background and those of the categories, in the order of their numbers.
        without: what becomes of objects that have no outline.
        boxed: these objects, in words.
        outside: objects whose outline lies outside their picture, in words.
        clipped: how many objects reach out of their pictures.
    """

    file: Path
    without: Without
    classes: tuple[str, ...] = ()
    names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    objects: Objects = field(default_factory=Objects)
    boxed: list[str] = field(default_factory=list)
    thin: int = 0
    crowds: int = 0
    outside: list[str] = field(default_factory=list)
    clipped: int = 0

    def scenes(self, root: Path, reading: Reading, resize: bool = False) -> OutlinedScenes:
        found = OutlinedScenes(root, self.names, self.classes, self.objects, fill, self.sizes, resize)
        found.read_as(reading)
        return found

    def notes(self) -> Iterator[str]:
        """How it was read, where that could be done otherwise."""
        yield f"classes of {self.file.name}: by category number, pixels of no object are '{self.classes[0]}'"
        yield "where objects overlap the smaller one is on top; crowds are of their class, below all others"
        if self.boxed and self.without != "stop":
            became = "void in their boxes" if self.without == "void" else "background"
            yield f"{len(self.boxed):,} objects of {self.file.name} have no outline: they are {became}"
        if self.thin:
            yield f"{self.thin:,} outlines of fewer than 3 points in {self.file.name} are left out"
        if self.clipped:
            yield f"{self.clipped:,} outlines of {self.file.name} reach out of their pictures and are clipped"
        bare = sum(len(self.objects.of(index)) == 0 for index in range(len(self.names)))
        if bare:
            yield f"{bare:,} of {len(self.names):,} pictures of {self.file.name} have no object: all background"


def read(file: Path, without: Without) -> Part:
    """A JSON of COCO's. Raises DataError where it is none, or holds what cannot be drawn."""
    values = _json(file)
    categories = sorted(_entries(values, "categories", file), key=lambda each: _number(each, "id", file, "category"))
    names = [_word(each, "name", file, "category") for each in categories]
    part = Part(file, without)
    part.classes, labels = with_background(names, str(file))
    label_of = {each["id"]: label for each, label in zip(categories, labels, strict=True)}
    if len(label_of) < len(categories):
        raise DataError(f"{file} has two categories of one id.")
    images = sorted(_entries(values, "images", file), key=lambda each: _word(each, "file_name", file, "image"))
    by_image: dict[Any, list[Mapping[str, Any]]] = {_number(each, "id", file, "image"): [] for each in images}
    if len(by_image) < len(images) or len({str(image["file_name"]) for image in images}) < len(images):
        raise DataError(f"{file} has two images of one id, or of one file_name.")
    for each in _entries(values, "annotations", file):
        of = _number(each, "image_id", file, "annotation")
        if of not in by_image:
            raise DataError(f"{file}: annotation {each.get('id')} is of image {of}, which is not there.")
        by_image[of].append(each)
    for image in images:
        size = tuple(_number(image, key, file, "image") for key in ("height", "width"))
        if min(size) < 1 or max(size) > 2**20:
            raise DataError(f"{file}: image {image['file_name']} is said to be {size[1]} x {size[0]} pixels.")
        part.names.append(str(image["file_name"]).replace("\\", "/"))
        part.sizes.append((size[0], size[1]))
        for outlined in by_image[image["id"]]:
            _add(part, outlined, label_of, (size[0], size[1]))
        part.objects.end_image()
    return part


def _add(part: Part, each: Mapping[str, Any], label_of: Mapping[Any, int], size: tuple[int, int]) -> None:
    category = _number(each, "category_id", part.file, "annotation")
    if category not in label_of:
        raise DataError(f"{part.file}: annotation {each.get('id')} is of category {category}, which is not there.")
    crowd = each.get("iscrowd") or 0
    if crowd not in (0, 1):
        raise DataError(f"{part.file}: 'iscrowd' of annotation {each.get('id')} is {crowd!r:.40}; expected 0 or 1.")
    label, crowd = label_of[category], bool(crowd)
    part.crowds += crowd
    outline = each.get("segmentation")
    if isinstance(outline, dict):
        part.objects.add(label, [], _runs(part.file, each, outline, size), crowd)
        return
    rings = _rings(part.file, each, outline or [], size)
    part.thin += sum(len(ring) < 6 for ring in rings)
    kept = [ring for ring in rings if len(ring) >= 6]
    if not rings:
        part.boxed.append(f"annotation {each.get('id')}")
        if part.without == "void":
            label, kept, crowd = IGNORE, [_box(part.file, each, size)], True
    if kept:
        found = {position(ring, size) for ring in kept}
        part.clipped += "partly" in found
        if found == {"outside"}:
            part.outside.append(f"annotation {each.get('id')}")
        part.objects.add(label, kept, None, crowd)


def _box(file: Path, each: Mapping[str, Any], size: tuple[int, int]) -> list[float]:
    """The corners of the box of an object. Raises DataError where it has none with an area."""
    box = each.get("bbox")
    if isinstance(box, list) and len(box) == 4:
        x, y, width, height = _finite(file, each, box, size)
        if min(width, height) > 0:
            return [x, y, x + width, y, x + width, y + height, x, y + height]
    raise DataError(
        f"{file}: annotation {each.get('id')} has no outline, and its 'bbox', which would be void, is {box!r:.40}; "
        "expected [x, y, width, height]. Mend it, take it out, or have it be background: "
        "--data.options.without_outline background."
    )


def _rings(file: Path, each: Mapping[str, Any], outline: Any, size: tuple[int, int]) -> list[list[float]]:
    if not isinstance(outline, list) or not all(isinstance(ring, list) and len(ring) % 2 == 0 for ring in outline):
        raise DataError(f"{file}: the segmentation of annotation {each.get('id')} is neither polygons nor runs.")
    return [_finite(file, each, ring, size) for ring in outline if ring]


def _finite(file: Path, each: Mapping[str, Any], numbers: list[Any], size: tuple[int, int]) -> list[float]:
    if position(numbers, size) != "far":
        return numbers
    raise DataError(
        f"{file}: annotation {each.get('id')} has coordinates far outside its picture of {size[1]} x {size[0]} pixels, "
        "or are no numbers."
    )


def _runs(file: Path, each: Mapping[str, Any], outline: Mapping[str, Any], size: tuple[int, int]) -> Runs:
    """Runs as pycocotools takes them. Raises DataError where they are of another size, or do not fill it."""
    from pycocotools import mask

    counts = outline.get("counts")
    wrong = DataError(
        f"{file}: the runs (RLE) of annotation {each.get('id')} do not fill a picture of {size[1]} x {size[0]} pixels."
    )
    if outline.get("size") != list(size):
        raise wrong
    try:
        if isinstance(counts, list):
            if sum(counts) != math.prod(size) or min(counts) < 0 or any(count != int(count) for count in counts):
                raise wrong
            runs: Runs = mask.frPyObjects({"size": list(size), "counts": counts}, *size)
        else:
            if sum(letters(str(counts))) != math.prod(size):
                raise wrong
            runs = {"size": list(size), "counts": str(counts).encode()}
            mask.decode(runs)
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
    return runs


def _json(file: Path) -> Mapping[str, Any]:
    try:
        values = documents.read_json(file, limit=COCO_BYTES)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {documents.why_unread(error)}.") from None
    except ValueError as error:
        raise DataError(f"{file} is no JSON: {error}.") from None
    if not isinstance(values, dict) or not {"images", "annotations", "categories"} <= values.keys():
        other = " It is of LabelMe's: give its folder." if isinstance(values, dict) and "shapes" in values else ""
        raise DataError(f"{file} is no file of COCO's: expected images, annotations and categories in it.{other}")
    return values


def _entries(values: Mapping[str, Any], key: str, file: Path) -> list[dict[str, Any]]:
    found = values[key]
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise DataError(f"{file}: '{key}' is no list of objects.")
    return found


def _get(each: Mapping[str, Any], key: str, file: Path, what: str) -> Any:
    if key not in each:
        raise DataError(f"{file}: {what} {each.get('id', '?')} has no '{key}'.")
    return each[key]


def _word(each: Mapping[str, Any], key: str, file: Path, what: str) -> str:
    value = _get(each, key, file, what)
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise DataError(f"{file}: '{key}' of {what} {each.get('id', '?')} is {value!r:.40}; expected a name.")
    return str(value)


def _number(each: Mapping[str, Any], key: str, file: Path, what: str) -> int:
    value = _get(each, key, file, what)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{file}: '{key}' of {what} {each.get('id', '?')} is {value!r:.40}; expected a whole number.")
    return value


def without(part: Part, missing: set[str]) -> Part:
    """The part without some of its pictures."""
    found = Part(part.file, part.without, part.classes, boxed=part.boxed, thin=part.thin, crowds=part.crowds)
    found.outside, found.clipped = part.outside, part.clipped
    for index, (name, size) in enumerate(zip(part.names, part.sizes, strict=True)):
        if name in missing:
            continue
        for number in part.objects.of(index):
            rings = [ring.ravel().tolist() for ring in part.objects.rings(number)]
            runs, below = part.objects.runs.get(number), bool(part.objects.below[number])
            found.objects.add(part.objects.classes[number], rings, runs, below)
        found.objects.end_image()
        found.names.append(name)
        found.sizes.append(size)
    return found
