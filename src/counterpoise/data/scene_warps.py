"""Scenes that are turned and bent, image and mask alike: where each pixel of a view comes from, and what lies there.

Everything is integers in fixed point: bits depend neither on the number of threads nor on how views are batched.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.data import random
from counterpoise.data.sources.base import IGNORE

_ONE = 1 << 16  # of a pixel, in fixed point
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
        return 0 if self.moves is None else -(-int(self.moves.abs().max()) // _ONE)


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
        drawn = random.words(seed, epoch, indices, random.ROTATE, 1)[:, 0].tolist()
        degrees = [rotate * (2 * (word >> 8) * 2.0**-24 - 1) for word in drawn]
    if elastic is not None:
        strength, spacing = round(elastic[0] * _ONE), elastic[1]
        rows, columns = points(*view, spacing)
        words = random.words(seed, epoch, indices, random.ELASTIC, 2 * rows * columns)
        moves = [*((words * (2 * strength + 1) >> 32) - strength).view(n, 2, rows, columns)]
    return [
        None if not turned and bent is None else Warp(turned, bent, spacing)
        for turned, bent in zip(degrees, moves, strict=True)
    ]


def margins(warp: Warp, height: int, width: int) -> tuple[int, int]:
    """How many pixels above or below, and left or right of a view its own may come from."""
    cos, sin = (abs(value) for value in _turn(warp.degrees))
    down = (cos * height + sin * width) / _ONE - height
    across = (cos * width + sin * height) / _ONE - width
    more = warp.farthest + 1
    return max(0, math.ceil(down / 2)) + more, max(0, math.ceil(across / 2)) + more


def sources(warp: Warp, height: int, width: int) -> Tensor:
    """Where the pixels of a view come from: int64 [2, height, width], row and column in 65536ths, before it is warped.

    A pixel's own number is its middle.
    """
    cos, sin = _turn(warp.degrees)
    down = (2 * torch.arange(height) - (height - 1)).unsqueeze(1)  # from the middle, in halves of a pixel
    across = (2 * torch.arange(width) - (width - 1)).unsqueeze(0)
    rows = (sin * across + cos * down + (height - 1) * _ONE) >> 1
    columns = (cos * across - sin * down + (width - 1) * _ONE) >> 1
    found = torch.stack((rows, columns))
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
    size = found.shape[1:]
    edges = torch.tensor(mask.shape).view(2, 1, 1)
    found = found - torch.tensor(at).view(2, 1, 1) * _ONE
    nearest = (found + _ONE // 2) >> 16
    inside = ((nearest >= 0) & (nearest < edges)).all(0)
    # Half a pixel from the border there is but the pixel at the border.
    clamped = torch.minimum(found.clamp(min=0), (edges - 1) * _ONE)
    whole, part = clamped >> 16, ((clamped & (_ONE - 1)) >> 8).to(torch.int32)
    after = torch.minimum(whole + 1, edges - 1)
    pixels, width = image.flatten(1), image.shape[2]

    def row(rows: Tensor) -> Tensor:
        left, right = ((rows * width + columns).flatten() for columns in (whole[1], after[1]))
        one, other = (pixels.index_select(1, index).to(torch.int32).view(-1, *size) for index in (left, right))
        return one.mul_(256 - part[1]).add_(other.mul_(part[1]))

    blended = row(whole[0]).mul_(256 - part[0]).add_(row(after[0]).mul_(part[0]))
    view = blended.add_(1 << 15).bitwise_right_shift_(16).to(torch.uint8).mul_(inside)
    there = torch.minimum(nearest.clamp(min=0), edges - 1)
    classes = mask.flatten().index_select(0, (there[0] * width + there[1]).flatten()).view(size)
    return view, classes.masked_fill(~inside, IGNORE), inside


def _turn(degrees: float) -> tuple[int, int]:
    """Cosine and sine in 65536ths."""
    angle = math.radians(degrees)
    return round(math.cos(angle) * _ONE), round(math.sin(angle) * _ONE)


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
