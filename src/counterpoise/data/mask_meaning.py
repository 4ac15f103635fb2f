"""Whether the numbers in a gray or palette mask are those of classes, or stand for grays or colors."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from counterpoise.data.label_map import UNKNOWN, LabelMap
from counterpoise.data.sources.base import IGNORE
from counterpoise.errors import DataError

_RAMP = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


class Meant(NamedTuple):
    """What a mask holds.

    Attributes:
        values: uint8 [H, W], indices or values of classes, or uint8 [H, W, 3], colors.
        aside: why it is that and not the other, where an error must say so.
    """

    values: NDArray[np.uint8]
    aside: str = ""


def of_gray(path: os.PathLike[str], numbers: NDArray[np.uint8], step: int, label_map: LabelMap) -> Meant:
    """What a gray mask of numbers uint8 [H, W] holds, whose grays are `step` apart: 255 in one of a bit, 1 in one of 8.

    Where classes have colors it holds their numbers, unless these are none and all its grays are such colors: programs
    that shrink files save black masks as gray.

    Raises:
        DataError: it can be read in both ways, as different classes.
    """
    grays = _RAMP * step  # beyond the numbers of so few bits they wrap around, and are not looked at
    if label_map.by_value:
        return Meant(numbers) if step == 1 else _of_values(path, numbers, grays, label_map, colored=False)
    if not label_map.colors:
        return Meant(numbers)
    shown = _shown(numbers)
    by_number, by_color = _of_numbers(shown, label_map), label_map.of_colors(grays[shown])
    numbers_fit, colors_fit = (bool((found != UNKNOWN).all()) for found in (by_number, by_color))
    if numbers_fit and colors_fit and (by_number != by_color).any():
        at = int((by_number != by_color).argmax())
        raise DataError(
            f"Mask {path} is gray, and has two readings: its {shown[at]} is '{_name(by_number[at], label_map)}' by the "
            f"order of {label_map.file}, and '{_name(by_color[at], label_map)}' by its color, "
            f"{' '.join(map(str, grays[shown[at]].tolist()))}. Where masks hold colors, save this one as RGB; where "
            f"they hold numbers of classes, leave the colors out of {label_map.file}."
        )
    by_colors = not numbers_fit and (colors_fit or label_map.lossy)
    return Meant(grays[numbers] if by_colors else numbers)


def of_palette(path: os.PathLike[str], numbers: NDArray[np.uint8], palette: list[int], label_map: LabelMap) -> Meant:
    """What a palette mask of numbers uint8 [H, W] holds; palette: red, green, blue of each, one after the other.

    Programs that shrink files turn colors into palettes of any order. So it holds colors where all that it shows are
    those of classes, or one is that of a class at the index of another. A palette that is there for the eye has black
    at 0 as a rule, and black is void as a rule: void says nothing of this kind. Else it holds indices.

    Raises:
        DataError: indices and grays are values of classes, one of them void, as white may be.
    """
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors.flat[: len(palette)] = palette
    shown = _shown(numbers)
    used = max(2, int(shown.max()) + 1)  # one black entry may be a color
    if not palette or (colors[:used] == _RAMP[:used]).all():
        return of_gray(path, numbers, 1, label_map)
    if label_map.by_value:
        return _of_values(path, numbers, colors, label_map, colored=True)
    if not label_map.colors:
        return Meant(numbers)
    if (label_map.of_colors(colors[shown]) != UNKNOWN).all():
        return Meant(colors[numbers])
    by_number, by_color = _of_numbers(shown, label_map), label_map.of_colors(colors[shown], nearest=label_map.lossy)
    if (at := _against(shown, by_number, by_color, label_map)) is not None:
        return Meant(
            colors[numbers],
            f"The palette of this mask is read by its colors: {' '.join(map(str, colors[at].tolist()))}, a color of "
            f"{label_map.file}, has the index {at}, which is another class. Where masks hold indices, leave the "
            f"colors out of {label_map.file}.",
        )
    return Meant(colors[numbers] if label_map.lossy and (by_number == UNKNOWN).any() else numbers)


def _of_values(
    path: os.PathLike[str], numbers: NDArray[np.uint8], colors: NDArray[np.uint8], label_map: LabelMap, colored: bool
) -> Meant:
    """Of classes that have values: the numbers, or the grays that `colors` has for them; colored: by a palette."""
    shown = _shown(numbers)
    grays = colors[shown, 0]
    # A palette of which only some entries are gray is one for the eye: these may be values by chance.
    all_gray, shown_gray = ((part == part[:, :1]).all() for part in (colors, colors[shown]))
    by_number, by_gray = _of_numbers(shown, label_map), _of_numbers(grays, label_map, nearest=label_map.lossy)
    fit = bool((by_number != UNKNOWN).all())
    if all_gray or (label_map.colors and shown_gray):
        at = _against(shown, by_number, by_gray, label_map) if colored else None
        if at is not None:
            return Meant(
                colors[numbers][..., 0],
                f"The palette of this mask is read by its grays: {colors[at, 0]}, a value of {label_map.file}, has the "
                f"index {at}, which is another class or none. Where indices are meant, save it in 8-bit gray.",
            )
        if (by_gray != UNKNOWN).all():
            voids = (by_number == IGNORE) | ((by_gray == IGNORE) & (grays == 255))  # white is for the eye, too
            differ = (by_number != by_gray) & voids
            if label_map.given and fit and differ.any():
                at = int(differ.argmax())
                raise DataError(
                    f"Mask {path} has two readings: its index {shown[at]} is "
                    f"'{_name(by_number[at], label_map)}', and the gray of that, {grays[at]}, is "
                    f"'{_name(by_gray[at], label_map)}'. Save it in 8-bit gray, with the values that are meant."
                )
            return Meant(colors[numbers][..., 0])
    return Meant(colors[numbers][..., 0] if colored and shown_gray and not fit else numbers)


def _against(
    shown: NDArray[np.int64], by_number: NDArray[np.uint8], by_color: NDArray[np.uint8], label_map: LabelMap
) -> int | None:
    """The first number whose color is that of a class, and which is another one or none; None where there is none."""
    against = (by_color != UNKNOWN) & (by_color != IGNORE) & (by_color != by_number)
    if label_map.ignore is not None:
        against &= shown != label_map.ignore
    return int(shown[against.argmax()]) if against.any() else None


def _of_numbers(
    numbers: NDArray[np.int64] | NDArray[np.uint8], label_map: LabelMap, nearest: bool = False
) -> NDArray[np.uint8]:
    """The class of each number [count], UNKNOWN where none is, though values be taken for the nearest one."""
    values = label_map.values if label_map.ignore is None else [*label_map.values, label_map.ignore]
    found: NDArray[np.uint8] = label_map.of_values[numbers]
    return found if nearest else np.where(np.isin(numbers, values), found, UNKNOWN).astype(np.uint8)


def _name(of: int, label_map: LabelMap) -> str:
    return "void" if of == IGNORE else label_map.classes[of]


def _shown(numbers: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The numbers that occur, ascending."""
    return np.flatnonzero(Image.fromarray(numbers).histogram())  # many times faster than np.unique
