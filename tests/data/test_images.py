"""What a picture file becomes, checked on real files of every kind."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from counterpoise.data.images import decode, extensions, header_size, pixels_of, prepare, to_tensor
from counterpoise.decoding import Reading
from counterpoise.errors import CorruptImage, DataError
from counterpoise.reading import Intensity


def upright() -> np.ndarray:
    """A picture [16, 24, 3] of 8x8 blocks, unlike itself under every turn and reflection; blocks survive JPEG."""
    colors = np.array([[[250, 20, 20], [20, 250, 20], [20, 20, 250]], [[240, 240, 30], [30, 240, 240], [60, 60, 60]]])
    return colors.astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels as a camera stores them: the orientation says which side of the scene the first row and column show."""
    first_row, first_column = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    if "bottom" in (first_row, first_column):
        pixels = pixels[::-1]
    if "right" in (first_row, first_column):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels.swapaxes(0, 1) if first_row in ("left", "right") else pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("ending", "tolerance"), [("png", 0), ("webp", 0), ("tiff", 0), ("jpg", 4)])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, ending: str, tolerance: int) -> None:
    path = tmp_path / f"photo.{ending}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True, "exact": True}}.get(ending, {})
    Image.fromarray(turned(upright(), orientation)).save(path, exif=exif, **how)
    decoded = np.asarray(decode(path)).astype(int)
    assert decoded.shape == (16, 24, 3)
    assert np.abs(decoded - upright()).max() <= tolerance
    assert header_size(path) == (16, 24)
    assert np.abs(np.asarray(decode(path.read_bytes())).astype(int) - decoded).max() == 0


def test_given_pil_image_is_turned_but_left_unchanged() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(turned(upright(), 6)).save(buffer, "png", exif=exif)
    given = Image.open(buffer)
    assert np.array_equal(np.asarray(decode(given)), upright())
    assert given.size == (16, 24)
    assert given.getexif()[0x0112] == 6
    assert np.array_equal(np.asarray(decode(given)), upright())


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(upright()).save(path, exif=b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\xff garbage")
    assert np.array_equal(np.asarray(decode(path)), upright())


def test_photo_is_turned_though_the_rest_of_its_exif_is_beyond_repair() -> None:
    fields = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHII", 0x0100, 10, 1, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + fields + struct.pack("<I", 0)
    buffer = io.BytesIO()
    Image.fromarray(turned(upright(), 6)).save(buffer, "png", exif=exif)
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(Image.open(buffer))
    assert np.array_equal(np.asarray(decode(buffer.getvalue())), upright())


def test_alpha_is_composited_over_white(tmp_path: Path) -> None:
    pixels = np.array([[[200, 0, 100, 255], [200, 0, 100, 0], [200, 0, 100, 51]]], dtype=np.uint8)
    expected = [[200, 0, 100], [255, 255, 255], [244, 204, 224]]  # 51 / 255 is a fifth
    path = tmp_path / "cut.png"
    Image.fromarray(pixels).save(path)
    assert np.asarray(decode(path))[0].tolist() == expected
    assert np.asarray(decode(pixels))[0].tolist() == expected


def test_grey_alpha_is_composited_over_white(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(np.array([[[100, 255], [100, 0], [0, 51]]], dtype=np.uint8)).save(path)
    assert Image.open(path).mode == "LA"
    assert np.asarray(decode(path))[0].tolist() == [[100] * 3, [255] * 3, [204] * 3]


@pytest.mark.parametrize(("ending", "transparency"), [("png", 1), ("gif", 1), ("png", bytes([255, 0, 51]))])
def test_palette_with_transparency_becomes_rgb(tmp_path: Path, ending: str, transparency: int | bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 100, 0, 0])
    image.putdata([0, 1, 2])
    path = tmp_path / f"icon.{ending}"
    image.save(path, transparency=transparency)
    last = [100, 0, 0] if isinstance(transparency, int) else [224, 204, 204]
    assert np.asarray(decode(path))[0].tolist() == [[10, 20, 30], [255, 255, 255], last]


def test_transparent_color_of_an_rgb_file_becomes_white(tmp_path: Path) -> None:
    path = tmp_path / "key.png"
    Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8)).save(path, transparency=(1, 2, 3))
    assert np.asarray(decode(path))[0].tolist() == [[255, 255, 255], [4, 5, 6]]


