"""Pictures of thin structures, drawn: trees of vessels on textured disks, as on photographs of the eye's fundus."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from counterpoise.system.files import write_text

PATIENTS = 12
EYES = ("left", "right")
EDGE = 160
WHITE = 4095
"""The largest of 12 bits."""
VOID = 255
_FINER = 4  # how many times larger vessels are drawn than they are kept, so that their edges are smooth


def draw(folder: Path, seed: int = 0) -> None:
    """Write images/patient_NN_EYE.png (12 bits in 16, gray), masks/ of the same names, and classes.txt.

    Each patient has two eyes, whose brightness, texture and contrast are alike: a network that has seen one knows
    something of the other. What lies beyond the disk, the field of view, is void in masks.
    """
    for name in ("images", "masks"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    write_text(folder / "classes.txt", f"background 0\nvessel 1\nvoid {VOID}\n")
    for patient in range(1, PATIENTS + 1):
        own = np.random.default_rng([seed, patient])
        brightness, contrast, roughness = own.uniform(0.35, 0.6), own.uniform(0.1, 0.24), own.uniform(0.05, 0.12)
        for number, eye in enumerate(EYES):
            chance = np.random.default_rng([seed, patient, number])
            vessels = _vessels(chance, mirrored=bool(number))
            values = _background(chance, brightness, roughness) - contrast * vessels
            values += chance.normal(0, 0.025, values.shape)
            seen = _disk(EDGE / 2 - 3)
            image = np.where(seen, values.clip(0, 1), 0) * WHITE
            mask = np.where(seen, vessels >= 0.5, VOID)
            name = f"patient_{patient:02d}_{eye}.png"
            Image.fromarray(image.round().astype(np.uint16)).save(folder / "images" / name)
            Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / name)


def _disk(radius: float, row: float = EDGE / 2, column: float = EDGE / 2) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:EDGE, :EDGE] + 0.5
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 < radius**2)


def _background(chance: np.random.Generator, brightness: float, roughness: float) -> NDArray[np.float64]:
    """Light that falls off to the rim, cloudy texture, and round spots that are no vessels."""
    rows, columns = (np.mgrid[:EDGE, :EDGE] + 0.5) / EDGE - 0.5
    values = brightness * (1.1 - 1.2 * (rows**2 + columns**2))
    for cells in (5, 12, 30):
        grid = Image.fromarray(chance.normal(0, roughness, (cells, cells)).astype(np.float32))
        values += np.asarray(grid.resize((EDGE, EDGE), Image.Resampling.BICUBIC)) * (5 / cells) ** 0.5
    for _ in range(chance.integers(4, 10)):
        row, column = chance.uniform(0.15, 0.85, 2) * EDGE
        values += _disk(chance.uniform(1.5, 5), row, column) * chance.choice([-0.15, 0.15])
    return np.asarray(values)


def _vessels(chance: np.random.Generator, mirrored: bool) -> NDArray[np.float64]:
    """How much of each pixel is vessel, 0 to 1: a few trees that leave one point, thinner at every fork."""
    large = Image.new("L", (EDGE * _FINER, EDGE * _FINER))
    pen = ImageDraw.Draw(large)
    row, column = EDGE * chance.uniform(0.4, 0.6), EDGE * 0.2
    trunks = int(chance.integers(4, 7))
    for number in range(trunks):
        angle = (number - (trunks - 1) / 2) * math.pi / trunks * 1.4 + chance.normal(0, 0.15)
        _branch(pen, chance, row, column, angle, chance.uniform(2.2, 3.4))
    small = np.asarray(large.resize((EDGE, EDGE), Image.Resampling.BOX)) / 255
    return small[:, ::-1] if mirrored else small


def _branch(
    pen: ImageDraw.ImageDraw, chance: np.random.Generator, row: float, column: float, angle: float, width: float
) -> None:
    """Draw a branch, from there in that direction, and those that leave it, until they are too thin."""
    while width > 0.9 and -5 < row < EDGE + 5 and -5 < column < EDGE + 5:
        for _ in range(int(chance.integers(5, 12))):
            angle += chance.normal(0, 0.12)
            further = row + 2.5 * math.sin(angle), column + 2.5 * math.cos(angle)
            line = [value * _FINER for value in (column, row, further[1], further[0])]
            pen.line(line, fill=255, width=max(1, round(width * _FINER)), joint="curve")
            row, column = further
        fork = chance.choice([-1, 1]) * chance.uniform(0.4, 0.9)
        _branch(pen, chance, row, column, angle + fork, width * chance.uniform(0.55, 0.8))
        angle -= fork / 3
        width *= chance.uniform(0.8, 0.95)
