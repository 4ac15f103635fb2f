"""Scenes that are turned and bent, image and mask alike: where each pixel of a view comes from, and what lies there.

Everything is integers in fixed point: bits depend neither on the number of threads nor on how views are batched.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.data import random, turning
from counterpoise.data.sources.base import IGNORE
from counterpoise.data.turning import ONE

_SHARE = 1 << 12  # of a weight of the spline
MOST_POINTS = 2 * 65536
"""Of a grid: more than so many have no words."""


class Warp(NamedTuple):
    """How a view is turned and bent.

    Attributes:
        degrees: by which it is turned about its middle, against the clock.
        moves: int64 [2, rows, columns], down and to the right, of the points of a grid, in 65536ths of a pixel.
        spacing: pixels between two points of the grid.
    """

    degrees: float = 0.0
    moves: Tensor | None = None
    spacing: int = 1

    @property
    def farthest(self) -> int:
        """Pixels by which a point of the grid moves at most, rounded up."""
        return 0 if self.moves is None else -(-int(self.moves.abs().max()) // ONE)


def points(height: int, width: int, spacing: int) -> tuple[int, int]:
    """Rows and columns of the grid that bends a view: one point beyond each side, and the spline reaches for two."""
    rows, columns = ((edge - 1) // spacing + 4 for edge in (height, width))
    return rows, columns


def draw(
    seed: int,
    epoch: int,
    indices: Tensor,
    view: tuple[int, int],
    *,
    rotate: float,
    elastic: tuple[float, int] | None,
) -> list[Warp | None]:
    """Draw for samples int64 [n] on the CPU; None where a view is neither turned nor bent.

    Args:
        view: its height and width.
        rotate: degrees, from [-rotate, rotate].
        elastic: pixels by which a point of the grid moves, from [-strength, strength] in either direction, and pixels
            between two points.
    """
    n = len(indices)
    degrees, moves, spacing = [0.0] * n, [None] * n, 1
    if rotate:
        degrees = turning.angles(seed, epoch, indices, rotate)
    if elastic is not None:
        strength, spacing = round(elastic[0] * ONE), elastic[1]
        rows, columns = points(*view, spacing)
        words = random.words(seed, epoch, indices, random.ELASTIC, 2 * rows * columns)
        moves = [*((words * (2 * strength + 1) >> 32) - strength).view(n, 2, rows, columns)]
    return [
        None if not turned and bent is None else Warp(turned, bent, spacing)
        for turned, bent in zip(degrees, moves, strict=True)
    ]


def margins(warp: Warp, height: int, width: int) -> tuple[int, int]:
    """How many pixels above or below, and left or right of a view its own may come from."""
    cos, sin = turning.directions([warp.degrees])[0].abs().tolist()
    down = (cos * height + sin * width) / ONE - height
    across = (cos * width + sin * height) / ONE - width
    more = warp.farthest + 1
    return max(0, math.ceil(down / 2)) + more, max(0, math.ceil(across / 2)) + more


def sources(warp: Warp, height: int, width: int) -> Tensor:
    """Where the pixels of a view come from: int64 [2, height, width], row and column in 65536ths, before it is warped.

    A pixel's own number is its middle.
    """
    found = turning.sources(turning.directions([warp.degrees]), height, width)[:, 0]
    return found if warp.moves is None else found + _spread(warp.moves, warp.spacing, height, width)


def shown(image: Tensor, mask: Tensor, at: tuple[int, int], found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels of a view from where they come: of the image between four pixels, of the mask the nearest.

    Args:
        image: uint8 [C, H, W], the part of a scene that is there.
        mask: uint8 [H, W].
        at: row and column of its first pixel.
        found: as `sources` gives it.

    Returns:
        uint8 [C, height, width], black beyond the part; uint8 [height, width], void there; bool [height, width],
        where the scene is.
    """
    found = found - torch.tensor(at).view(2, 1, 1) * ONE
    view, nearest, inside = turning.between(image[None], found[:, None])
    classes = mask.flatten()[nearest[0]].view(found.shape[1:])
    return view[0], classes.masked_fill(~inside[0], IGNORE), inside[0]


def _spread(moves: Tensor, spacing: int, height: int, width: int) -> Tensor:
    """The moves of all pixels, by a cubic B-spline: none is larger than the largest of a point.

    Uniform moves of points that a smooth kernel spreads: Simard, Steinkraus, Platt 2003.
    """
    down, across = _weights(height, spacing), _weights(width, spacing)
    return (down @ moves @ across.T + (_SHARE * _SHARE >> 1)) >> 24


@lru_cache(maxsize=16)
def _weights(edge: int, spacing: int) -> Tensor:
    """What each point of a grid counts for each pixel of an edge: int64 [edge, points], in 4096ths."""
    pixels = torch.arange(edge)
    first, ahead = pixels // spacing, pixels % spacing
    back, cube = spacing - ahead, spacing**3
    inner = [4 * cube - 6 * spacing * one**2 + 3 * one**3 for one in (ahead, back)]
    four = _SHARE * torch.stack([back**3, *inner, ahead**3], 1) // (6 * cube)
    nearest = 1 + (ahead > back).long()
    four[pixels, nearest] += _SHARE - four.sum(1)  # what rounding down has left
    weights = torch.zeros(edge, (edge - 1) // spacing + 4, dtype=torch.int64)
    return weights.scatter_(1, first.unsqueeze(1) + torch.arange(4), four)
