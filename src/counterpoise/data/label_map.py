"""What the values and colors of mask files mean."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from counterpoise.data.sources.base import IGNORE
from counterpoise.errors import ConfigError, DataError
from counterpoise.system.documents import read_lines, why_unread

VOID_NAMES = frozenset({"void", "ignore", "ignored", "unlabeled", "unlabelled"})

_NAME_AND_COLOR = re.compile(r"(.*\S)" + r"[\s,;]+(\d{1,9})" * 3)
_NAME_AND_VALUE = re.compile(r"(.*\S)[\s,;]+(\d{1,9})")
UNKNOWN = 254
"""In tables of classes what is none and not void; at most 254 classes leave it free."""
_NEAREST = 20  # grays that classes must lie apart where a value stands for the nearest one


@dataclass(frozen=True)
class LabelMap:
    """What the values of mask files mean: a row for each line of the classes file.

    Attributes:
        names: of all rows, void among them.
        colors: RGB of each row, or nothing.
        void: the rows that are void.
        ignore: a value of index masks that is void, too.
        file: the classes file.
        given: the value of each row in gray and palette masks, or nothing: then it is the gray color or the index.
        lossy: whether a value or color that is of no row stands for the nearest one, as in masks saved as JPEG.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    void: frozenset[int]
    ignore: int | None
    file: str
    given: tuple[int, ...] = ()
    lossy: bool = False

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names without void."""
        return tuple(name for row, name in enumerate(self.names) if row not in self.void)

    @cached_property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """The colors of `classes`, or nothing."""
        return tuple(color for row, color in enumerate(self.colors) if row not in self.void)

    @cached_property
    def targets(self) -> NDArray[np.uint8]:
        """uint8 [rows], the class that each row is; IGNORE for void."""
        kept = np.array([row not in self.void for row in range(len(self.names))])
        return np.where(kept, np.cumsum(kept) - 1, IGNORE).astype(np.uint8)

    @cached_property
    def values(self) -> list[int]:
        """What each row is in a gray or palette mask."""
        if self.given:
            return list(self.given)
        return [color[0] for color in self.colors] if self.colored_gray else list(range(len(self.names)))

    @cached_property
    def of_values(self) -> NDArray[np.uint8]:
        """uint8 [256], the class that each value of a gray or palette mask is."""
        known = dict(zip(self.values, self.targets.tolist(), strict=True))
        if self.ignore is not None:
            known[self.ignore] = IGNORE
        table = np.full(256, UNKNOWN, dtype=np.uint8)
        for value in range(256) if self.lossy else known:
            table[value] = known[min(known, key=lambda other: (abs(other - value), other))]
        return table

    @cached_property
    def colored_gray(self) -> bool:
        """Whether all colors are grays, such as 0 and 255, which gray masks then hold in place of indices."""
        return bool(self.colors) and all(len(set(color)) == 1 for color in self.colors)

    @cached_property
    def by_value(self) -> bool:
        """Whether gray masks hold other values than the index of a row."""
        return bool(self.given) or self.colored_gray

    @cached_property
    def _by_color(self) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """int32 [rows], the colors as one number each, ascending; uint8 [rows], the class of each."""
        packed = pack(np.array(self.colors, dtype=np.uint8))
        order = np.argsort(packed)
        return packed[order], self.targets[order]

    def of_colors(self, colors: NDArray[np.uint8], nearest: bool = False) -> NDArray[np.uint8]:
        """The class of each color [..., 3], of which there are some: UNKNOWN for one that is none, or the nearest."""
        if nearest:
            best, rows = np.full(colors.shape[:-1], 2**31 - 1), np.zeros(colors.shape[:-1], dtype=np.int64)
            for row, color in enumerate(self.colors):
                distance = ((colors.astype(np.int32) - np.array(color, dtype=np.int32)) ** 2).sum(-1)
                rows[distance < best] = row
                best = np.minimum(best, distance)
            return self.targets[rows]
        keys, targets = self._by_color
        packed = pack(colors)
        at = np.searchsorted(keys, packed).clip(max=len(keys) - 1)
        return np.where(keys[at] == packed, targets[at], np.uint8(UNKNOWN))


def read_label_map(file: Path, ignore: int | None = None, lossy: bool = False) -> LabelMap:
    """Read a classes file: a class a line, by its name, by its name and its value, or by its name and its RGB color.

    A number behind every name is its value in gray and palette masks, unless names would then be there twice (class 0,
    class 1, ...).

    Args:
        ignore: value in the masks that is void; a class of this value becomes void.
        lossy: as for `LabelMap`.

    Raises:
        DataError: the file is missing or malformed, or can be understood in two ways.
        ConfigError: `ignore` is not 0 to 255, or classes lie too near for `lossy`.
    """
    if ignore is not None and not 0 <= ignore <= 255:
        raise ConfigError(f"data.options.ignore must be 0 to 255, a value in the masks, got {ignore}.")
    lines = _lines(file)
    colored = [_NAME_AND_COLOR.fullmatch(line) is not None for line in lines]
    valued = not any(colored) and _hold_values(lines)
    rows: dict[str, tuple[int, ...]] = {}
    for number, line in enumerate(lines, 1):
        where = f"Line {number} of {file}"
        if not line:
            raise DataError(f"{where} is empty; every line is a class, and the first is index 0.")
        if colored[number - 1] != colored[0]:
            raise DataError(f"{where}, '{line}': either all classes have a color (three numbers) or none has.")
        match = _NAME_AND_COLOR.fullmatch(line) or (_NAME_AND_VALUE.fullmatch(line) if valued else None)
        name = match[1].rstrip(",;") if match else line
        marks = tuple(int(mark) for mark in match.groups()[1:]) if match else ()
        kind = "color" if len(marks) == 3 else "value"
        if max(marks, default=0) > 255:
            raise DataError(f"{where}, '{line}': colors are three numbers of 0 to 255.")
        if marks and marks in rows.values():
            other = next(name for name, taken in rows.items() if taken == marks)
            raise DataError(f"{where}, '{line}': this {kind} is that of '{other}'.")
        if name in rows:
            raise DataError(f"{where}: class '{name}' is there twice.")
        rows[name] = marks
    label_map = LabelMap(
        tuple(rows),
        tuple((marks[0], marks[1], marks[2]) for marks in rows.values() if len(marks) == 3),
        frozenset(),
        ignore,
        os.fspath(file),
        tuple(marks[0] for marks in rows.values() if len(marks) == 1),
        lossy,
    )
    return _checked(label_map)


def of_numbers(numbers: Mapping[str, int], file: Path, ignore: int | None = None) -> LabelMap:
    """The label map of classes whose numbers a file gives. Raises as `read_label_map`."""
    wrong = {name: number for name, number in numbers.items() if not 0 <= number <= 255}
    if wrong or len({*numbers.values()}) < len(numbers):
        raise DataError(f"{file}: labels are numbers of 0 to 255, each of one class, got {dict(wrong or numbers)}.")
    rows = sorted(numbers, key=lambda name: numbers[name])
    given = tuple(numbers[name] for name in rows)
    return _checked(LabelMap(tuple(rows), (), frozenset(), ignore, os.fspath(file), given))


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in read_lines(file)]
    except OSError as error:
        reason = why_unread(error)
        raise DataError(
            f"Classes file {file} cannot be read: {reason}. Expected one class a line: its name, name and value "
            "(lesion 255), or name and color (road 128 64 128). Set data.options.classes to another file."
        ) from None


def _hold_values(lines: Sequence[str]) -> bool:
    """Whether the number at the end of every line is a value and no part of the name."""
    matches = [match for line in lines if (match := _NAME_AND_VALUE.fullmatch(line))]
    names = {match[1].rstrip(",;") for match in matches}
    return len(names) == len(lines) > 0 and all(int(match[2]) <= 255 for match in matches)


def _checked(every: LabelMap) -> LabelMap:
    """The label map with its void rows marked. Raises DataError or ConfigError for what cannot be."""
    names, file = every.names, every.file
    void = frozenset(
        row for row in range(len(names)) if names[row].lower() in VOID_NAMES or every.values[row] == every.ignore
    )
    if not 0 < len(names) - len(void) <= UNKNOWN or len(names) > 256:
        raise DataError(f"{file} names {len(names) - len(void)} classes besides void; expected 1 to {UNKNOWN}.")
    label_map = replace(every, void=void)
    if not (every.given or every.colors) and all(name.isdecimal() for name in label_map.classes):
        odd = next((row for row, name in enumerate(names) if name.isdecimal() and int(name) != row), None)
        if odd is not None:
            raise DataError(
                f"Line {odd + 1} of {file} is the class '{names[odd]}', and its index is {odd}: either may be what "
                f"masks hold. Write the value behind every name: '{names[odd]} {names[odd]}' or '{names[odd]} {odd}'."
            )
    if every.lossy:
        _check_apart(label_map)
    return label_map


def _check_apart(label_map: LabelMap) -> None:
    """Raises ConfigError where two classes are too much alike to take what lies between them for either."""
    marks = np.array(label_map.colors or [[value] * 3 for value in label_map.values], dtype=np.float64)
    apart = np.sqrt(((marks[:, None] - marks[None]) ** 2).mean(2)) + np.eye(len(marks)) * 1000
    one, other = (int(row) for row in np.unravel_index(apart.argmin(), apart.shape))
    if apart[one, other] < _NEAREST:
        shown = [
            f"'{label_map.names[row]}' ({' '.join(str(int(mark)) for mark in marks[row])})" for row in (one, other)
        ]
        values = (
            "" if label_map.given or label_map.colors else " If masks hold other values, write them behind the names."
        )
        raise ConfigError(
            f"data.options.lossy takes the nearest class, and {' and '.join(shown)} of {label_map.file} are too near "
            f"for that: make the masks anew, without loss (PNG).{values}"
        )


def pack(colors: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Colors [..., 3] as one number each."""
    wide = colors.astype(np.int32)
    packed: NDArray[np.int32] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return packed
