"""Pictures of other than three channels are read as they are, or refused with the reason."""

from __future__ import annotations

import io
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from pixel_files import npy, tiff

from counterpoise import config, decoding
from counterpoise.data import sources
from counterpoise.data.images import header_size, pixels_of, prepare, reading_specification, resize, to_picture
from counterpoise.data.noticing import look_at
from counterpoise.decoding import Reading
from counterpoise.errors import ConfigError, CorruptImage

SIX, FOUR, ONE = (Reading(channels=count) for count in (6, 4, 1))


def field(channels: int, kind: type = np.uint8, height: int = 5, width: int = 7) -> np.ndarray:
    """Bands that differ, with a corner that tells how they are turned."""
    top = {np.uint8: 255, np.uint16: 65535}.get(kind, 1)
    values = np.random.default_rng(channels).random((height, width, channels)) * 0.5
    values[0, 0] = 1
    return (values * top).astype(kind)


def read(content: bytes, reading: Reading) -> np.ndarray:
    pixels = pixels_of(content, "it", reading)
    assert header_size(content, "it", reading) == tuple(pixels.shape[1:])
    assert torch.equal(pixels, torch.from_numpy(np.array(decoding.read(content, reading))).permute(2, 0, 1))
    return pixels.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("compression", [None, "deflate", "lzw"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_bands_of_a_tiff_are_its_channels(planar: str, compression: str | None) -> None:
    values = field(6)
    given = values if planar == "contig" else np.moveaxis(values, -1, 0)
    assert np.array_equal(read(tiff(given, planarconfig=planar, compression=compression), SIX), values)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_of_bands_is_turned_as_one_of_gray_is(orientation: int) -> None:
    values = field(6)
    turned = read(tiff(values, planarconfig="contig", extratags=[(274, "H", 1, orientation, True)]), SIX)
    file = io.BytesIO()
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(values[..., 0]).save(file, "PNG", exif=exif)
    assert np.array_equal(turned[..., 0], read(file.getvalue(), ONE)[..., 0])


def test_sixteen_bits_and_floats_are_brought_to_eight_as_gray_ones_are() -> None:
    deep = field(6, np.uint16)
    for level in (None, 4095):
        bands = read(npy(deep), Reading(channels=6, white_level=level))
        file = io.BytesIO()
        Image.fromarray(deep[..., 2]).save(file, "PNG")
        assert np.array_equal(bands[..., 2], read(file.getvalue(), Reading(channels=1, white_level=level))[..., 0])
        assert np.array_equal(bands, read(tiff(deep, planarconfig="contig"), Reading(channels=6, white_level=level)))
    assert np.array_equal(read(npy(field(6, np.float32)), SIX), np.rint(field(6, np.float32) * 255))


def test_rgba_is_data_and_one_channel_is_gray(tmp_path: Path) -> None:
    values = field(4)
    Image.fromarray(values).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert np.array_equal(read(content, FOUR), values)
    assert np.array_equal(pixels_of(Image.open(tmp_path / "a.png"), reading=FOUR).permute(1, 2, 0), values)
    assert np.array_equal(pixels_of(values, reading=FOUR).permute(1, 2, 0), values)
    Image.fromarray(values[..., :3]).save(tmp_path / "color.jpg", quality=95)
    content = (tmp_path / "color.jpg").read_bytes()
    assert np.array_equal(read(content, ONE)[..., 0], np.asarray(Image.open(tmp_path / "color.jpg").convert("L")))
    assert np.array_equal(read(npy(values[..., 0]), ONE), values[..., :1])


def test_a_store_of_other_channels_is_of_other_views() -> None:
    assert reading_specification(FOUR) == {"channels": 4}
    assert reading_specification(Reading()) == {}


def test_channels_are_resized_and_placed_one_by_one_as_colors_are() -> None:
    image = torch.from_numpy(field(3, height=30, width=47)).permute(2, 0, 1)
    both = torch.cat([image, image])
    for fit in decoding.FITS:
        assert torch.equal(prepare(both, 16, 0.875, fit), prepare(image, 16, 0.875, fit).repeat(2, 1, 1))
    assert torch.equal(resize(both, (9, 80)), resize(image, (9, 80)).repeat(2, 1, 1))
    assert to_picture(image).mode == "RGB"


def bomb() -> bytes:
    """A TIFF whose one strip unpacks to a megabyte, where it says that it is of 210 bytes."""
    packed = zlib.compress(bytes(2**20))
    content = bytearray(tiff(field(6), planarconfig="contig", compression="deflate"))
    page = tifffile.TiffFile(io.BytesIO(bytes(content))).pages[0]
    entries = {tag.code: tag.valueoffset for tag in page.tags.values()}
    content[entries[273] : entries[273] + 4] = len(content).to_bytes(4, "little")
    content[entries[279] : entries[279] + 4] = len(packed).to_bytes(4, "little")
    return bytes(content) + packed


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('code of a file was run')",)


REFUSED = {
    "a picture of three": (lambda: tiff(field(3), planarconfig="contig"), "has 3 channels, and data.channels is 6"),
    "bands as pages": (lambda: tiff(np.moveaxis(field(6), -1, 0), metadata=None), "first page has 1 channels"),
    "channels first": (lambda: npy(np.moveaxis(field(6), -1, 0)), r"\[6, 5, 7\], expected \[height, width, 6\]"),
    "objects": (lambda: npy(np.array([[[Evil()] * 6]], dtype=object)), "it holds object"),
    "a pickle": (lambda: pickle.dumps(Evil()), "not a picture"),
    "signed": (lambda: npy(field(6).astype(np.int16)), "values are int16; uint8, uint16 and floats"),
    "nothing known": (lambda: npy(np.full((5, 7, 6), np.nan)), "values nan to nan are not within 0 to 1"),
    "too large": (
        lambda: npy(np.zeros((1, 1, 6), np.uint8)).replace(b"(1, 1, 6)", b"(9999999, 9999, 6)"),
        "megapixels",
    ),
    "cut off": (lambda: npy(field(6))[:-50], "cannot be read"),
    "a TIFF cut off": (lambda: tiff(field(6), planarconfig="contig")[:40], "cannot be read"),
    "another packing": (lambda: tiff(field(6), compression="lzma", planarconfig="contig"), "save DEFLATE or LZW"),
    "a bomb": (bomb, "cannot be read"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_not_these_channels_is_refused_with_the_reason(what: str) -> None:
    make, why = REFUSED[what]
    with pytest.raises(CorruptImage, match=why):
        pixels_of(make(), "it", SIX)


def test_sixteen_bits_that_are_hardly_used_and_colors_that_become_gray_are_said() -> None:
    said = " ".join(look_at([npy(field(6, np.uint16) // 16)], SIX).notes(SIX))
    assert "--data.white_level 4095 would fit" in said
    assert "are brought to 8" in said
    file = io.BytesIO()
    Image.fromarray(field(3)).save(file, "PNG")
    assert "in color and become gray" in " ".join(look_at([file.getvalue()], ONE).notes(ONE))


def test_arrays_are_pictures_where_channels_are_asked_for_and_only_there(tmp_path: Path) -> None:
    for half in ("train", "val"):
        for name in "ab":
            (tmp_path / half / name).mkdir(parents=True)
            Image.fromarray(field(3)).save(tmp_path / half / name / "0.png")
            np.save(tmp_path / half / name / "1.npy", field(1))
    assert len(sources.load(config.Data(path=tmp_path)).train) == 2
    found = sources.load(config.Data(path=tmp_path, channels=1)).train
    assert sorted(found.read(index).shape for index in range(4)) == [(1, 5, 7)] * 4


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"views": {"randaugment": {}}}, "randaugment is for pictures of three channels, and channels is 4"),
        ({"scenes": {"jitter": 0.3}}, r"scenes\.jitter changes colors.* three channels, and channels is 4"),
        ({"alpha": "white"}, "takes all bands as data"),
        ({"channels": 0}, "greater than or equal to 1"),
    ],
)
def test_what_is_for_three_channels_is_refused_for_others(data: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        config.resolve({"data": {"channels": 4, **data}})
