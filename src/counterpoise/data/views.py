"""Augmentation as a pure function: the view of a sample depends on its image and (seed, epoch, sample index) alone.

Not on the batch it came in, the process, the device or what was drawn before. A view is made in two steps: `frame`
brings one image, of whatever size, to the size of a view; `augment` crops, mirrors and RandAugments a whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise import config
from counterpoise.data import mixing, randaugment, random, turning
from counterpoise.data.images import cut_out, prepare, resize
from counterpoise.data.jpeg import SMALLER, Part, whole
from counterpoise.data.sources.base import ImageSet
from counterpoise.decoding import placing
from counterpoise.errors import ConfigError
from counterpoise.system import torchvision_guard

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SMALL = 64
"""Longest edge in pixels of images for which crop `auto` pads instead of zooming."""

_ATTEMPTS = 10  # at a crop that fits, as torchvision's RandomResizedCrop


@dataclass(frozen=True)
class ViewPlan:
    """Everything that determines the views of a data set; `config.Views` with nothing left open.

    Attributes:
        count: images in the set, which the order of an epoch and so the partners of mixup and cutmix depend on.
        operations, magnitude: of RandAugment; 0 operations is off.
        fit: how pictures of another shape are brought to that of a view.
        decode: whether JPEGs are decoded in full, or smaller where that is enough.
        rotate: degrees by which views are turned at most, either way.
    """

    seed: int
    count: int
    height: int
    width: int
    crop: Literal["none", "pad", "resized"]
    padding: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: bool
    operations: int
    magnitude: int
    mixup: float
    cutmix: float
    fit: Literal["crop", "squash", "pad"] = "crop"
    decode: Literal["exact", "scaled"] = "exact"
    flip_vertical: bool = False
    rotate: float = 0.0

    @property
    def mixes(self) -> bool:
        """Whether samples are mixed with partners, so that targets are probabilities."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def whole(self) -> bool:
        """Whether views show whole pictures, but for what is cropped after padding."""
        return self.crop != "resized"


class Draws(NamedTuple):
    """What was drawn for n samples.

    Attributes:
        offsets: int64 [n, 2], top and left of the crop within the padded image.
        flip: bool [n], whether mirrored.
        flip_vertical: bool [n], whether upside down.
        turns: int64 [n, 2], as `turning.directions` has them; [n, 0] where none is turned.
        operations, negative: int64 and bool [n, K], RandAugment's.
    """

    offsets: Tensor
    flip: Tensor
    flip_vertical: Tensor
    turns: Tensor
    operations: Tensor
    negative: Tensor

    @property
    def movable(self) -> tuple[Tensor, ...]:
        """All but RandAugment's, by which the CPU groups images."""
        return self[:-2]

    def with_moved(self, values: Iterable[Tensor]) -> Draws:
        """The same with others in place of what is movable."""
        return Draws._make([*values, *self[-2:]])

    def to(self, device: torch.device) -> Draws:
        """On another device, but for RandAugment's."""
        return self.with_moved(value.to(device, non_blocking=True) for value in self.movable)


def decided(views: config.Views, images: ImageSet, size: int | None, largest: int | None = None) -> config.Views:
    """The views with crop and size decided by the extents of the pictures alone, wherever these are kept.

    Args:
        size: `data.size`; what it says is left to it.
        largest: the larger input of the networks, so that none sees less than it could; None where they take any.

    Raises:
        ConfigError: no size follows, or two are given.
    """
    if views.size is not None and size is not None and views.size != (size, size):
        height, width = views.size
        raise ConfigError(
            f"data.views.size ({height} x {width}) and data.size ({size}) differ in how large a training view is: "
            "give one of them."
        )
    sized = views.size is not None or size is not None
    if sized and views.crop != "auto":
        return views
    small = images.small_extent(SMALL)
    if not sized:
        if small is None and largest is None:
            raise ConfigError(
                "data.size is missing: the networks take images of any size, so say which edge in pixels a view has."
            )
        # Small images as they are: networks take them so.
        views = views.model_copy(update={"size": small or (largest, largest)})
    if views.crop == "auto":
        views = views.model_copy(update={"crop": "pad" if small else "resized"})
    return views


