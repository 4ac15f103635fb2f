"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719) for a batch in which every image has operations of its own.

Operations, strengths and signs are those of torchvision's RandAugment. What torchvision computes in float and then cuts
off to 8 bits (color, contrast, sharpness) is done in integers here: its last bit depends on the order of a sum and on
fused multiplication, and so on how images were batched, on the number of threads and on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.system import torchvision_guard

GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
LOOKUP = ("brightness", "posterize", "solarize")
BLEND = ("color", "contrast", "sharpness")
OPERATIONS = ("identity", *GEOMETRY, *LOOKUP, *BLEND, "auto_contrast", "equalize")
STRONGEST = 30

_ONE = 1 << 16  # fixed point


def apply(images: Tensor, operations: Tensor, negative: Tensor, magnitude: int) -> Tensor:
    """Apply to each image its own operations, one after the other.

    Args:
        images: uint8 [N, 3, H, W] on any device.
        operations: int64 [N, K] on the CPU, positions in OPERATIONS.
        negative: bool [N, K] on the CPU, whether operations that have a direction go the other way.
        magnitude: strength of all, 0 to 30.

    Returns:
        uint8 [N, 3, H, W], the same bits for any batch, number of threads and device.
    """
    for kinds, signs in zip(operations.unbind(1), negative.unbind(1), strict=True):
        output = images.clone()
        for names, change in _GROUPS.items():
            first = OPERATIONS.index(names[0])
            rows = torch.nonzero((kinds >= first) & (kinds < first + len(names))).flatten()
            if len(rows):
                there = rows.to(images.device)
                changed = change(images.index_select(0, there), kinds[rows] - first, signs[rows], magnitude)
                output.index_copy_(0, there, changed)
        images = output
    return images


def _move(images: Tensor, kinds: Tensor, signs: Tensor, magnitude: int) -> Tensor:
    height, width = images.shape[2:]
    sources = _sources(magnitude, height, width, images.device)[(2 * kinds + signs).to(images.device)]
    outside_first = F.pad(images.flatten(2), (1, 0))
    return outside_first.gather(2, sources.unsqueeze(1).expand(-1, 3, -1)).view_as(images)


@lru_cache(maxsize=8)
def _sources(magnitude: int, height: int, width: int, device: torch.device) -> Tensor:
    """Where each pixel comes from: int64 [10, H * W], a row for each operation and sign; 0 is outside, 1 the first.

    torchvision moves an image of pixel numbers, so that coordinates are rounded once, whatever batch or device follows.
    """
    functional = torchvision_guard.functional()
    share = magnitude / STRONGEST
    shear = float(torch.rad2deg(torch.atan(torch.tensor(0.3 * share, dtype=torch.float64))))
    across, down = int(150 / 331 * width * share), int(150 / 331 * height * share)
    numbers = torch.arange(1, height * width + 1, dtype=torch.float32).view(1, height, width)
    rows = []
    for sign in (1, -1):
        rows += [
            functional.affine(numbers, 0.0, [0, 0], 1.0, [sign * shear, 0.0], center=[0, 0]),
            functional.affine(numbers, 0.0, [0, 0], 1.0, [0.0, sign * shear], center=[0, 0]),
            functional.affine(numbers, 0.0, [sign * across, 0], 1.0, [0.0, 0.0]),
            functional.affine(numbers, 0.0, [0, sign * down], 1.0, [0.0, 0.0]),
            functional.rotate(numbers, sign * 30.0 * share),
        ]
    by_sign = torch.stack(rows).to(torch.int64).view(2, len(GEOMETRY), height * width)
    return by_sign.transpose(0, 1).flatten(0, 1).to(device)


def _look_up(images: Tensor, kinds: Tensor, signs: Tensor, magnitude: int) -> Tensor:
    table = _levels(magnitude, images.device)[(2 * kinds + signs).to(images.device)]
    return table.gather(1, images.flatten(1).to(torch.int64)).view_as(images)


@lru_cache(maxsize=8)
def _levels(magnitude: int, device: torch.device) -> Tensor:
    """What each of the 256 levels becomes: uint8 [6, 256], a row for each operation of LOOKUP and sign."""
    functional = torchvision_guard.functional()
    share = magnitude / STRONGEST
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 256)
    posterized = functional.posterize(levels, bits=round(8 - 4 * share))
    solarized = functional.solarize(levels, threshold=255 * (STRONGEST - magnitude) / STRONGEST)
    brightness = [functional.adjust_brightness(levels, 1 + sign * 0.9 * share) for sign in (1, -1)]
    return torch.cat([*brightness, posterized, posterized, solarized, solarized]).view(6, 256).to(device)


def _blend(images: Tensor, signs: Tensor, magnitude: int, other: Callable[[Tensor], Tensor]) -> Tensor:
    """Move away from what `other` makes of the image, or where negative towards it."""
    pixels = images.to(torch.int32)
    change = round(0.9 * magnitude / STRONGEST * _ONE)
    factor = torch.where(signs, _ONE - change, _ONE + change).to(images.device, torch.int32).view(-1, 1, 1, 1)
    blended = other(pixels) * (_ONE - factor) + pixels.mul_(factor)
    return blended.bitwise_right_shift_(16).clamp_(0, 255).to(torch.uint8)


def gray(pixels: Tensor) -> Tensor:
    """Luma (ITU-R 601-2) as Pillow rounds it: int32 [N, 3, H, W] -> [N, 1, H, W]."""
    red, green, blue = pixels.unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).unsqueeze(1)


def mean_gray(pixels: Tensor) -> Tensor:
    """The mean gray, rounded: int32 [N, 1, 1, 1]."""
    count = pixels.shape[2] * pixels.shape[3]
    total = gray(pixels).sum((1, 2, 3), keepdim=True, dtype=torch.int64)
    return torch.div(2 * total + count, 2 * count, rounding_mode="floor").to(torch.int32)


def _smooth(pixels: Tensor) -> Tensor:
    """The mean of each pixel, of weight 5, and its eight neighbors; the border stays."""
    smooth = pixels.clone()
    if min(pixels.shape[2:]) > 2:
        inner = 4 * pixels[..., 1:-1, 1:-1]
        rows = pixels[..., :-2, :] + pixels[..., 1:-1, :] + pixels[..., 2:, :]
        inner += rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
        # 5042 / 65536 divides sums of 13 bytes by 13 exactly; division itself takes three times as long.
        smooth[..., 1:-1, 1:-1] = inner.add_(6).mul_(5042).bitwise_right_shift_(16)
    return smooth


def _blends(other: Callable[[Tensor], Tensor]) -> _Change:
    return lambda images, kinds, signs, magnitude: _blend(images, signs, magnitude, other)


def _plain(name: str) -> _Change:
    return lambda images, kinds, signs, magnitude: getattr(torchvision_guard.functional(), name)(images)


_Change: TypeAlias = Callable[[Tensor, Tensor, Tensor, int], Tensor]
_GROUPS: dict[tuple[str, ...], _Change] = {
    GEOMETRY: _move,
    LOOKUP: _look_up,
    ("color",): _blends(gray),
    ("contrast",): _blends(mean_gray),
    ("sharpness",): _blends(_smooth),
    ("auto_contrast",): _plain("autocontrast"),
    ("equalize",): _plain("equalize"),
}
