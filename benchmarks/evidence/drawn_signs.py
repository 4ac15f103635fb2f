"""Traffic signs drawn by a script: sixteen of them, turned, scaled, blurred, in all weathers, on patches of color."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

EDGE, LARGE = 32, 128
OUTLINES = {"round": 40, "triangular": 3, "square": 4, "octagonal": 8}
SYMBOLS = {
    "arrow_left": [(-0.5, 0), (0, -0.5), (0, -0.2), (0.5, -0.2), (0.5, 0.2), (0, 0.2), (0, 0.5)],
    "arrow_up": [(0, -0.5), (0.5, 0), (0.2, 0), (0.2, 0.5), (-0.2, 0.5), (-0.2, 0), (-0.5, 0)],
    "bar": [(-0.5, -0.16), (0.5, -0.16), (0.5, 0.16), (-0.5, 0.16)],
    "bolt": [(0.1, -0.5), (-0.3, 0.1), (0, 0.1), (-0.1, 0.5), (0.3, -0.1), (0, -0.1)],
}
PAINTS = [((190, 30, 35), (240, 240, 235)), ((30, 70, 160), (240, 240, 240)), ((235, 190, 40), (25, 25, 25))]


def draw(folder: Path, train: int, val: int, seed: int) -> None:
    """`folder`/{train,val}/CLASS/NUMBER.png; any outline may have any paint, so that color gives no sign away."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            outline = list(OUTLINES)[number % 4]
            symbol = list(SYMBOLS)[number // 4 % 4]
            place = folder / split / f"{outline}_{symbol}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_sign(rng, outline, symbol)).save(place / f"{number:05d}.png")


def _sign(rng: np.random.Generator, outline: str, symbol: str) -> NDArray[np.uint8]:
    """uint8 [EDGE, EDGE, 3]."""
    picture = Image.new("RGB", (LARGE, LARGE), tuple(int(v) for v in rng.integers(0, 256, 3)))
    pen = ImageDraw.Draw(picture)
    for _ in range(8):
        at, size = rng.uniform(0, LARGE, 2), rng.uniform(10, 60, 2)
        box = [*(at - size / 2), *(at + size / 2)]
        pen.rectangle([float(v) for v in box], fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    ground, ink = PAINTS[int(rng.integers(len(PAINTS)))]
    center, radius = LARGE / 2 + rng.normal(0, 7, 2), LARGE * rng.uniform(0.22, 0.42)
    turn, lean = rng.normal(0, 0.2), rng.normal(0, 0.2)

    def placed(points: list[tuple[float, float]], scale: float) -> list[tuple[float, float]]:
        turned = [(x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)) for x, y in points]
        return [(center[0] + scale * (x + lean * y), center[1] + scale * y) for x, y in turned]

    corners = OUTLINES[outline]
    start = math.pi / 4 if corners == 4 else math.pi / 8 if corners == 8 else -math.pi / 2
    circle = [start + 2 * math.pi * corner / corners for corner in range(corners)]
    shape = [(math.cos(angle), math.sin(angle)) for angle in circle]
    pen.polygon(placed(shape, radius * 1.12), fill=ink)
    pen.polygon(placed(shape, radius), fill=ground)
    pen.polygon(placed(SYMBOLS[symbol], radius * rng.uniform(0.7, 0.95)), fill=ink)
    small = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 5))).resize((EDGE, EDGE), Image.Resampling.BOX)
    light, noise = rng.uniform(0.35, 1.2), rng.normal(0, rng.uniform(2, 22), (EDGE, EDGE, 3))
    return np.clip(np.asarray(small) * light + noise, 0, 255).astype(np.uint8)
