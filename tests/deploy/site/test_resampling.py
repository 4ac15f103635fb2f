"""The page's pixels are those of data/images.py."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from counterpoise.data.images import prepare
from counterpoise.decoding import show

if TYPE_CHECKING:
    from playwright.sync_api import Page

Pixels = NDArray[np.uint8]

CALL = """async ({bytes, width, height, name, more}) => {
    const module = await import("./resampling.js");
    const data = Uint8ClampedArray.from(atob(bytes), (letter) => letter.charCodeAt(0));
    const result = module[name]({width, height, data}, ...more);
    let text = "";
    for (const value of module.planes(result)) text += String.fromCharCode(value);
    return [result.width, result.height, btoa(text)];
}"""


def in_browser(page: Page, picture: Pixels, name: str, *more: object) -> Pixels:
    """What a function of resampling.js makes of a picture [H, W, 3]: [3, h, w]."""
    height, width = picture.shape[:2]
    opaque = np.dstack([picture, np.full((height, width), 255, np.uint8)])
    given = {"bytes": base64.b64encode(opaque.tobytes()).decode(), "width": width, "height": height}
    wide, tall, encoded = page.evaluate(CALL, {**given, "name": name, "more": list(more)})
    return np.frombuffer(base64.b64decode(encoded), np.uint8).reshape(3, tall, wide)


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "to"),
    [((97, 131), (32, 43)), ((20, 31), (64, 99)), ((64, 48), (64, 17)), ((51, 64), (13, 64)), ((1, 9), (5, 3))],
    ids=str,
)
def test_resize_is_pillows_to_the_last_bit(modules: Page, size: tuple[int, int], to: tuple[int, int]) -> None:
    picture = noise(*size)
    whole = {"left": 0, "top": 0, "width": size[1], "height": size[0]}
    found = in_browser(modules, picture, "resize", whole, to[1], to[0])
    expected = Image.fromarray(picture).resize((to[1], to[0]), Image.Resampling.BILINEAR)
    assert (found.transpose(1, 2, 0) == np.asarray(expected)).all()


def test_resize_of_a_part_sees_nothing_else(modules: Page) -> None:
    picture = noise(60, 80)
    part = {"left": 7, "top": 11, "width": 50, "height": 40}
    found = in_browser(modules, picture, "resize", part, 21, 16)
    expected = Image.fromarray(picture[11:51, 7:57]).resize((21, 16), Image.Resampling.BILINEAR)
    assert (found.transpose(1, 2, 0) == np.asarray(expected)).all()


@pytest.mark.parametrize("share", [1.0, 0.875, 0.95])
@pytest.mark.parametrize("size", [(32, 32), (101, 67), (67, 102), (24, 31), (3, 200), (200, 1), (37, 37)], ids=str)
def test_prepare_is_that_of_evaluation(modules: Page, size: tuple[int, int], share: float) -> None:
    picture = noise(*size)
    found = in_browser(modules, picture, "prepare", [32, 32], share)
    expected = prepare(torch.from_numpy(picture).permute(2, 0, 1), 32, share)
    assert (found == expected.numpy()).all()


@pytest.mark.parametrize("fit", ["squash", "pad"])
@pytest.mark.parametrize("size", [(32, 32), (101, 67), (67, 102), (3, 200), (200, 1), (33, 100)], ids=str)
def test_other_fits_are_those_of_evaluation(modules: Page, size: tuple[int, int], fit: str) -> None:
    picture = noise(*size)
    found = in_browser(modules, picture, "prepare", [32, 32], 0.875, fit)
    expected = prepare(torch.from_numpy(picture).permute(2, 0, 1), 32, 0.875, fit)
    assert (found == expected.numpy()).all()


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("size", [(24, 32), (71, 67), (67, 102)], ids=str)
def test_pictures_come_to_a_size_that_is_no_square_as_run_py_brings_them(
    modules: Page, size: tuple[int, int], fit: str
) -> None:
    picture = noise(*size)
    for share in (None, 0.875) if fit == "pad" else (None,):
        found = in_browser(modules, picture, "prepare", [24, 32], share, fit)
        assert (found.transpose(1, 2, 0) == np.asarray(show(Image.fromarray(picture), (24, 32), share, fit))).all()


def test_halves_are_rounded_to_even_as_in_python(modules: Page) -> None:
    values = [-1.5, -0.5, 0.5, 1.5, 2.5, 2.4, 2.6, 7.0]
    found = modules.evaluate("async (values) => values.map((await import('./resampling.js')).round)", values)
    assert found == [round(value) for value in values]
