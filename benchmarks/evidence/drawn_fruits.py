"""Photographs of cucumbers, lemons and tomatoes, drawn: few pictures of several sizes, as a first evening has them.

python benchmarks/evidence/drawn_fruits.py photos      # photos/KIND/NUMBER.jpg, twenty of each kind
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

KINDS = {"cucumber": ((60, 120, 40), 3.2), "lemon": ((215, 190, 40), 1.3), "tomato": ((200, 45, 30), 1.0)}
"""Color, and how many times as long as wide."""


def draw(folder: Path, count: int, seed: int) -> None:
    """`folder`/KIND/NUMBER.jpg, `count` of each kind."""
    rng = np.random.default_rng(seed)
    for kind, (color, ratio) in KINDS.items():
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            _photograph(rng, color, ratio).save(folder / kind / f"{number:03d}.jpg", quality=88)


def _photograph(rng: np.random.Generator, color: tuple[int, int, int], ratio: float) -> Image.Image:
    width, height = int(rng.integers(640, 1000)), int(rng.integers(480, 800))
    ground = rng.normal(rng.integers(70, 200), 20, (height // 16, width // 16, 1)) + rng.normal(0, 10, 3)
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    for _ in range(int(rng.integers(1, 4))):
        size = int(rng.integers(60, 130))
        x, y = int(rng.integers(size, width - size)), int(rng.integers(size, height - size))
        layer = Image.new("RGBA", (width, height))
        pen = ImageDraw.Draw(layer)
        paint = tuple(int(value) for value in (np.array(color) + rng.normal(0, 18, 3)).clip(0, 255))
        long, wide = size * ratio**0.5, size / ratio**0.5
        pen.ellipse((x - long, y - wide, x + long, y + wide), fill=(*paint, 255))
        pen.ellipse((x - size * 0.3, y - wide * 0.4, x, y - wide * 0.2), fill=(255, 255, 255, 90))
        layer = layer.rotate(float(rng.uniform(0, 360)), center=(x, y))
        picture.paste(layer, (0, 0), layer)
    return picture.filter(ImageFilter.GaussianBlur(1.5))


if __name__ == "__main__":
    draw(Path(sys.argv[1]), 20, seed=5)