@pytest.mark.parametrize("mode", ["P", "L", "1", "HSV", "YCbCr"])
def test_other_modes_become_rgb(mode: str) -> None:
    decoded = decode(Image.new("RGB", (5, 4), (255, 255, 255)).convert(mode))
    assert decoded.mode == "RGB"
    assert np.asarray(decoded).min() >= 254


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_16_bit_greys_are_scaled_not_clipped(tmp_path: Path, ending: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65407, 65535]], dtype=np.uint16)
    path = tmp_path / f"scan.{ending}"
    Image.fromarray(values).save(path)
    assert Image.open(path).mode.startswith("I")
    assert np.asarray(decode(path))[0].tolist() == [[level] * 3 for level in (0, 0, 1, 1, 128, 255, 255)]
    wide = Image.fromarray(values.astype(np.int32))
    assert np.array_equal(np.asarray(decode(wide)), np.asarray(decode(path)))


def test_greys_of_unknown_scale_are_refused() -> None:
    assert np.asarray(decode(Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32))))[0, :, 0].tolist() == [
        0,
        128,
        255,
    ]
    with pytest.raises(CorruptImage, match=r"-1.0 to 300.0 are not within 0 to 1"):
        decode(Image.fromarray(np.array([[-1, 300]], dtype=np.float32)), "depth.tiff")
    with pytest.raises(CorruptImage, match="not within 0 to 65535"):
        decode(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)), "depth.tiff")


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_white_level_keeps_the_gray_levels_of_12_bits(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"scan.{ending}"
    Image.fromarray(np.array([[0, 8, 16, 2048, 4095, 5000]], dtype=np.uint16)).save(path)
    assert np.asarray(decode(path, reading=Reading(white_level=4095)))[0, :, 0].tolist() == [0, 0, 1, 128, 255, 255]
    eight = np.array([[0, 128, 255]], dtype=np.uint8)
    assert np.asarray(decode(eight, reading=Reading(white_level=4095)))[0, :, 0].tolist() == [0, 128, 255]


def test_tiff_of_12_bits_is_as_white_as_it_says() -> None:
    values = np.array([[0, 2048, 4095, 4095]], dtype=np.uint16)
    packed = bytes([0, 0x08, 0x00, 0xFF, 0xFF, 0xFF])  # two values in three bytes
    entries = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: len(packed)}
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    body = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in sorted(entries.items()))
    file = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(entries)) + body + bytes(4) + packed
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(file))), values)
    assert np.asarray(decode(file))[0, :, 0].tolist() == [0, 128, 255, 255]


def tiff(values: NDArray[Any], photometric: str = "miniswhite") -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric=photometric)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_in_which_0_is_white_is_turned_or_refused(channels: int) -> None:
    values, reading = np.array([[0, 100, 255]], dtype=np.uint8), Reading(channels=channels)
    assert pixels_of(tiff(values), reading=reading)[0].tolist() == [[255, 155, 0]]
    for deep in (values.astype(np.uint16) * 257, values.astype(np.float32) / 255):
        assert pixels_of(tiff(deep, "minisblack"), reading=reading)[0].tolist() == [[0, 100, 255]]
        for given in (tiff(deep), Image.open(io.BytesIO(tiff(deep)))):
            with pytest.raises(CorruptImage, match=r"0 is white in it \(MINISWHITE\), of more than 8 bits: save"):
                pixels_of(given, reading=reading)


def test_signed_tiff_of_8_bits_is_refused_where_values_are_below_0() -> None:
    values = np.array([[0, 1, 127]], dtype=np.int8)
    assert pixels_of(tiff(values, "minisblack"))[0].tolist() == [[0, 1, 127]]
    content = tiff(values + np.int8(-128), "minisblack")
    for given in (content, Image.open(io.BytesIO(content))):
        with pytest.raises(CorruptImage, match=r"its values are signed, from -128 on: save .* data.intensity"):
            pixels_of(given)
    window = Reading(intensity=Intensity("window", -128, 127))
    assert pixels_of(content, reading=window)[0].tolist() == [[0, 1, 127]]


