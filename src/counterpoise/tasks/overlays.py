"""Masks as pictures: in colors, and laid over the images that they belong to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from colorsys import hsv_to_rgb
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from counterpoise.data.images import to_picture, visible
from counterpoise.data.rasters import Shown, raster, raster_of
from counterpoise.data.sources.base import IGNORE
from counterpoise.errors import DataError
from counterpoise.system.files import replacing

_NARROWEST, _WIDEST = 192, 640  # pixels of a panel: smaller pictures are enlarged, larger ones reduced
_LARGE = 2**25
_GAP, _LINE, _SWATCH = 8, 20, 12
_OPACITY = 0.6  # of the colors
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def palette() -> NDArray[np.uint8]:
    """Colors of classes, uint8 [256, 3]: 0 is black, void (255) is cream, the others are far from their neighbors."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    for index in range(1, 255):
        hue = (index - 1) * _GOLDEN_RATIO % 1  # no new hue is close to those before it
        colors[index] = np.multiply(
            hsv_to_rgb(hue, (0.9, 0.55)[index // 3 % 2], (1.0, 0.75, 0.5)[index % 3]), 255
        ).round()
    colors[IGNORE] = 240, 235, 200
    return colors


def write_mask(path: str | Path, mask: Tensor) -> None:
    """Write a mask as a palette PNG: it shows colors and holds classes, and can be read as a mask again.

    Args:
        mask: uint8 [H, W]; 255 is void.
    """
    picture = Image.fromarray(mask.cpu().to(torch.uint8).numpy())
    picture.putpalette(palette().tobytes())  # makes it mode P
    _save(picture, Path(path))


def write_yes(path: str | Path, yes: Tensor) -> None:
    """Write the answer to a question, bool [H, W], as a gray PNG: 255 is yes, 0 is no."""
    _save(Image.fromarray((255 * yes.cpu().to(torch.uint8)).numpy()), Path(path))


def overlay(path: str | Path, image: Any, masks: Mapping[str, Tensor], classes: Sequence[str]) -> None:
    """Write a picture and masks laid over it side by side, as PNG, with a legend of the classes that occur.

    Args:
        image: path, PIL image, uint8 array [H, W, 3], uint8 tensor [channels, H, W] or a raster. The first three
            channels are shown as RGB, of fewer the first as gray; more than 2^25 pixels are made smaller first.
        masks: by the title of their panel, such as truth, teacher, student alone, distilled; uint8 [H, W], 255 is void.
            Or answers to questions [Q, H, W], 1, 0 and -1 where unknown.
        classes: names of the classes.

    Raises:
        DataError: the picture cannot be read, or a mask is not of its size. RunError: the file cannot be written.
    """
    shown = raster(image) if isinstance(image, Shown) else raster_of(image)
    for title, given in masks.items():
        if tuple(given.shape[-2:]) != shown.size:
            raise DataError(f"Mask '{title}' is {list(given.shape)}, and the picture {list(shown.size)}.")
    factor = max(1, shown.size[1] // _WIDEST) if shown.size[0] * shown.size[1] > _LARGE else 1
    picture = to_picture(visible(shown.part())) if factor == 1 else shown.times_smaller(factor)
    shades = palette()
    several = any(mask.ndim == 3 for mask in masks.values())
    kind = torch.int8 if several else torch.uint8
    layers = {title: _thinned(mask.cpu(), factor).to(kind).numpy() for title, mask in masks.items()}
    panels = {"image": picture}
    for title, mask in layers.items():
        colors = mixed(mask) if several else shades[mask]
        panels[title] = Image.blend(picture, Image.fromarray(colors), _OPACITY)
    if several:
        there = [index for index in range(len(classes)) if any((mask[index] > 0).any() for mask in layers.values())]
        legend = [(classes[index], tuple(shades[index + 1].tolist())) for index in there]
    else:
        present = sorted(set().union(*(np.unique(mask).tolist() for mask in layers.values())))
        legend = [(_title(index, classes), tuple(shades[index].tolist())) for index in present]
    _save(_sheet(panels, legend), Path(path))


def _thinned(mask: Tensor, factor: int) -> Tensor:
    """The pixels in the middle of squares of so many, of a mask [..., H, W]."""
    if factor == 1:
        return mask
    rows, columns = (
        (torch.arange(-(-edge // factor)) * factor + factor // 2).clamp(max=edge - 1) for edge in mask.shape[-2:]
    )
    return mask[..., rows, :][..., columns]


def mixed(answers: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Answers [Q, H, W] in colors [H, W, 3]: the mean of those of the questions that are a yes; black where none is,
    and that of void where nothing is known."""
    shades, yes = palette(), answers > 0
    colors = np.einsum("qhw,qc->hwc", yes.astype(np.float32), shades[1 : len(yes) + 1].astype(np.float32))
    colors /= np.maximum(yes.sum(0), 1)[..., None]
    colors[(answers < 0).all(0)] = shades[IGNORE]
    painted: NDArray[np.uint8] = colors.round().astype(np.uint8)
    return painted


def _sheet(panels: Mapping[str, Image.Image], legend: Sequence[tuple[str, tuple[int, ...]]]) -> Image.Image:
    """Panels in a row under their titles, and under them the legend."""
    first = next(iter(panels.values()))
    scale: float = math.ceil(_NARROWEST / first.width) if first.width < _NARROWEST else min(1, _WIDEST / first.width)
    width, height = max(1, round(first.width * scale)), max(1, round(first.height * scale))
    resampling = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    font = ImageFont.load_default(size=14)
    total = _GAP + len(panels) * (width + _GAP)
    corners, left, top = [], _GAP, _LINE + height + _GAP
    for name, _ in legend:
        needed = _SWATCH + 4 + math.ceil(font.getlength(name)) + 2 * _GAP
        if left > _GAP and left + needed > total:
            left, top = _GAP, top + _LINE
        corners.append((left, top))
        left += needed
    sheet = Image.new("RGB", (total, top + _LINE + _GAP if legend else top), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (title, panel) in enumerate(panels.items()):
        x = _GAP + number * (width + _GAP)
        pen.text((x, 1), title, fill="black", font=font)
        sheet.paste(panel.resize((width, height), resampling), (x, _LINE))
    for (name, color), (x, y) in zip(legend, corners, strict=True):
        pen.rectangle((x, y + 3, x + _SWATCH, y + 3 + _SWATCH), fill=color, outline="black")
        pen.text((x + _SWATCH + 4, y), name, fill="black", font=font)
    return sheet


def _save(picture: Image.Image, path: Path) -> None:
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


def _title(index: int, classes: Sequence[str]) -> str:
    if index == IGNORE:
        return "void"
    return classes[index] if index < len(classes) else f"class {index}"
