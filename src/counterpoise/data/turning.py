"""Pictures turned about their middle, each by an angle of its own, and pixels taken from between others, in integers.

Bits depend neither on the number of threads nor on how pictures are batched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from counterpoise.data import random

ONE = 1 << 16
"""A pixel, in fixed point."""


def angles(seed: int, epoch: int, indices: Tensor, most: float) -> list[float]:
    """Degrees from [-most, most], evenly, of samples int64 [n] on the CPU."""
    words = random.words(seed, epoch, indices, random.ROTATE, 1)[:, 0].tolist()
    return [most * (2 * (word >> 8) * 2.0**-24 - 1) for word in words]


def directions(degrees: Iterable[float]) -> Tensor:
    """Cosine and sine of each angle, in 65536ths: int64 [n, 2]."""
    radians = [math.radians(angle) for angle in degrees]
    return torch.tensor([[round(math.cos(r) * ONE), round(math.sin(r) * ONE)] for r in radians]).view(-1, 2)


def sources(turns: Tensor, height: int, width: int) -> Tensor:
    """Where the pixels come from of pictures that are turned against the clock by `directions` int64 [n, 2].

    int64 [2, n, height, width], row and column in 65536ths; a pixel's own number is its middle.
    """
    cos, sin = (value.view(-1, 1, 1) for value in turns.unbind(1))
    down = (2 * torch.arange(height, device=turns.device) - (height - 1)).unsqueeze(1)  # in halves of a pixel
    across = (2 * torch.arange(width, device=turns.device) - (width - 1)).unsqueeze(0)
    rows = (sin * across + cos * down + (height - 1) * ONE) >> 1
    columns = (cos * across - sin * down + (width - 1) * ONE) >> 1
    return torch.stack((rows, columns))


def between(images: Tensor, found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels from between four others, by their distance.

    Args:
        images: uint8 [n, C, H, W].
        found: int64 [2, n, height, width], row and column of each pixel in 65536ths.

    Returns:
        uint8 [n, C, height, width], black beyond the images; int64 [n, height * width], the place of the nearest pixel
        among the H * W; bool [n, height, width], where that is one of the image.
    """
    n, channels, height, width = images.shape
    edges = height, width
    nearest = [(one + ONE // 2) >> 16 for one in found]
    inside = torch.stack([(one >= 0) & (one < edge) for one, edge in zip(nearest, edges, strict=True)]).all(0)
    # Half a pixel from the border there is but the pixel at the border.
    clamped = [one.clamp(0, (edge - 1) * ONE) for one, edge in zip(found, edges, strict=True)]
    whole = [one >> 16 for one in clamped]
    after = [(one + 1).clamp(max=edge - 1) for one, edge in zip(whole, edges, strict=True)]
    share = [((one & (ONE - 1)) >> 8).to(torch.int32).unsqueeze(1) for one in clamped]
    pixels, size = images.flatten(2), found.shape[2:]

    def at(rows: Tensor, columns: Tensor) -> Tensor:
        places = (rows * width + columns).view(n, 1, -1).expand(-1, channels, -1)
        return pixels.gather(2, places).to(torch.int32).view(n, channels, *size)

    def along(rows: Tensor) -> Tensor:
        return at(rows, whole[1]).mul_(256 - share[1]).add_(at(rows, after[1]).mul_(share[1]))

    blended = along(whole[0]).mul_(256 - share[0]).add_(along(after[0]).mul_(share[0]))
    view = blended.add_(1 << 15).bitwise_right_shift_(16).to(torch.uint8).mul_(inside.unsqueeze(1))
    there = [one.clamp(0, edge - 1) for one, edge in zip(nearest, edges, strict=True)]
    return view, (there[0] * width + there[1]).flatten(1), inside


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Images uint8 [n, C, H, W] turned against the clock by `directions` int64 [n, 2], black beyond themselves."""
    return between(images, sources(turns, images.shape[2], images.shape[3]))[0]
