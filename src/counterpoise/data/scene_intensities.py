"""Changes of a scene's intensities that its mask knows nothing of: gamma, blur and noise, in integers.

Bits depend neither on the number of threads nor on how views are batched.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from counterpoise.data import random

_ONE = 1 << 16  # fixed point
_LEVELS = 4096  # of noise, all equally frequent


class Tone(NamedTuple):
    """What was drawn for one sample.

    Attributes:
        gamma: exponent of pixels in [0, 1].
        blur: standard deviation of a Gaussian, in pixels.
        noise: standard deviation, in 256ths of one of 255 levels.
        key: four 32-bit words, from which the noise follows.
    """

    gamma: float = 1.0
    blur: float = 0.0
    noise: int = 0
    key: tuple[int, ...] = ()


AS_IT_IS = Tone()


def draw(seed: int, epoch: int, indices: Tensor, *, gamma: float, blur: float, noise: float) -> list[Tone]:
    """Draw for samples int64 [n] on the CPU.

    Args:
        gamma: the exponent is from 1 / (1 + gamma) to 1 + gamma, evenly in its logarithm.
        blur: the deviation is from 0 to this, evenly.
        noise: likewise, as a share of white.
    """

    def shares(stream: int, count: int, wanted: float) -> list[list[int]]:
        found: list[list[int]] = random.words(seed, epoch, indices, stream, count).tolist() if wanted else []
        return found or [[0] * count] * len(indices)

    tones = []
    drawn = shares(random.GAMMA, 1, gamma), shares(random.BLUR, 1, blur), shares(random.NOISE, 5, noise)
    for (power,), (wide,), (strong, *key) in zip(*drawn, strict=True):
        exponent = math.exp(math.log1p(gamma) * (2 * _share(power) - 1)) if gamma else 1.0
        deviation = round(noise * _share(strong) * 255 * 256)
        tones.append(Tone(exponent, blur * _share(wide), deviation, tuple(key) if deviation else ()))
    return tones


def toned(image: Tensor, tone: Tone) -> Tensor:
    """Gamma, then blur: uint8 [C, H, W] to the same. The border is repeated beyond itself."""
    if tone.gamma != 1.0:
        levels = [round(255 * (level / 255) ** tone.gamma) for level in range(256)]
        image = torch.tensor(levels, dtype=torch.uint8)[image.long()]
    weights = _kernel(tone.blur)
    if len(weights) == 1:
        return image
    # After the first pass six bits more are kept: 255 * 64 * 65536 is below 2^31.
    pixels = _along(image.to(torch.int32), weights, 1)
    pixels = _along(pixels.add_(1 << 9).bitwise_right_shift_(10), weights, 2)
    return pixels.add_(1 << 21).bitwise_right_shift_(22).to(torch.uint8)


def noisy(image: Tensor, tone: Tone, inside: Tensor | None = None) -> Tensor:
    """Noise of each pixel and channel of its own, normal: uint8 [C, H, W] to the same.

    By numpy's Philox4x64-10, whose raw words are the same in all its versions, from the key that was drawn.

    Args:
        inside: bool [H, W], where there is to be any; None: everywhere.
    """
    if not tone.noise:
        return image
    key = np.array([tone.key[0] << 32 | tone.key[1], tone.key[2] << 32 | tone.key[3]], dtype=np.uint64)
    count = image.numel()
    raw = np.random.Philox(key=key).random_raw(-(-count // 4)).astype("<u8").view("<u2")[:count]
    moves = _quantiles().mul(tone.noise).add_(1 << 19).bitwise_right_shift_(20)
    noise = moves[torch.from_numpy((raw >> 4).astype(np.int64))].view_as(image)
    if inside is not None:
        noise = noise * inside
    return noise.add_(image).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=1)
def _quantiles() -> Tensor:
    """Those of the standard normal distribution in the middles of so many equal parts: int32, in 4096ths."""
    normal = NormalDist()
    return torch.tensor(
        [round(4096 * normal.inv_cdf((part + 0.5) / _LEVELS)) for part in range(_LEVELS)], dtype=torch.int32
    )


def _kernel(deviation: float) -> list[int]:
    """The weights of a Gaussian out to three deviations, with a sum of 65536."""
    reach = math.ceil(3 * deviation)
    if not reach:
        return [_ONE]
    values = [math.exp(-0.5 * (place / deviation) ** 2) for place in range(-reach, reach + 1)]
    weights = [round(_ONE * value / sum(values)) for value in values]
    weights[reach] += _ONE - sum(weights)
    return weights


def _along(pixels: Tensor, weights: list[int], dim: int) -> Tensor:
    """The weighted sum of neighbors along a dimension of int32 [C, H, W]."""
    reach, length = len(weights) // 2, pixels.shape[dim]
    index = torch.arange(-reach, length + reach).clamp_(0, length - 1)
    padded = pixels.index_select(dim, index)
    total = padded.narrow(dim, reach, length) * weights[reach]
    for place in range(reach):
        pair = padded.narrow(dim, place, length) + padded.narrow(dim, 2 * reach - place, length)
        total.add_(pair, alpha=weights[place])
    return total


def _share(word: int) -> float:
    return float(word >> 8) * 2.0**-24
