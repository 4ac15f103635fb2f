"""Photographs of cucumbers, lemons and tomatoes, drawn: few pictures of several sizes, as a first evening has them.

python -m counterpoise.demos.drawn_fruits photos      # photos/KIND/NUMBER.jpg, twenty of each kind
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from counterpoise.system.files import write_text

KINDS = {"cucumber": ((60, 120, 40), 3.2), "lemon": ((215, 190, 40), 1.3), "tomato": ((200, 45, 30), 1.0)}
"""Color, and how many times as long as wide."""
SCENE = (96, 72)
"""Width and height of a scene."""


def draw(folder: Path, count: int, seed: int) -> None:
    """`folder`/KIND/NUMBER.jpg, `count` of each kind."""
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            _photograph(rng, kind).save(folder / kind / f"{number:03d}.jpg", quality=88)


def draw_scenes(folder: Path, count: int, val_count: int, seed: int) -> None:
    """`folder`/images/{train,val}/NUMBER.jpg, masks/ of the same names as PNG, and classes.txt: three to six fruits
    of all kinds lie over each other in a picture of 96 x 72."""
    rng = np.random.default_rng(seed)
    for half, number_of_scenes in (("train", count), ("val", val_count)):
        for part in ("images", "masks"):
            (folder / part / half).mkdir(parents=True)
        for number in range(number_of_scenes):
            picture, mask = _scene(rng)
            picture.save(folder / "images" / half / f"{number:03d}.jpg", quality=88)
            mask.save(folder / "masks" / half / f"{number:03d}.png")
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in ("ground", *KINDS)))


def _photograph(rng: np.random.Generator, kind: str) -> Image.Image:
    width, height = int(rng.integers(640, 1000)), int(rng.integers(480, 800))
    picture = _ground(rng, width, height)
    for _ in range(int(rng.integers(1, 4))):
        layer = _fruit(rng, (width, height), kind, int(rng.integers(60, 130)))
        picture.paste(layer, (0, 0), layer)
    return picture.filter(ImageFilter.GaussianBlur(1.5))


def _scene(rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """Drawn four times as large as it is kept, so that edges are smooth."""
    large = SCENE[0] * 4, SCENE[1] * 4
    picture, mask = _ground(rng, *large), Image.new("L", SCENE)
    for _ in range(int(rng.integers(3, 7))):
        which = int(rng.integers(len(KINDS)))
        layer = _fruit(rng, large, list(KINDS)[which], int(rng.integers(30, 65)))
        picture.paste(layer, (0, 0), layer)
        covered = layer.getchannel("A").point([0, *[255] * 255])  # where light falls on a fruit, too
        half = covered.resize(SCENE, Image.Resampling.BOX).point([255 * (value >= 128) for value in range(256)])
        mask.paste(which + 1, (0, 0), half)
    return picture.resize(SCENE, Image.Resampling.BOX), mask


def _ground(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    ground = rng.normal(rng.integers(70, 200), 20, (height // 16, width // 16, 1)) + rng.normal(0, 10, 3)
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _fruit(rng: np.random.Generator, extent: tuple[int, int], kind: str, size: int) -> Image.Image:
    """One fruit somewhere on a transparent layer of this width and height."""
    color, ratio = KINDS[kind]
    x, y = (int(rng.integers(size, edge - size)) for edge in extent)
    layer = Image.new("RGBA", extent)
    pen = ImageDraw.Draw(layer)
    paint = tuple(int(value) for value in (np.array(color) + rng.normal(0, 18, 3)).clip(0, 255))
    long, wide = size * ratio**0.5, size / ratio**0.5
    pen.ellipse((x - long, y - wide, x + long, y + wide), fill=(*paint, 255))
    pen.ellipse((x - size * 0.3, y - wide * 0.4, x, y - wide * 0.2), fill=(255, 255, 255, 90))
    return layer.rotate(float(rng.uniform(0, 360)), center=(x, y))


if __name__ == "__main__":
    draw(Path(sys.argv[1]), 20, seed=5)