def plan_views(
    views: config.Views,
    images: ImageSet,
    *,
    seed: int,
    size: int | None,
    fit: Literal["crop", "squash", "pad"] = "crop",
) -> ViewPlan:
    """The plan of `views`, with what they leave open decided by the images.

    Args:
        size: edge of a view in pixels; None: that of `views`, or small images' own.
        fit: how pictures of another shape are brought to that of a view.

    Raises:
        ConfigError: as `decided`, or a size is given to which images are not brought.
    """
    views = decided(views, images, size)
    height, width = views.size or (size or 0, size or 0)
    crop = views.crop
    assert crop != "auto"
    # Of many large images not every header is read in vain.
    if crop != "resized" and height != width and images.common_extent not in (None, (height, width)):
        raise ConfigError(
            f"data.views.size: crop {crop} shows pictures as squares or in their own size, got {height} x {width}."
        )
    strength = views.randaugment
    return ViewPlan(
        seed=seed,
        count=len(images),
        height=height,
        width=width,
        crop=crop,
        padding=views.padding if crop == "pad" else 0,
        scale=views.scale,
        ratio=views.ratio,
        flip=views.flip,
        operations=strength.operations if strength else 0,
        magnitude=strength.magnitude if strength else 0,
        mixup=views.mixup,
        cutmix=views.cutmix,
        fit=fit,
        decode=views.decode,
        flip_vertical=views.flip_vertical,
        rotate=views.rotate,
    )


def view_specification(plan: ViewPlan) -> dict[str, Any]:
    """What determines the views, as JSON holds it: recorded answers of a teacher fit where this is equal."""
    return {"format": 1, "generator": "philox4x32-10", **as_json(plan)}


def as_json(plan: DataclassInstance) -> dict[str, Any]:
    """The fields of a plan as JSON holds them; without those that have the value they had before there was a choice."""
    usual = {field.name: field.default for field in fields(plan)}
    values = {key: value for key, value in asdict(plan).items() if value != usual[key]}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def words(plan: ViewPlan) -> str:
    """How images are shown in training, in a few words."""
    said = [f"{plan.width} x {plan.height}"]
    if plan.crop == "pad":
        said.append(f"padded by {plan.padding} and cropped")
    elif plan.crop == "resized":
        low, high = (f"{100 * share:.3g}" for share in plan.scale)
        said.append(f"crops of {low} to {high}% of the area, resized")
    said += ["squashed"] * (plan.fit == "squash") + ["padded to a square"] * (plan.fit == "pad")
    said += ["large JPEGs decoded smaller"] * (plan.decode == "scaled")
    said += ["mirrored"] * plan.flip + ["upside down"] * plan.flip_vertical
    said += [f"turned by up to {plan.rotate:.3g} degrees"] * (plan.rotate > 0)
    said += ["RandAugment"] * (plan.operations > 0)
    return ", ".join([*said, *["mixup"] * (plan.mixup > 0), *["cutmix"] * (plan.cutmix > 0)])


def crop_words(plan: ViewPlan, epoch: int, indices: Tensor) -> Tensor:
    """The words that `frame` needs: int64 [n, 40] for crop resized, else [n, 0]; indices int64 [n] on the CPU."""
    if plan.crop != "resized":
        return torch.empty(len(indices), 0, dtype=torch.int64)
    return random.words(plan.seed, epoch, indices, random.CROP, 4 * _ATTEMPTS)


def part(plan: ViewPlan, words: Tensor, height: int, width: int) -> Part:
    """The part of a picture of this size that a view shows; `words` is its row of `crop_words`."""
    shown = whole(height, width)
    if plan.crop == "resized":
        shown = Part(*_resized_crop(plan, height, width, words.tolist()))
    return shown if plan.decode == "exact" else shown._replace(smaller=_smaller(plan, shown, height, width))


def _smaller(plan: ViewPlan, shown: Part, height: int, width: int) -> int:
    """How many times smaller a part of a picture of this size may be decoded.

    What is then resized is at least twice as large as what it becomes, along both sides.
    """
    used, (across, down), _ = _placed(plan, height, width)
    wide, high = used[2] - used[0], used[3] - used[1]
    if plan.crop == "resized":
        wide, high = shown.width, shown.height
    return next((many for many in SMALLER if wide >= 2 * many * across and high >= 2 * many * down), 1)


