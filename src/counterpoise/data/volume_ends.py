"""Which values of a whole volume become black and white: of all its slices together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterpoise.reading import LARGEST_VALUE, Ends, Intensity, Unreadable, ends, ends_of_counts

_SPAN = 2**20
"""Whole numbers from -2^20 on and below 2^20 are counted, and take no memory beyond one slice."""
Plane = Callable[[int], NDArray[Any]]
"""The values of a slice, [H, W, channels], by its place."""


def ends_of(plane: Plane, depth: int, channels: int, intensity: Intensity) -> list[Ends]:
    """Of each channel of a volume of so many slices. Raises Unreadable where values are no finite numbers."""
    counts = np.zeros((channels, 2 * _SPAN), np.int64)
    for place in range(depth):
        values = plane(place)
        if not _whole(values):
            return _of_floats(plane, depth, channels, intensity)
        for channel in range(channels):
            numbers = values[..., channel].astype(np.int64)
            least = int(numbers.min())
            found = np.bincount((numbers - least).ravel())
            counts[channel, _SPAN + least : _SPAN + least + len(found)] += found
    levels = np.arange(-_SPAN, _SPAN, dtype=np.float64)
    return [ends_of_counts(levels, each, intensity) for each in counts]


def _whole(values: NDArray[Any]) -> bool:
    with np.errstate(invalid="ignore"):
        within = (values >= -_SPAN) & (values < _SPAN)
        return bool((within & (values == np.floor(values))).all())


def _of_floats(plane: Plane, depth: int, channels: int, intensity: Intensity) -> list[Ends]:
    found = []
    for channel in range(channels):
        values = np.stack([plane(place)[..., channel] for place in range(depth)]).astype(np.float64)
        if not (np.abs(values) <= LARGEST_VALUE).all():
            raise Unreadable("it holds values that are no finite numbers (NaN, infinity, or beyond 1e300)")
        found.append(ends(values, intensity))
    return found
