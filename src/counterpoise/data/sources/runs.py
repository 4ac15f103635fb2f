"""Objects as lengths of runs: how many pixels are off, on, off, ..., down the first column, then the next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterpoise.data.sources.outlines import Ring, Runs, centers_inside
from counterpoise.system.documents import parse_json

_LENGTHS = "lengths"
_WIDEST = 40  # bits of a length in COCO's letters


def of_lengths(lengths: NDArray[np.int64], height: int, width: int) -> Runs:
    """Runs that fill a picture."""
    assert int(lengths.sum()) == height * width
    return {"size": [height, width], _LENGTHS: lengths.astype("<u4").tobytes()}


def of_pixels(pixels: NDArray[np.bool_]) -> Runs:
    """Runs of a mask, bool [H, W]."""
    flat = pixels.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    ends = np.concatenate(([0] if flat[:1].any() else [], changes, [flat.size])).astype(np.int64)
    return of_lengths(np.diff(ends, prepend=0), *pixels.shape)


def fill(rings: Sequence[Ring], runs: Runs | None, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels of runs, or those whose center is inside rings: bool [H, W]."""
    if runs is None:
        return centers_inside(rings, None, height, width)
    lengths = np.frombuffer(runs[_LENGTHS], dtype="<u4")
    on = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.ascontiguousarray(on.reshape(width, height).T)


def of_pairs(text: str, height: int, width: int, first: int, by_rows: bool) -> Runs:
    """Runs of a text START LENGTH START LENGTH ..., as Kaggle has them.

    Args:
        first: the number of the first pixel, 0 or 1.
        by_rows: whether pixels are counted along the first row, then the next; else down columns.

    Raises:
        ValueError: it is none, or leads out of the picture; its text says how.
    """
    try:
        numbers = np.array(text.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        odd = next((word for word in text.split() if not word.isdecimal()), text)
        raise ValueError(f"'{odd[:40]}' is no number; expected START LENGTH START LENGTH ...") from None
    if not len(numbers) or len(numbers) % 2:
        raise ValueError(f"{len(numbers)} numbers are no pairs; expected START LENGTH START LENGTH ...")
    starts, lengths = numbers[::2] - first, numbers[1::2]
    if starts.min() < 0 or lengths.min() < 1:
        what = f"a start of {starts.min() + first}" if starts.min() < 0 else f"a length of {lengths.min()}"
        raise ValueError(f"{what}, where the first pixel is {first} and a run has one pixel at least")
    every = height * width
    beyond = np.flatnonzero((starts >= every) | (lengths > every - np.minimum(starts, every)))
    if len(beyond):
        last = int(starts[beyond[0]]) + int(lengths[beyond[0]]) + first - 1
        raise ValueError(
            f"they lead to pixel {last:,}, and a picture of {width} x {height} has {every:,}, {first} to "
            f"{every + first - 1:,}"
        )
    ends = starts + lengths
    if (starts[1:] < ends[:-1]).any():
        at = int(np.flatnonzero(starts[1:] < ends[:-1])[0]) + 1
        raise ValueError(
            f"run {at + 1} starts at {starts[at] + first}, before the end of the one before it: starts are places in "
            "the picture that rise, not steps from the last run"
        )
    edges = np.stack([starts, ends], 1).ravel()
    runs = of_lengths(np.diff(np.concatenate(([0], edges, [every]))), height, width)
    if not by_rows:
        return runs
    return of_pixels(fill((), of_lengths(_lengths(runs), width, height), width, height).T)


def of_coco(value: Any, height: int, width: int) -> Runs:
    """Runs as COCO has them, size and counts (a list or letters), or that as JSON. Raises ValueError as above."""
    value = _parsed(value)
    if not isinstance(value, Mapping) or not {"size", "counts"} <= value.keys():
        raise ValueError("expected an object with size and counts")
    if list(value["size"]) != [height, width] if isinstance(value["size"], list | tuple) else True:
        raise ValueError(f"its size is {value['size']!r:.40}, and the picture's [{height}, {width}]")
    counts = value["counts"]
    lengths = counts if isinstance(counts, list) else letters(str(counts))
    whole = all(isinstance(length, int) and not isinstance(length, bool) and length >= 0 for length in lengths)
    if not whole or sum(lengths) != math.prod((height, width)):
        raise ValueError(f"its counts do not fill a picture of {width} x {height} pixels")
    return of_lengths(np.array(lengths, dtype=np.int64), height, width)


def size_of(value: Any) -> tuple[int, int] | None:
    """Height and width that runs of COCO's are for; None where it is no such thing."""
    if not (isinstance(value, Mapping) or str(value).lstrip().startswith("{")):
        return None
    try:
        height, width = _parsed(value)["size"]
    except (TypeError, KeyError, ValueError):
        return None
    sides = all(type(side) is int and side > 0 for side in (height, width))
    return (height, width) if sides else None


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError:
        raise ValueError('it is no JSON; expected {"size": [HEIGHT, WIDTH], "counts": ...}') from None


def letters(counts: str) -> list[int]:
    """The lengths that a text of runs stands for: 5 bits a letter, each from the third on less the last but one.

    Nothing where it stands for none.
    """
    found: list[int] = []
    length = shift = 0
    for letter in counts.encode():
        bits = letter - 48
        length |= (bits & 31) << shift
        shift += 5
        if shift > _WIDEST or not 0 <= bits < 64:
            return []
        if bits & 32:
            continue
        length -= (bits & 16) << (shift - 4)  # its sign
        found.append(length + (found[-2] if len(found) > 2 else 0))
        length = shift = 0
    return found if min(found, default=0) >= 0 else []


def _lengths(runs: Runs) -> NDArray[np.int64]:
    return np.frombuffer(runs[_LENGTHS], dtype="<u4").astype(np.int64)