def test_white_level_is_refused_for_colors_of_16_bits() -> None:
    content = deep_png(2, struct.pack(">6H", 0, 2048, 4095, 1, 2, 3))
    assert np.asarray(decode(content))[0].tolist() == [[0, 8, 15], [0, 0, 0]]
    with pytest.raises(CorruptImage, match="3 bands of 16 bits, and white_level is for gray pictures"):
        decode(content, reading=Reading(white_level=4095))


@pytest.mark.parametrize(("ending", "band"), [("png", 0), ("png", 100), ("tif", 0), ("tif", 37)])
def test_fourth_band_that_is_data_leaves_the_colors_as_they_are(tmp_path: Path, ending: str, band: int) -> None:
    path = tmp_path / f"field.{ending}"
    Image.fromarray(np.full((4, 4, 4), (60, 120, 60, band), np.uint8)).save(path)
    assert np.unique(np.asarray(decode(path, reading=Reading(alpha="ignore"))).reshape(-1, 3), axis=0).tolist() == [
        [60, 120, 60]
    ]


@pytest.mark.parametrize("extra", [None, 0, 2])
def test_fourth_band_of_a_tiff_is_transparency_where_its_tag_says_so(tmp_path: Path, extra: int | None) -> None:
    path = tmp_path / "field.tif"
    Image.fromarray(np.full((4, 4, 4), (60, 120, 60, 0), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    at = content.index(struct.pack("<HHI", 338, 3, 1))
    if extra is None:
        content[at : at + 2] = struct.pack("<H", 65000)
    else:
        content[at + 8 : at + 10] = struct.pack("<H", extra)
    expected = [255, 255, 255] if extra == 2 else [60, 120, 60]
    assert np.asarray(decode(bytes(content)))[0, 0].tolist() == expected


def test_larger_pictures_than_allowed_are_refused_with_the_option(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    Image.new("1", (2000, 1000)).save(path)
    small = Reading(max_megapixels=1.5)
    for read in (decode, header_size):
        with pytest.raises(CorruptImage, match=r"has 2 megapixels, more pixels than max_megapixels 1\.5 allows"):
            read(path, reading=small)
        read(path)


@pytest.mark.filterwarnings("error")
def test_a_picture_beyond_pillows_wall_is_read_where_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("L", (300, 200), 9).save(buffer, "png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # its wall is at twice that
    with pytest.raises(Image.DecompressionBombError):
        Image.open(buffer)
    assert np.asarray(decode(buffer.getvalue())).shape == (200, 300, 3)
    assert Image.MAX_IMAGE_PIXELS == 10_000


@pytest.mark.parametrize(("ending", "tolerance"), [("tiff", 0), ("jpg", 3)])
def test_cmyk_becomes_rgb(tmp_path: Path, ending: str, tolerance: int) -> None:
    path = tmp_path / f"print.{ending}"
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(inks, "CMYK").save(path)
    seen = np.asarray(decode(path))[4, [4, 12, 20]].astype(int)
    assert np.abs(seen - [[255, 255, 255], [0, 255, 255], [0, 0, 0]]).max() <= tolerance


def test_arrays_of_every_layout_are_taken() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    for array in (grey, grey[:, :, None], rgb, np.dstack([rgb, np.full_like(grey, 255)]), rgb[:, ::-1][:, ::-1]):
        assert np.array_equal(np.asarray(decode(array)), rgb)


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2), np.float32), np.zeros((2, 2, 5), np.uint8), np.zeros((0, 2), np.uint8), np.zeros(3, np.uint8)],
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected uint8"):
        decode(array)


def test_other_things_are_refused() -> None:
    with pytest.raises(DataError, match="is a list; expected a path"):
        decode([1, 2])  # type: ignore[arg-type]


def png(header: bytes, rows: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def huge_png() -> bytes:
    return png(struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0), b"")


def deep_png(kind: int, values: bytes) -> bytes:
    """One row of 16-bit pixels, two of them."""
    return png(struct.pack(">IIBBBBB", 2, 1, 16, kind, 0, 0, 0), b"\0" + values)


def encoded(kind: str) -> bytes:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is not a photo\n", "not a picture"),
        (encoded("jpeg")[:-600], "truncated"),
        (encoded("png")[:-600], "truncated"),
        (encoded("webp")[:-600], "."),
        (encoded("jpeg")[:10], "."),
        (huge_png(), "more pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n", "not a picture"),
    ],
    ids=["empty", "text", "truncated jpeg", "truncated png", "truncated webp", "header only", "huge", "postscript"],
)
def test_unreadable_file_is_named_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    for given, name in ((path, None), (str(path), None), (content, str(path))):
        with pytest.raises(CorruptImage, match=reason) as caught:
            decode(given, name)
        assert caught.value.name == str(path)
        assert str(path) in str(caught.value)