def _placed(
    plan: ViewPlan, height: int, width: int
) -> tuple[tuple[int, int, int, int], tuple[int, int], tuple[int, int]]:
    """`placing` of a picture of this size in a view; what a zoom cuts out takes the place that the whole would."""
    kept = plan.fit == "pad" if plan.crop == "resized" else plan.height == plan.width
    return placing(width, height, (plan.height, plan.width), 1.0, plan.fit if kept else "squash")


def frame(plan: ViewPlan, image: Tensor, words: Tensor) -> Tensor:
    """Bring one image to the size of a view: uint8 [3, H, W] -> [3, height, width]."""
    return fitted(plan, *cut_out(image, partial(part, plan, words)))


def fitted(plan: ViewPlan, pixels: Tensor, extent: tuple[int, int]) -> Tensor:
    """Bring the `part` of an image of this height and width to the size of a view, in any order in memory."""
    if plan.crop != "resized":
        view = (plan.height, plan.width)
        if tuple(pixels.shape[1:]) == view:
            return pixels
        square = plan.height == plan.width
        return prepare(pixels, plan.height, fit=plan.fit) if square else resize(pixels, view)
    _, (wide, high), (x, y) = _placed(plan, *extent)
    resized = _resized(pixels, high, wide)
    return resized if resized.shape[1:] == (plan.height, plan.width) else _on_black(resized, plan, x, y)


def _resized(pixels: Tensor, high: int, wide: int) -> Tensor:
    """torchvision's `resize_image`, antialiased: uint8 [3, H, W] -> [3, high, wide], in any order in memory.

    Where torch has integer arithmetic for it, pixels are handed over as it works on them, the colors of each together:
    the same result, but nothing is taken apart into planes and put together again.
    """
    height, width = pixels.shape[1:]
    if (
        len(pixels) != 3
        or (height, width) == (high, wide)
        or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512")
    ):
        found: Tensor = torchvision_guard.functional().resize_image(pixels, [high, wide], antialias=True)
        return found
    pixels = pixels.permute(1, 2, 0).contiguous()
    # The stride over the one picture is what torch knows this order by.
    pixels = pixels.as_strided((1, 3, height, width), (pixels.numel(), 1, 3 * width, 3))
    return F.interpolate(pixels, (high, wide), mode="bilinear", antialias=True)[0]


def _on_black(pixels: Tensor, plan: ViewPlan, left: int, top: int) -> Tensor:
    return F.pad(pixels, (left, plan.width - left - pixels.shape[2], top, plan.height - top - pixels.shape[1]))


def draw(plan: ViewPlan, epoch: int, indices: Tensor) -> Draws:
    """Draw for `augment`; indices int64 [n] on the CPU."""
    n = len(indices)
    offsets = torch.zeros(n, 2, dtype=torch.int64)
    if plan.padding:
        offsets = random.to_integers(random.words(plan.seed, epoch, indices, random.CROP, 2), 2 * plan.padding + 1)
    flips = [
        (random.words(plan.seed, epoch, indices, stream, 1)[:, 0] >> 31).bool() if wanted else torch.zeros(n).bool()
        for wanted, stream in ((plan.flip, random.FLIP), (plan.flip_vertical, random.FLIP_VERTICAL))
    ]
    kinds, signs = torch.empty(2, n, 0, dtype=torch.int64)
    turns = kinds
    if plan.rotate:
        turns = turning.directions(turning.angles(plan.seed, epoch, indices, plan.rotate))
    if plan.operations:
        words = random.words(plan.seed, epoch, indices, random.RANDAUGMENT, 2 * plan.operations)
        kinds = random.to_integers(words[:, ::2], len(randaugment.OPERATIONS))
        signs = words[:, 1::2] >> 31
    return Draws(offsets, flips[0], flips[1], turns, kinds, signs.bool())


