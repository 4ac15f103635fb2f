"""A JSON of LabelMe's: the shapes that were drawn on one picture."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from counterpoise.data.sources import runs
from counterpoise.data.sources.outlines import Runs, position
from counterpoise.errors import DataError
from counterpoise.system import documents
from counterpoise.system.files import is_file

BYTES = 2**28
"""Of a JSON at most: pictures may be embedded."""
_SHAPES = 100_000
_MOST_SIDE = 2**20
_FAR = 1e9
Without = Literal["stop", "background"]
"""What becomes of shapes without an area: lines and points."""


@dataclass
class Shape:
    """What was drawn, in pixels of its picture: rings, or runs."""

    label: str
    rings: list[list[float]] = field(default_factory=list)
    runs: Runs | None = None


@dataclass
class Drawn:
    """One JSON as it is read.

    Attributes:
        picture: as the JSON calls it, with slashes; "" where it does not.
        size: height and width, as the JSON says; None where it does not.
        thin: shapes without an area, in words.
        outside: shapes that lie outside the picture, in words.
        clipped: how many shapes reach out of it.
    """

    file: Path
    picture: str
    size: tuple[int, int] | None
    values: Sequence[Mapping[str, Any]]
    shapes: list[Shape] = field(default_factory=list)
    thin: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    clipped: int = 0

    def draw(self, height: int, width: int) -> None:
        """Read the shapes for a picture of this size. Raises DataError for what cannot be drawn."""
        for number, each in enumerate(self.values, 1):
            where = f"shape {number} of {self.file}"
            label = each.get("label")
            if not isinstance(label, str) or not label.strip():
                raise DataError(f"{where[:1].upper()}{where[1:]} has no label.")
            kind = each.get("shape_type") or "polygon"
            if kind in ("line", "linestrip", "point", "points"):
                self.thin.append(f"{where} ('{label}', a {kind})")
                continue
            shape = Shape(label.strip())
            box = self._add(shape, kind, each, where, height, width)
            there = position(box, (height, width))
            if there == "far":
                raise DataError(
                    f"{where[:1].upper()}{where[1:]} has coordinates far outside its picture of {width} x {height} "
                    "pixels, or are no numbers."
                )
            if there == "outside":
                self.outside.append(f"{where} ('{label}')")
            self.clipped += there == "partly"
            self.shapes.append(shape)

    def _add(
        self, shape: Shape, kind: str, each: Mapping[str, Any], where: str, height: int, width: int
    ) -> list[float]:
        """Give a shape its rings or runs; the corners that say where it lies."""
        points = _points(each, where)
        if kind == "polygon" or (kind == "rectangle" and len(points) == 4):
            if len(points) < 3:
                raise DataError(f"{where}, a polygon, has {len(points)} points; expected 3 or more.")
            shape.rings.append([value for point in points for value in point])
            return shape.rings[0]
        if kind not in ("rectangle", "circle", "mask"):
            raise DataError(f"{where} is a '{kind}': expected a polygon, rectangle, circle or mask.")
        if len(points) != 2:
            raise DataError(f"{where}, a {kind}, has {len(points)} points; expected 2.")
        (x, y), (to_x, to_y) = points
        if kind == "rectangle":
            shape.rings.append([x, y, to_x, y, to_x, to_y, x, to_y])
            return shape.rings[0]
        if kind == "circle":
            radius = math.hypot(to_x - x, to_y - y)
            box = [x - radius, y - radius, x + radius, y + radius]
            if position(box, (height, width)) not in ("far", "outside"):
                shape.runs = runs.of_pixels(_circle(x, y, radius, height, width))
            return box
        mask = _mask(each, where)
        box = [x, y, x + mask.shape[1], y + mask.shape[0]]
        if position(box, (height, width)) not in ("far", "outside"):
            shape.runs = runs.of_pixels(_placed(mask, round(x), round(y), height, width))
        return box


def read(file: Path) -> Drawn:
    """A JSON of LabelMe's, of any version. Raises DataError where it is none."""
    try:
        values = documents.read_json(file, limit=BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {documents.why_unread(error)}.") from None
    shapes = values.get("shapes") if isinstance(values, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(each, dict) for each in shapes):
        raise DataError(f"{file} is no file of LabelMe's: expected shapes and imagePath in it.")
    if len(shapes) > _SHAPES:
        raise DataError(f"{file} has {len(shapes):,} shapes; up to {_SHAPES:,} are read.")
    picture = values.get("imagePath")
    if picture is not None and not isinstance(picture, str):
        raise DataError(f"{file}: imagePath is {picture!r:.40}; expected the name of a picture.")
    return Drawn(file, (picture or "").replace("\\", "/"), _size(values, file), shapes)


def _size(values: Mapping[str, Any], file: Path) -> tuple[int, int] | None:
    given = [values.get(key) for key in ("imageHeight", "imageWidth")]
    if None in given:
        return None
    sides = [side for side in given if isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= _MOST_SIDE]
    if len(sides) != 2:
        raise DataError(f"{file}: imageHeight and imageWidth are {given[0]!r:.20} and {given[1]!r:.20}.")
    return sides[0], sides[1]


def picture_of(drawn: Drawn, root: Path, there: Sequence[str]) -> Path | None:
    """The picture of a JSON: that which it names, in any folder below root, or one beside it of the same name.

    Args:
        there: names of the pictures beside the JSON.
    """
    beside = drawn.file.parent
    if drawn.picture:
        named = beside / drawn.picture
        if is_file(named) and named.resolve().is_relative_to(root.resolve()):
            return named
        if (name := PurePosixPath(drawn.picture).name) in there:
            return beside / name
    found = [name for name in there if PurePosixPath(name).stem == drawn.file.stem]
    return beside / found[0] if len(found) == 1 else None


def _points(each: Mapping[str, Any], where: str) -> list[tuple[float, float]]:
    points = each.get("points")
    if not isinstance(points, list):
        raise DataError(f"{where} has no points.")
    found = []
    for point in points:
        if not isinstance(point, list) or len(point) != 2 or not all(type(value) in (int, float) for value in point):
            raise DataError(f"{where} has the point {point!r:.40}; expected [x, y].")
        if not all(-_FAR <= value <= _FAR for value in point):
            raise DataError(f"{where} has the point {point!r:.40}, which is far outside its picture, or no number.")
        found.append((point[0], point[1]))
    return found


def _circle(x: float, y: float, radius: float, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels whose center is within the circle."""
    down, across = (np.arange(height) + 0.5 - y)[:, None], np.arange(width) + 0.5 - x
    inside: NDArray[np.bool_] = down**2 + across**2 <= radius**2
    return inside


def _mask(each: Mapping[str, Any], where: str) -> NDArray[np.bool_]:
    """The picture of a mask, as a small PNG in text."""
    text = each.get("mask")
    try:
        content = base64.b64decode(text if isinstance(text, str) else "", validate=True)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            return np.asarray(image.convert("L")) > 0
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise DataError(f"{where} is a mask, and holds no PNG of it.") from None


def _placed(mask: NDArray[np.bool_], x: int, y: int, height: int, width: int) -> NDArray[np.bool_]:
    """A mask whose first pixel is at x, y of a picture."""
    pixels = np.zeros((height, width), dtype=bool)
    top, left = max(0, y), max(0, x)
    inner = mask[top - y : height - y, left - x : width - x]
    pixels[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return pixels
