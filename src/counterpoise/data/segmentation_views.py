"""Augmentation of an image together with its mask, as a pure function of both and (seed, epoch, sample index).

A view is a window of the scene at a random scale, mirrored, its colors varied. The window is chosen in the pixels of
the scene and only what lies in it is resized, so that a view costs what its own size costs, not that of an enlarged
scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from counterpoise.data import randaugment, random
from counterpoise.data.images import resize
from counterpoise.data.sources.base import IGNORE
from counterpoise.data.views import as_json
from counterpoise.errors import DataError
from counterpoise.system import torchvision_guard

_ONE = 1 << 16  # fixed point


@dataclass(frozen=True)
class ScenePlan:
    """Everything that determines the views of a set of scenes.

    Attributes:
        count: images in the set, which the order of an epoch depends on.
        height, width: of a view.
        scale: smallest and largest enlargement of a scene, drawn uniformly; (1, 1) leaves its size.
        flip: whether half of the views are mirrored.
        jitter: brightness, contrast and saturation are each multiplied by a factor from [1 - jitter, 1 + jitter]; 0 is
            off.
    """

    seed: int
    count: int
    height: int
    width: int
    scale: tuple[float, float]
    flip: bool
    jitter: float


class Draw(NamedTuple):
    """What was drawn for one sample.

    Attributes:
        scale: enlargement.
        place: two 32-bit words, where the window lies from top to bottom and from left to right.
        flip: whether mirrored.
        factors: of brightness, contrast and saturation, in 65536ths.
    """

    scale: float
    place: tuple[int, int]
    flip: bool
    factors: tuple[int, int, int]


def scene_specification(plan: ScenePlan) -> dict[str, Any]:
    """What determines the views, as JSON holds it: recorded answers of a teacher fit where this is equal."""
    return {"format": 1, "kind": "scenes", "generator": "philox4x32-10", **as_json(plan)}


def draw(plan: ScenePlan, epoch: int, indices: Tensor) -> list[Draw]:
    """Draw for `render`, all samples at once; indices int64 [n] on the CPU."""

    def words(stream: int, count: int) -> list[list[int]]:
        found: list[list[int]] = random.words(plan.seed, epoch, indices, stream, count).tolist()
        return found

    n = len(indices)
    low, high = plan.scale
    scales = words(random.SCALE, 1) if low < high else [[0]] * n
    places = words(random.CROP, 2)
    flips = words(random.FLIP, 1) if plan.flip else [[0]] * n
    # The middle of the words is the factor 1.
    colors = words(random.JITTER, 3) if plan.jitter else [[1 << 31] * 3] * n
    strength = round(plan.jitter * _ONE)
    draws = []
    for (scale,), (down, across), (flip,), three in zip(scales, places, flips, colors, strict=True):
        brightness, contrast, saturation = (_ONE - strength + (word * (2 * strength + 1) >> 32) for word in three)
        share = (scale >> 8) * 2.0**-24
        chosen = low + share * (high - low)
        draws.append(Draw(chosen, (down, across), bool(flip >> 31), (brightness, contrast, saturation)))
    return draws


def render(plan: ScenePlan, image: Tensor, mask: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Make a view. Beyond the border of the scene the image is black and the mask void.

    The image is resized bilinearly with antialiasing, the mask to the nearest pixel. A scene that is smaller than the
    window lies anywhere within it.

    Args:
        image: uint8 [3, H, W].
        mask: uint8 [H, W].

    Returns:
        uint8 [3, height, width]; uint8 [height, width].

    Raises:
        DataError: the mask is not as large as the image.
    """
    if mask.shape != image.shape[1:]:
        sizes = [f"{width} x {height}" for height, width in (mask.shape, image.shape[1:])]
        raise DataError(f"The mask is {sizes[0]} pixels and its image {sizes[1]}.")
    rows = _span(image.shape[1], plan.height, draw.scale, draw.place[0])
    columns = _span(image.shape[2], plan.width, draw.scale, draw.place[1])
    pixels = torch.zeros(3, plan.height, plan.width, dtype=torch.uint8)
    classes = torch.full((plan.height, plan.width), IGNORE, dtype=torch.uint8)
    pixels[:, rows.to, columns.to] = _jitter(_resize(image[:, rows.of, columns.of], rows, columns, smooth=True), draw)
    classes[rows.to, columns.to] = _resize(mask[None, rows.of, columns.of], rows, columns, smooth=False)[0]
    if draw.flip:
        pixels, classes = pixels.flip(2), classes.flip(1)
    return pixels, classes


def shrink(image: Tensor, reduction: float) -> Tensor:
    """An image uint8 [3, H, W] as many times smaller along either side, at least a pixel; bilinear, antialiased."""
    if reduction == 1:
        return image
    height, width = (max(1, round(side / reduction)) for side in image.shape[1:])
    return resize(image, (height, width))


class _Span(NamedTuple):
    """Along one side: the part of the scene that a view shows, and where in the view it lies."""

    of: slice
    to: slice

    @property
    def length(self) -> int:
        return int(self.to.stop - self.to.start)


def _span(scene: int, view: int, scale: float, word: int) -> _Span:
    window = max(1, round(view / scale))
    first, last = sorted((0, scene - window))
    start = first + (word * (last - first + 1) >> 32)
    inside = max(start, 0), min(start + window, scene)
    begin, end = (round((edge - start) * view / window) for edge in inside)
    if begin == end:  # a scene of less than a pixel
        begin = min(begin, view - 1)
        end = begin + 1
    return _Span(slice(*inside), slice(begin, end))


def _resize(pixels: Tensor, rows: _Span, columns: _Span, *, smooth: bool) -> Tensor:
    if pixels.shape[1:] == (rows.length, columns.length):
        return pixels
    if rows.length == columns.length == 1:  # a corner; torch fails an assertion of its own at resizing to one pixel
        return pixels[:, pixels.shape[1] // 2, pixels.shape[2] // 2].view(-1, 1, 1)
    functional = torchvision_guard.functional()
    mode = functional.InterpolationMode.BILINEAR if smooth else functional.InterpolationMode.NEAREST_EXACT
    size = [rows.length, columns.length]
    resized: Tensor = functional.resize(pixels, size, interpolation=mode, antialias=smooth)
    return resized


def _jitter(image: Tensor, draw: Draw) -> Tensor:
    """Vary brightness, contrast and saturation, in this order, as torchvision does but in integers.

    Its floating point mean depends on the number of threads, which differs between workers and the main process.
    """
    brightness, contrast, saturation = draw.factors
    if draw.factors == (_ONE, _ONE, _ONE):
        return image
    pixels = _blend(image.to(torch.int32).unsqueeze(0), 0, brightness)
    _blend(pixels, randaugment.mean_gray(pixels), contrast)
    _blend(pixels, randaugment.gray(pixels), saturation)
    return pixels[0].to(torch.uint8)


def _blend(pixels: Tensor, other: Tensor | int, factor: int) -> Tensor:
    """`factor` (65536ths) of the pixels and the rest of `other`, in place: int32 [1, 3, H, W], within 0 to 255."""
    rest = other * (_ONE - factor) + _ONE // 2
    return pixels.mul_(factor).add_(rest).bitwise_right_shift_(16).clamp_(0, 255)
