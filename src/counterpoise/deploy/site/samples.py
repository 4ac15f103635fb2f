"""Pictures that a site offers to begin with: the user's own choice, or drawn here."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from counterpoise.data import images, walking
from counterpoise.decoding import Reading
from counterpoise.errors import DataError

MOST = 24
_LARGEST = 1600  # edge in pixels
_SMALL = 200  # edge up to which a picture is kept without loss


class Sample(NamedTuple):
    """A picture file for the site: encoded anew, so that it tells nothing of where and when it was taken."""

    content: bytes
    ending: str
    width: int
    height: int


def chosen(paths: Sequence[Path], reading: Reading = images.AS_USUAL) -> list[Sample]:
    """Pictures and folders of pictures that the user has named.

    Raises DataError where one is missing or cannot be read, or there are more than MOST.
    """
    files: list[Path] = []
    for path in paths:
        inside = [path / name for name in walking.image_files(path)] if path.is_dir() else [path]
        if not inside:
            raise DataError(f"Folder {path} holds no pictures for --samples.")
        files += inside
    if len(files) > MOST:
        raise DataError(f"--samples names {len(files)} pictures; a page shows {MOST} at most. Choose among them.")
    return [_encoded(images.decode(file, reading=reading)) for file in files]


def of_tensors(pixels: Iterable[Tensor]) -> list[Sample]:
    """Pictures uint8 [3, H, W]."""
    return [_encoded(Image.fromarray(one.permute(1, 2, 0).contiguous().numpy())) for one in pixels]


def drawn(count: int = 6, size: tuple[int, int] = (480, 360)) -> list[Sample]:
    """Simple shapes in light and shade, the same ones every time."""
    twice = (2 * size[0], 2 * size[1])  # reduced, so that edges are smooth
    return [_encoded(_draw(number, twice).resize(size, Image.Resampling.BOX)) for number in range(count)]


def _encoded(picture: Image.Image) -> Sample:
    picture.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if max(picture.size) <= _SMALL:
        picture.save(file, format="PNG", optimize=True)
        return Sample(file.getvalue(), "png", *picture.size)
    picture.save(file, format="JPEG", quality=92, optimize=True)
    return Sample(file.getvalue(), "jpg", *picture.size)


def _draw(number: int, size: tuple[int, int]) -> Image.Image:
    width, height = size
    hue = 40 + number * 57 % 256
    ground = Image.linear_gradient("L").rotate(90 * (number % 4)).resize(size)
    value = ground.point(lambda level: 120 + level // 3)
    picture = Image.merge("HSV", (Image.new("L", size, (hue + 128) % 256), Image.new("L", size, 50), value)).convert(
        "RGB"
    )
    edge, middle = height * 0.62, (width / 2, height / 2)
    ends = 180 if number == 0 else 3 + number  # a circle, a square, a pentagon, ...
    corners = [
        (
            middle[0] + edge / 2 * math.sin(2 * math.pi * (corner + number / 9) / ends),
            middle[1] - edge / 2 * math.cos(2 * math.pi * (corner + number / 9) / ends),
        )
        for corner in range(ends)
    ]
    shade = Image.new("L", size, 0)
    ImageDraw.Draw(shade).polygon([(x + 28, y + 36) for x, y in corners], fill=110)
    picture.paste((20, 20, 24), mask=shade.filter(ImageFilter.GaussianBlur(28)))
    body = Image.new("L", size, 0)
    ImageDraw.Draw(body).polygon(corners, fill=255)
    light = Image.radial_gradient("L").resize((width, height)).point(lambda level: 250 - level // 2)
    color = Image.merge("HSV", (Image.new("L", size, hue % 256), Image.new("L", size, 170), light)).convert("RGB")
    picture.paste(color, mask=body)
    return picture
