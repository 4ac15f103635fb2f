"""Augmentation of an image together with its mask, as a pure function of both and (seed, epoch, sample index).

A view is a window of the scene at a random scale, turned, bent and mirrored, its intensities varied. The window is
chosen in the pixels of the scene and only what lies in it is resized, so that a view costs what its own size costs, not
that of an enlarged scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data import randaugment, random, scene_intensities, scene_warps
from counterpoise.data.images import resize
from counterpoise.data.rasters import MaskParts, Raster
from counterpoise.data.sources.base import IGNORE
from counterpoise.data.views import as_json
from counterpoise.errors import ConfigError, DataError
from counterpoise.system import torchvision_guard

_ONE = 1 << 16  # fixed point
_WITHIN = 0.5 / math.sqrt(2)  # of the shorter edge: what is as far from the middle along both is in any turned view


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
        flip_vertical: whether half of the views are upside down.
        rotate: degrees by which views are turned at most, either way.
        elastic: pixels by which the points of a grid move at most, and pixels between two of them; None bends nothing.
        gamma, blur, noise: see `scene_intensities.draw`; 0 is off.
    """

    seed: int
    count: int
    height: int
    width: int
    scale: tuple[float, float]
    flip: bool
    jitter: float
    flip_vertical: bool = False
    rotate: float = 0.0
    elastic: tuple[float, int] | None = None
    gamma: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.elastic is None:
            return
        rows, columns = scene_warps.points(self.height, self.width, self.elastic[1])
        if rows * columns > scene_warps.MOST_POINTS:
            raise ConfigError(
                f"data.scenes.elastic.spacing: {self.elastic[1]} makes a grid of {rows} x {columns} points for views "
                f"of {self.width} x {self.height}; up to {scene_warps.MOST_POINTS:,} are drawn. Give a larger spacing."
            )


class Draw(NamedTuple):
    """What was drawn for one sample.

    Attributes:
        scale: enlargement.
        place: two 32-bit words, where the window lies from top to bottom and from left to right.
        flip: whether mirrored.
        factors: of brightness, contrast and saturation, in 65536ths.
        flip_vertical: whether upside down.
        warp: how it is turned and bent; None: not at all.
        tone: gamma, blur and noise.
    """

    scale: float
    place: tuple[int, int]
    flip: bool
    factors: tuple[int, int, int]
    flip_vertical: bool = False
    warp: scene_warps.Warp | None = None
    tone: scene_intensities.Tone = scene_intensities.AS_IT_IS


def plan_scenes(scenes: config.Scenes, *, seed: int, count: int, size: tuple[int, int]) -> ScenePlan:
    """The plan of views of this height and width, as the section has them.

    Raises ConfigError where so many numbers cannot be drawn.
    """
    low, high = scenes.scale
    return ScenePlan(
        seed=seed,
        count=count,
        height=size[0],
        width=size[1],
        scale=(low / scenes.reduction, high / scenes.reduction),
        flip=scenes.flip,
        jitter=scenes.jitter,
        flip_vertical=scenes.flip_vertical,
        rotate=scenes.rotate,
        elastic=None if scenes.elastic is None else (scenes.elastic.strength, scenes.elastic.spacing),
        gamma=scenes.gamma,
        blur=scenes.blur,
        noise=scenes.noise,
    )


def scene_specification(plan: ScenePlan) -> dict[str, Any]:
    """What determines the views, as JSON holds it: recorded answers of a teacher fit where this is equal."""
    return {"format": 1, "kind": "scenes", "generator": "philox4x32-10", **as_json(plan)}


def words(plan: ScenePlan) -> str:
    """How scenes are shown in training, in a few words."""
    low, high = plan.scale
    said = [f"windows of {plan.width} x {plan.height}"]
    if not low == high == 1:
        said[0] += f" at {low:.3g} to {high:.3g} times their size"
    said += ["mirrored"] * plan.flip + ["upside down"] * plan.flip_vertical
    said += [f"turned by up to {plan.rotate:.3g} degrees"] * (plan.rotate > 0)
    said += ["bent"] * (plan.elastic is not None)
    said += [name for name in ("gamma", "blur", "noise") if getattr(plan, name) > 0]
    return ", ".join(said)


def draw(plan: ScenePlan, epoch: int, indices: Tensor) -> list[Draw]:
    """Draw for `render`, all samples at once; indices int64 [n] on the CPU."""

    def drawn(stream: int, count: int) -> list[list[int]]:
        found: list[list[int]] = random.words(plan.seed, epoch, indices, stream, count).tolist()
        return found

    n = len(indices)
    low, high = plan.scale
    scales = drawn(random.SCALE, 1) if low < high else [[0]] * n
    places = drawn(random.CROP, 2)
    flips = drawn(random.FLIP, 1) if plan.flip else [[0]] * n
    upside = drawn(random.FLIP_VERTICAL, 1) if plan.flip_vertical else [[0]] * n
    # The middle of the words is the factor 1.
    colors = drawn(random.JITTER, 3) if plan.jitter else [[1 << 31] * 3] * n
    strength = round(plan.jitter * _ONE)
    draws = []
    for (scale,), (down, across), (flip,), three, (turn,) in zip(scales, places, flips, colors, upside, strict=True):
        brightness, contrast, saturation = (_ONE - strength + (word * (2 * strength + 1) >> 32) for word in three)
        share = (scale >> 8) * 2.0**-24
        chosen = low + share * (high - low)
        factors = brightness, contrast, saturation
        draws.append(Draw(chosen, (down, across), bool(flip >> 31), factors, bool(turn >> 31)))
    return _with_warps_and_tones(plan, epoch, indices, draws)


