"""The embedded scenes: scikit-learn's digits on crops of its two photographs, with masks that say which is where.

Made on the fly, in whole numbers throughout (Philox draws, Pillow's fixed-point resizing): one seed gives the same
scenes on every machine whose JPEG decoder gives the same photographs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from counterpoise import config
from counterpoise.data import random
from counterpoise.data.sources import digits
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.registry import register
from counterpoise.errors import ConfigError

CLASSES = ("background", *"0123456789")

_GLYPHS_FOR_TRAINING = 1200  # of the 1,797: no digit of a val scene was seen in training
_TRAINING_SHARE = 0.6  # of each photograph's width, from the left, for the same reason
_FEWEST, _MOST = 1, 3  # digits a scene
_CONTRAST = 0.6  # how far a digit's color is moved away from the lightness of its ground
_STREAM = 64  # of random draws: one of its own
_SCENE_WORDS, _DIGIT_WORDS = 6, 7


@register(
    "digit_scenes",
    summary="handwritten digits on photographs with a mask for each, made of scikit-learn's",
    needs_path=False,
)
def load(data: config.Data, *, train_size: int = 600, val_size: int = 200, edge: int = 64) -> Splits:
    """Scenes of one to three digits; classes are the background and the ten digits. Made anew from `data.split_seed`.

    Train and val share neither a digit nor a piece of a photograph.

    Args:
        train_size: scenes for training.
        val_size: scenes for val.
        edge: height and width of a scene in pixels, 16 to 256.
    """
    for name, value, low, high in (
        ("train_size", train_size, 1, 100_000),
        ("val_size", val_size, 1, 100_000),
        ("edge", edge, 16, 256),
    ):
        if not low <= value <= high:
            raise ConfigError(f"data.options.{name} must be {low} to {high}, got {value}.")
    glyphs = digits.load(data, train_size=_GLYPHS_FOR_TRAINING)
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    halves = []
    for half, count in enumerate((train_size, val_size)):
        draws = _draw(data.split_seed, half, count)
        grounds = [_side(photo, half) for photo in photos]
        source = glyphs[half]
        assert isinstance(source, ArraySet)
        shapes = [
            _Glyph(Image.fromarray(image[0].numpy()), int(label))
            for image, label in zip(source.images, source.labels, strict=True)
        ]
        scenes = [_scene(draw, grounds, shapes, edge) for draw in draws]
        images = torch.from_numpy(np.stack([image for image, _ in scenes])).permute(0, 3, 1, 2).contiguous()
        masks = torch.from_numpy(np.stack([mask for _, mask in scenes]))
        halves.append(ArraySet.of_scenes(images, masks, CLASSES, names=("train scene", "val scene")[half]))
    return Splits(*halves)


class _Glyph(NamedTuple):
    stencil: Image.Image
    """Grey: how much of the ground is covered."""
    label: int


def _draw(seed: int, half: int, count: int) -> list[list[int]]:
    words = random.words(seed, half, torch.arange(count), _STREAM, _SCENE_WORDS + _MOST * _DIGIT_WORDS)
    drawn: list[list[int]] = words.tolist()
    return drawn


def _side(photo: Image.Image, half: int) -> Image.Image:
    cut = round(_TRAINING_SHARE * photo.width)
    return photo.crop((cut, 0, photo.width, photo.height) if half else (0, 0, cut, photo.height))


def _scene(
    words: list[int], grounds: list[Image.Image], glyphs: list[_Glyph], edge: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One scene from its random words: pixels [H, W, 3] and mask [H, W]."""
    which, size, left, top, flip, count = words[:_SCENE_WORDS]
    ground = grounds[_below(which, len(grounds))]
    longest = min(ground.size)
    size = _between(size, min(edge, longest), longest)
    left, top = _between(left, 0, ground.width - size), _between(top, 0, ground.height - size)
    scene = ground.resize((edge, edge), Image.Resampling.BILINEAR, box=(left, top, left + size, top + size))
    if _below(flip, 2):
        scene = scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mask = Image.new("L", (edge, edge), 0)
    for number in range(_between(count, _FEWEST, _MOST)):
        first = _SCENE_WORDS + number * _DIGIT_WORDS
        _put(scene, mask, glyphs, words[first : first + _DIGIT_WORDS])
    return np.asarray(scene), np.asarray(mask)


def _put(scene: Image.Image, mask: Image.Image, glyphs: list[_Glyph], words: list[int]) -> None:
    """Draw one digit into a scene and its mask, over what is there."""
    which, size, left, top, *color = words
    edge = scene.width
    glyph = glyphs[_below(which, len(glyphs))]
    size = _between(size, edge // 4, edge // 2)
    left, top = _between(left, 0, edge - size), _between(top, 0, edge - size)
    box = (left, top, left + size, top + size)
    # Enlarged strokes are blurred; with steeper edges the part that counts as the digit is the part that one sees.
    stencil = glyph.stencil.resize((size, size), Image.Resampling.BICUBIC).point(
        [min(255, max(0, 2 * (value - 64))) for value in range(256)]
    )
    lightness = np.asarray(scene.crop(box).convert("L"), dtype=np.int64).sum()
    away = 255 if lightness < 128 * size * size else 0
    paint = tuple(round(_CONTRAST * away + (1 - _CONTRAST) * _below(word, 256)) for word in color)
    scene.paste(paint, box, stencil)
    mask.paste(glyph.label + 1, box, stencil.point([255 * (value >= 128) for value in range(256)]))


def _below(word: int, bound: int) -> int:
    return word * bound >> 32


def _between(word: int, low: int, high: int) -> int:
    return low + _below(word, high - low + 1)
