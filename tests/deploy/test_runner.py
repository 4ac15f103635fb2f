"""What run.py makes of a picture is what training and evaluation make of it, for every kind of file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from counterpoise.data import images
from counterpoise.deploy import pictures, runner

KINDS = ("turned.jpg", "gray.jpg", "cmyk.jpg", "alpha.png", "palette.png", "deep.png", "animated.gif")


def save(kind: str, picture: Image.Image, path: Path) -> None:
    if kind == "turned.jpg":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(path, exif=exif, quality=90)
    elif kind == "gray.jpg":
        picture.convert("L").save(path)
    elif kind == "cmyk.jpg":
        picture.convert("CMYK").save(path)
    elif kind == "alpha.png":
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.save(path)
    elif kind == "palette.png":
        picture.quantize(32).save(path, transparency=3)
    elif kind == "deep.png":
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 255).save(path)
    else:
        picture.save(path, save_all=True, append_images=[picture.rotate(90)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("extent", [(301, 203), (90, 480), (64, 48)])
@pytest.mark.parametrize(("size", "share"), [((48, 48), 0.875), ((48, 48), 1.0), ((40, 56), None)])
def test_pixels_are_those_of_evaluation(
    make_picture: Callable[..., Image.Image],
    tmp_path: Path,
    kind: str,
    extent: tuple[int, int],
    size: tuple[int, int],
    share: float | None,
) -> None:
    path = tmp_path / kind
    save(kind, make_picture("stripes", 1, extent), path)
    pixels = runner.shown(runner.decode(str(path)), size, share)
    expected = pictures.show(images.to_tensor(images.decode(path)), size, share)
    assert pixels.shape == (1, 3, *size)
    assert torch.equal(torch.from_numpy(pixels)[0], expected)
