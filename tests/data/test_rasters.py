"""Pictures by their parts have the pixels of whole ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from counterpoise.data import rasters
from counterpoise.data.images import pixels_of
from counterpoise.data.rasters import Raster, raster_of
from counterpoise.data.segmentation_views import shrink
from counterpoise.decoding import Reading
from counterpoise.errors import CorruptImage

COLORS = np.random.default_rng(0).integers(0, 256, (61, 83, 4), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [("rgb.png", COLORS[..., :3]), ("clear.png", COLORS), ("gray.png", COLORS[..., 0]), ("plain.jpg", COLORS[..., :3])],
)
def test_parts_are_those_of_the_whole_picture(
    name: str, pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(pixels).save(tmp_path / name)
    whole, found = pixels_of(tmp_path / name), raster_of(tmp_path / name)
    assert found.size == (61, 83)
    monkeypatch.setattr(rasters, "_LARGE_FILE", 0)
    assert torch.equal(raster_of(tmp_path / name).part(), whole)
    assert torch.equal(found.part(), whole)
    assert torch.equal(found.part(slice(7, 30), slice(60, 99)), whole[:, 7:30, 60:])
    assert torch.equal(found.reduced(2.5).part(), shrink(whole, 2.5))
    assert torch.equal(Raster(whole).reduced(2.5).part(), shrink(whole, 2.5))
    assert torch.equal(found.reduced(1.0).part(), whole)
    small = [np.asarray(one.times_smaller(10)) for one in (found, Raster(whole))]
    assert np.array_equal(*small)
    assert np.array_equal(small[0][3, 4], np.rint(whole[:, 30:40, 40:50].double().mean((1, 2)).numpy()))
    assert small[0].shape == (7, 9, 3)


def test_arrays_pictures_and_other_channels_are_taken_as_ever(tmp_path: Path) -> None:
    array = COLORS[..., :3]
    for given in (array, Image.fromarray(array)):
        assert torch.equal(raster_of(given).part(), pixels_of(given))
    gray = Reading(channels=1)
    assert torch.equal(raster_of(Image.fromarray(array), gray).part(), pixels_of(Image.fromarray(array), reading=gray))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(CorruptImage, match=r"broken\.png"):
        raster_of(tmp_path / "broken.png")
