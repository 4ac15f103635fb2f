"""A window that slides over scenes, by numpy and Pillow: what the run.py beside an export does of pictures of any size.

The same as tasks/sliding.py with the student itself. The functions go into run.py as they stand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from counterpoise.decoding import cut, extent_of


def begins(length: int, window: int, stride: int) -> list[int]:
    """Where windows along a side begin; the last one ends with it."""
    return [*range(0, length - window, stride), length - window]


def weight_of(window: Any, blend: str) -> Any:
    """How much each pixel of a window (height, width) counts, float32 [h, w]; None: all alike."""
    if blend == "mean":
        return None
    sides = []
    for edge in window:
        place = np.arange(edge) + 0.5
        if blend == "linear":
            sides.append(np.minimum(place, edge - place) / (edge / 2))
        else:
            sides.append(np.exp(-((place - edge / 2) ** 2) / (2 * (edge / 8) ** 2)))
    return np.maximum(np.outer(*sides), 1e-3).astype(np.float32)


def through_window(picture: Any, place: Any, about: Any, run: Any) -> Any:
    """Logits [C, h, w] of the part of a picture at top, left, height and width, which is the window or less of it."""
    top, left, height, width = place
    size = tuple(about["size"])
    if isinstance(picture, np.ndarray):
        pixels = picture[top : top + height, left : left + width]
    else:
        pixels = np.asarray(picture.crop((left, top, left + width, top + height)))
    if (height, width) != size:
        board = np.empty((*size, pixels.shape[2]), np.uint8)
        board[:] = about["around"]
        board[:height, :width] = pixels
        pixels = board
    pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
    logits = run(np.repeat(pixels, about["batch"] or 1, 0))[0]
    if (height, width) != size:
        logits = cut(logits, (height, width), size)
    if logits.shape[1:] == (height, width):
        return logits
    layers = (np.ascontiguousarray(layer, np.float32) for layer in logits)
    return np.stack(
        [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BILINEAR)) for one in layers]
    )


def slid(picture: Any, about: Any, run: Any, most: int = 2**24) -> Any:
    """Logits for every pixel, piece by piece: the top and left of each, and float32 [C, h, w].

    most: values that are held for a row of windows; what is wider comes in strips, and windows between two of them are
    asked about in both.
    """
    extent, moves = extent_of(picture), about["window"]["stride"]
    high, wide = (min(edge, side) for edge, side in zip(about["size"], extent, strict=True))
    tops, lefts = begins(extent[0], high, moves[0]), begins(extent[1], wide, moves[1])
    weight = weight_of((high, wide), about["window"]["blend"])
    first = through_window(picture, (0, 0, high, wide), about, run)
    strip = max(wide, most // (len(first) * high))
    for left in range(0, extent[1], strip):
        right = min(left + strip, extent[1])
        total = np.zeros((len(first), high, right - left), np.float32)
        seen = np.zeros((high, right - left), np.float32)
        for top, done in zip(tops, [*tops[1:], extent[0]], strict=True):
            for start in lefts:
                begin, end = max(start, left), min(start + wide, right)
                if begin >= end:
                    continue
                logits = through_window(picture, (top, start, high, wide), about, run)
                inner, here = slice(begin - start, end - start), slice(begin - left, end - left)
                total[:, :, here] += logits[..., inner] if weight is None else (logits * weight)[..., inner]
                seen[:, here] += 1 if weight is None else weight[:, inner]
            yield top, left, total[:, : done - top] / seen[: done - top]
            for layer in (*total, seen):  # what is done makes room
                layer[: high - (done - top)] = layer[done - top :].copy()
                layer[high - (done - top) :] = 0