def test_absent_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptImage, match=r"no\.jpg cannot be read: the file does not exist"):
        decode(tmp_path / "no.jpg")
    with pytest.raises(CorruptImage, match="it is a folder"):
        decode(tmp_path)
    with pytest.raises(CorruptImage, match="the file does not exist"):
        header_size(tmp_path / "no.jpg")


def test_corrupt_image_survives_the_way_out_of_a_worker() -> None:
    error = pickle.loads(pickle.dumps(CorruptImage("a.jpg", "it is empty")))
    assert (type(error), error.name, error.reason) == (CorruptImage, "a.jpg", "it is empty")
    assert str(error) == "Image a.jpg cannot be read: it is empty."


def test_to_tensor_keeps_every_pixel() -> None:
    tensor = to_tensor(Image.fromarray(upright()))
    assert (tensor.dtype, tensor.shape, tensor.is_contiguous()) == (torch.uint8, (3, 16, 24), True)
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), upright())
    assert to_tensor(Image.new("L", (2, 2), 7)).unique().tolist() == [7]


def test_extensions_are_those_of_pictures() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"} <= extensions()
    assert not {".txt", ".json", ".pdf", ".eps", ".mpg", ".h5", ""} & extensions()


def test_prepare_leaves_an_image_of_the_right_size_alone() -> None:
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    assert prepare(image, 32, 0.875).data_ptr() == image.data_ptr()


@pytest.mark.parametrize("extent", [(40, 61), (61, 40), (40, 40), (20, 33), (16, 32)])
@pytest.mark.parametrize(("size", "share"), [(32, 1.0), (32, 0.875), (24, 0.95)])
def test_prepare_equals_the_published_evaluation(
    make_picture: Callable[..., Image.Image], extent: tuple[int, int], size: int, share: float
) -> None:
    from counterpoise.system import torchvision_guard

    torchvision_guard.ready()
    from torchvision.transforms import v2

    picture = make_picture("circle", 1, extent)
    published = v2.Compose([v2.Resize(round(size / share)), v2.CenterCrop(size)])
    prepared = prepare(to_tensor(picture), size, share)
    assert prepared.shape == (3, size, size)
    assert torch.equal(prepared, to_tensor(published(picture)))


def test_prepare_of_a_sliver_stays_small() -> None:
    image = torch.zeros(3, 1, 200_000, dtype=torch.uint8)
    image[:, :, 100_000 - 8 : 100_000 + 8] = 200
    assert prepare(image, 64).unique().tolist() == [200]


@pytest.mark.parametrize("extent", [(128, 32), (32, 128), (33, 100), (64, 64), (5, 3), (1, 500)])
def test_squash_resizes_all_of_a_picture(extent: tuple[int, int]) -> None:
    picture = torch.randint(0, 256, (3, *extent), dtype=torch.uint8)
    whole = Image.fromarray(picture.permute(1, 2, 0).numpy())
    expected = to_tensor(whole.resize((32, 32), Image.Resampling.BILINEAR))
    assert torch.equal(prepare(picture, 32, 0.875, "squash"), expected)


@pytest.mark.parametrize(
    ("extent", "content"),
    [((128, 32), (32, 8)), ((32, 128), (8, 32)), ((33, 100), (11, 32)), ((5, 3), (32, 19)), ((1, 500), (1, 32))],
)
def test_pad_keeps_the_shape_of_a_picture_within_black(extent: tuple[int, int], content: tuple[int, int]) -> None:
    picture = torch.randint(1, 256, (3, *extent), dtype=torch.uint8)
    padded = prepare(picture, 32, 0.875, "pad")
    top, left = ((32 - side) // 2 for side in content)
    whole = Image.fromarray(picture.permute(1, 2, 0).numpy())
    expected = to_tensor(whole.resize(content[::-1], Image.Resampling.BILINEAR))
    assert torch.equal(padded[:, top : top + content[0], left : left + content[1]], expected)
    assert int((padded == 0).all(0).sum()) == 32 * 32 - content[0] * content[1]