def _with_warps_and_tones(plan: ScenePlan, epoch: int, indices: Tensor, draws: list[Draw]) -> list[Draw]:
    if plan.rotate or plan.elastic is not None:
        size = plan.height, plan.width
        warps = scene_warps.draw(plan.seed, epoch, indices, size, rotate=plan.rotate, elastic=plan.elastic)
        draws = [draw._replace(warp=warp) for draw, warp in zip(draws, warps, strict=True)]
    if plan.gamma or plan.blur or plan.noise:
        tones = scene_intensities.draw(plan.seed, epoch, indices, gamma=plan.gamma, blur=plan.blur, noise=plan.noise)
        draws = [draw._replace(tone=tone) for draw, tone in zip(draws, tones, strict=True)]
    return draws


def render(
    plan: ScenePlan, image: Tensor | Raster, mask: Tensor | MaskParts, draw: Draw, around: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Make a view. Beyond the border of the scene the image is black and the mask void.

    The image is resized bilinearly with antialiasing, the mask to the nearest pixel. A scene that is smaller than the
    window lies anywhere within it.

    Args:
        image: uint8 [channels, H, W], or a slide, of which the window alone is read.
        mask: uint8 [H, W], or that of a slide.
        around: row and column that are in the middle of the window as far as the scene reaches, and in the view however
            that is turned; None: it lies anywhere.

    Returns:
        uint8 [channels, height, width]; uint8 [height, width].

    Raises:
        DataError: the mask is not as large as the image.
    """
    if tuple(mask.shape) != tuple(image.shape[1:]):
        sizes = [f"{width} x {height}" for height, width in (mask.shape, image.shape[1:])]
        raise DataError(f"The mask is {sizes[0]} pixels and its image {sizes[1]}.")
    size = plan.height, plan.width
    more = (0, 0) if draw.warp is None else scene_warps.margins(draw.warp, *size)
    middle, reach = around or (None, None), None
    if draw.warp is not None:
        reach = math.floor((_WITHIN * min(size) - draw.warp.farthest - 1) / draw.scale)
    rows, columns = (
        _span(image.shape[1 + side], size[side], draw.scale, draw.place[side], more[side], middle[side], reach)
        for side in (0, 1)
    )
    part = _jitter(_resize(image[:, rows.of, columns.of], rows, columns, smooth=True), draw)
    part = scene_intensities.toned(part, draw.tone)
    of_mask = _resize(mask[None, rows.of, columns.of], rows, columns, smooth=False)[0]
    if draw.warp is None:
        pixels = torch.zeros(len(image), *size, dtype=torch.uint8)
        classes = torch.full(size, IGNORE, dtype=torch.uint8)
        inside = torch.zeros(size, dtype=torch.bool)
        pixels[:, rows.to, columns.to], classes[rows.to, columns.to], inside[rows.to, columns.to] = part, of_mask, True
    else:
        at, found = (rows.to.start, columns.to.start), scene_warps.sources(draw.warp, *size)
        pixels, classes, inside = scene_warps.shown(part, of_mask, at, found)
    pixels = scene_intensities.noisy(pixels, draw.tone, inside)
    turned = [dim for dim, flip in ((1, draw.flip_vertical), (2, draw.flip)) if flip]
    return (pixels.flip(turned), classes.flip([dim - 1 for dim in turned])) if turned else (pixels, classes)


def shrink(image: Tensor, reduction: float) -> Tensor:
    """An image uint8 [C, H, W] as many times smaller along either side, at least a pixel; bilinear, antialiased."""
    if reduction == 1:
        return image
    height, width = (max(1, round(side / reduction)) for side in image.shape[1:])
    return resize(image, (height, width))


class _Span(NamedTuple):
    """Along one side: the part of the scene that a view shows, and where in the view it lies; or beside it, where a
    margin was asked for."""

    of: slice
    to: slice

    @property
    def length(self) -> int:
        return int(self.to.stop - self.to.start)


def _span(
    scene: int,
    view: int,
    scale: float,
    word: int,
    margin: int = 0,
    around: int | None = None,
    reach: int | None = None,
) -> _Span:
    """Where a window lies along one side.

    Args:
        margin: pixels of the view that are wanted beyond either end of it.
        around: pixel of the scene that is in its middle, as far as the scene reaches.
        reach: how far from its middle that may lie at most, even where the window then reaches beyond the scene.
    """
    window = max(1, round(view / scale))
    first, last = sorted((0, scene - window))
    start = first + (word * (last - first + 1) >> 32)
    if around is not None and window < scene:
        start = min(max(around - window // 2, first), last)
    if around is not None and reach is not None:
        start = min(max(start, around - window // 2 - max(reach, 0)), around - window // 2 + max(reach, 0))
    beyond = -(-margin * window // view)
    inside = max(start - beyond, 0), min(start + window + beyond, scene)
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