def collected(plan: ViewPlan, framed: Sequence[Tensor], draws: Draws) -> Tensor:
    """`augment` of framed images that do not lie in a batch yet: each uint8 [3, height, width], on the CPU."""
    if plan.padding:
        return augment(plan, torch.stack([*framed]).contiguous(), draws)
    batch = torch.empty(len(framed), len(framed[0]), plan.height, plan.width, dtype=torch.uint8)
    flips = zip(draws.flip_vertical.tolist(), draws.flip.tolist(), strict=True)
    for place, view, both in zip(batch, framed, flips, strict=True):
        sides = [side for side, flip in enumerate(both, 1) if flip]
        place.copy_(view.flip(sides) if sides else view)
    return _turned_and_changed(plan, batch, draws)


def augment(plan: ViewPlan, images: Tensor, draws: Draws) -> Tensor:
    """Crop, mirror, turn and RandAugment framed images: uint8 [n, 3, height, width] to the same, on their device."""
    if plan.padding or plan.flip or plan.flip_vertical:
        images = _crop_and_flip(plan, images, draws)
    return _turned_and_changed(plan, images, draws)


def _turned_and_changed(plan: ViewPlan, images: Tensor, draws: Draws) -> Tensor:
    if plan.rotate:
        images = turning.turned(images, draws.turns)
    if plan.operations:
        images = randaugment.apply(images, draws.operations, draws.negative, plan.magnitude)
    return images


def draw_mix(plan: ViewPlan, epoch: int, indices: Tensor) -> mixing.Mix:
    """Draw how samples are mixed with their partners; indices int64 [n] on the CPU."""
    return mixing.draw(
        plan.seed, epoch, indices, mixup=plan.mixup, cutmix=plan.cutmix, height=plan.height, width=plan.width
    )


def _crop_and_flip(plan: ViewPlan, images: Tensor, draws: Draws) -> Tensor:
    """Each image's own window of the image padded with black, mirrored and upside down where these were drawn."""
    n, channels, height, width = images.shape
    padded = F.pad(images, (plan.padding,) * 4)
    rows, columns = (torch.arange(edge, device=images.device) for edge in (height, width))
    # Rows first, as whole lines of memory, then columns: twice as fast as gathering single pixels in both directions.
    if plan.padding or plan.flip_vertical:
        if plan.flip_vertical:
            rows = torch.where(draws.flip_vertical.unsqueeze(1), height - 1 - rows, rows)
        first = torch.arange(n * channels, device=images.device).view(n, channels, 1) * padded.shape[2]
        picked = (first + (rows + draws.offsets[:, :1]).unsqueeze(1)).flatten()
        padded = padded.reshape(-1, padded.shape[3]).index_select(0, picked)
    columns = torch.where(draws.flip.unsqueeze(1), width - 1 - columns, columns) + draws.offsets[:, 1:]
    lines = columns.unsqueeze(1).expand(-1, channels * height, -1)
    return padded.reshape(n, channels * height, -1).gather(2, lines).view_as(images)


def _resized_crop(plan: ViewPlan, height: int, width: int, words: list[int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part of the area with a random aspect ratio (Szegedy et al. 2015).

    As torchvision's RandomResizedCrop: the first of ten attempts that fits, else the largest central crop in `ratio`.
    In Python's own floats, image by image: the last bit of a vectorized exponential may depend on the vector's length.
    """
    low, high = (math.log(bound) for bound in plan.ratio)
    shape = 1.0 if plan.fit == "crop" else width / height  # else parts are of the picture's own shape
    for attempt in range(0, 4 * _ATTEMPTS, 4):
        share, aspect = ((word >> 8) * 2.0**-24 for word in words[attempt : attempt + 2])
        area = height * width * (plan.scale[0] + share * (plan.scale[1] - plan.scale[0]))
        aspect = math.exp(low + aspect * (high - low)) * shape
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < across <= width and 0 < down <= height:
            top = words[attempt + 2] * (height - down + 1) >> 32
            left = words[attempt + 3] * (width - across + 1) >> 32
            return top, left, down, across
    down = min(height, max(1, round(width / (plan.ratio[0] * shape))))
    across = min(width, max(1, round(height * plan.ratio[1] * shape)))
    return (height - down) // 2, (width - across) // 2, down, across
