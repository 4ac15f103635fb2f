"""What classes files mean, and every kind of mask file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from counterpoise.data.label_map import LabelMap, read_label_map
from counterpoise.data.mask_file import read_mask
from counterpoise.data.sources.base import IGNORE
from counterpoise.errors import CorruptImage, DataError

PLAIN = "sky\nroad\nbrick wall\nvoid\n"
COLORED = "sky 0 0 128\nroad 128 64 128\nbrick wall 64,0,0\nVoid; 0; 0; 0\n"
COLORS = np.array([[0, 0, 128], [128, 64, 128], [64, 0, 0], [0, 0, 0]], dtype=np.uint8)
ROWS = np.array([[0, 1, 2, 2], [3, 2, 1, 1], [0, 0, 3, 0]], dtype=np.uint8)
EXPECTED = torch.tensor([[0, 1, 2, 2], [IGNORE, 2, 1, 1], [0, 0, IGNORE, 0]], dtype=torch.uint8)


def label_map(folder: Path, text: str, ignore: int | None = None) -> LabelMap:
    (folder / "classes.txt").write_text(text)
    return read_label_map(folder / "classes.txt", ignore)


def save(folder: Path, image: Image.Image | NDArray[np.uint8], name: str = "mask.png", **options: object) -> Path:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(folder / name, **options)
    return folder / name


def palette_image(rows: NDArray[np.uint8], colors: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(rows).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(colors.tobytes())
    return image


def test_names_may_have_colors_and_void_is_no_class(tmp_path: Path) -> None:
    plain, colored = label_map(tmp_path, PLAIN), label_map(tmp_path, "\ufeff" + COLORED)
    assert plain.classes == colored.classes == ("sky", "road", "brick wall")
    assert plain.palette == ()
    assert colored.palette == ((0, 0, 128), (128, 64, 128), (64, 0, 0))


@pytest.mark.parametrize("name", ["mask.png", "mask.bmp", "mask.tif", "mask.gif"])
def test_gray_masks_hold_indices_even_where_classes_have_colors(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, ROWS, name)
    for text in (PLAIN, COLORED):
        assert torch.equal(read_mask(path, label_map(tmp_path, text)), EXPECTED)


def test_palette_masks_hold_indices(tmp_path: Path) -> None:
    grays = np.repeat(np.arange(4, dtype=np.uint8), 3).reshape(4, 3)
    standard = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]], dtype=np.uint8)  # as VOC's, for the eye
    for colors in (COLORS, COLORS // 2 + 1, grays, standard):
        path = save(tmp_path, palette_image(ROWS, colors))
        for text in (PLAIN, COLORED):
            assert torch.equal(read_mask(path, label_map(tmp_path, text)), EXPECTED)


def test_palette_in_another_order_is_read_by_its_colors(tmp_path: Path) -> None:
    path = save(tmp_path, palette_image(3 - ROWS, COLORS[::-1].copy()))
    assert torch.equal(read_mask(path, label_map(tmp_path, COLORED)), EXPECTED)


def test_palette_color_of_another_class_says_that_colors_count(tmp_path: Path) -> None:
    meaning, colors = label_map(tmp_path, COLORED), COLORS[::-1].copy()
    colors[1] = 64, 0, 1  # beside the color of brick wall
    path = save(tmp_path, palette_image(3 - ROWS, colors))
    wanted = r"holds the color 64 0 1 \(3 pixels\), unknown to .*The nearest is 'brick wall', 64 0 0"
    with pytest.raises(DataError, match=wanted + r".* 128 64 128, a color of .*, has the index 2, .* leave the colors"):
        read_mask(path, meaning)
    with pytest.raises(DataError, match=wanted):
        read_mask(save(tmp_path, colors[3 - ROWS]), meaning)
    lossy = read_label_map(tmp_path / "classes.txt", lossy=True)
    assert torch.equal(read_mask(save(tmp_path, palette_image(3 - ROWS, colors)), lossy), EXPECTED)


def test_border_of_a_standard_palette_is_void_beside_classes_in_its_order(tmp_path: Path) -> None:
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[:3], colors[255] = [[0, 0, 0], [128, 0, 0], [0, 128, 0]], [224, 224, 192]
    path = save(tmp_path, palette_image(np.array([[0, 1, 2, 255]], dtype=np.uint8), colors))
    for text in ("background 0 0 0\nplane 128 0 0\nbicycle 0 128 0\n", "background 0\nplane 1\nbicycle 2\n"):
        assert read_mask(path, label_map(tmp_path, text, ignore=255)).tolist() == [[0, 1, 2, IGNORE]]


@pytest.mark.parametrize("kind", ["L", "1"])
def test_gray_mask_that_may_hold_colors_or_numbers_is_refused(tmp_path: Path, kind: str) -> None:
    text = "road 128 64 128\nsky 0 0 0\nsnow 255 255 255\n"
    path = save(tmp_path, Image.new(kind, (3, 2)))
    with pytest.raises(DataError, match=r"its 0 is 'road' by the order of .*, and 'sky' by its color, 0 0 0. .* RGB;"):
        read_mask(path, label_map(tmp_path, text))
    assert not read_mask(path, label_map(tmp_path, "sky 0 0 0\nroad 128 64 128\n")).any()
    path = save(tmp_path, np.array([[0, 1, 2]], dtype=np.uint8))
    assert read_mask(path, label_map(tmp_path, text)).tolist() == [[0, 1, 2]]
    path = save(tmp_path, np.array([[0, 255]], dtype=np.uint8))
    assert read_mask(path, label_map(tmp_path, text)).tolist() == [[1, 2]]


def test_color_masks_are_read_by_the_classes_file(tmp_path: Path) -> None:
    rgb = COLORS[ROWS]
    opaque = np.concatenate([rgb, np.full((3, 4, 1), 255, dtype=np.uint8)], axis=2)
    for pixels in (rgb, opaque):
        assert torch.equal(read_mask(save(tmp_path, pixels), label_map(tmp_path, COLORED)), EXPECTED)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_hold_indices(tmp_path: Path, bits: int) -> None:
    rows = ROWS % 2 if bits == 1 else ROWS
    expected = torch.from_numpy(rows % 2) if bits == 1 else EXPECTED
    path = save(tmp_path, palette_image(rows, COLORS), bits=bits)
    assert torch.equal(read_mask(path, label_map(tmp_path, PLAIN)), expected)
    path.write_bytes(_gray_png(rows, bits))
    assert torch.equal(read_mask(path, label_map(tmp_path, PLAIN)), expected)


def _gray_png(rows: NDArray[np.uint8], bits: int) -> bytes:
    """A gray PNG of 1, 2 or 4 bits a pixel, which Pillow itself does not write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = rows.shape
    lines = [b"\0" + np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :]).tobytes() for row in rows]
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(lines))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_masks_of_0_and_255_are_read_by_gray_colors(tmp_path: Path) -> None:
    meaning = label_map(tmp_path, "background 0 0 0\ntumor 255 255 255\n")
    on = ROWS == 2
    gray = np.where(on, 255, 0).astype(np.uint8)
    for image in (gray, np.repeat(gray[..., None], 3, axis=2), Image.fromarray(gray).convert("1")):
        assert torch.equal(read_mask(save(tmp_path, image), meaning), torch.from_numpy(on.astype(np.uint8)))
    with pytest.raises(DataError, match=r"holds the value 9 \(1 pixels\), and the grays of .*classes.txt are 0, 255"):
        read_mask(save(tmp_path, np.array([[9, 0, 255]], dtype=np.uint8)), meaning)
    assert label_map(tmp_path, "background 0 0 0\ntumor 255 255 255\n", ignore=255).classes == ("background",)


def test_ignored_value_becomes_void(tmp_path: Path) -> None:
    path = save(tmp_path, np.array([[0, 1, 200]], dtype=np.uint8))
    assert read_mask(path, label_map(tmp_path, "a\nb\n", ignore=200)).tolist() == [[0, 1, IGNORE]]
    path = save(tmp_path, np.array([[0, 1, 2]], dtype=np.uint8))
    meaning = label_map(tmp_path, "a\nb\nc\n", ignore=1)
    assert meaning.classes == ("a", "c")
    assert read_mask(path, meaning).tolist() == [[0, IGNORE, 1]]


def test_value_beyond_the_classes_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, np.array([[0, 4, 255, 255]], dtype=np.uint8))
    expected = r"mask.png holds the value 255 \(2 pixels\), and .*classes.txt names the classes 0 to 3.*ignore to 255"
    with pytest.raises(DataError, match=expected):
        read_mask(path, label_map(tmp_path, PLAIN))


def test_unknown_color_is_named_with_the_nearest_class(tmp_path: Path) -> None:
    rgb = COLORS[ROWS]
    rgb[0, 0] = (128, 60, 120)
    expected = r"mask.png holds the color 128 60 120 \(1 pixels\), unknown to .*The nearest is 'road', 128 64 128"
    with pytest.raises(DataError, match=expected):
        read_mask(save(tmp_path, rgb), label_map(tmp_path, COLORED))
    with pytest.raises(DataError, match=r"holds colors \(128 64 128, .*\), and .* names none.*'sky 128 64 128'"):
        read_mask(save(tmp_path, rgb), label_map(tmp_path, PLAIN))


def test_all_void_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mask.png is all void"):
        read_mask(save(tmp_path, np.full((2, 2), 3, dtype=np.uint8)), label_map(tmp_path, PLAIN))


def test_masks_of_more_than_8_bits_and_transparent_ones_are_refused(tmp_path: Path) -> None:
    meaning = label_map(tmp_path, PLAIN)
    with pytest.raises(DataError, match=r"deep.png is 16-bit; masks are 8-bit"):
        read_mask(save(tmp_path, Image.fromarray(ROWS.astype(np.uint16)), "deep.png"), meaning)
    with pytest.raises(DataError, match=r"deep.tif is 32-bit"):
        read_mask(save(tmp_path, Image.fromarray(ROWS.astype(np.float32)), "deep.tif"), meaning)
    with pytest.raises(DataError, match="transparent"):
        read_mask(save(tmp_path, np.zeros((2, 2, 4), dtype=np.uint8)), meaning)


def test_what_is_no_picture_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    with pytest.raises(CorruptImage, match="No such file"):
        read_mask(path, label_map(tmp_path, PLAIN))
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CorruptImage, match="not a picture"):
        read_mask(path, label_map(tmp_path, PLAIN))
    save(tmp_path, np.random.default_rng(0).integers(0, 3, (60, 60), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CorruptImage, match=r"mask.png cannot be read"):
        read_mask(path, label_map(tmp_path, PLAIN))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n\nb\n", "Line 2 of .* is empty"),
        ("a 1 2 3\nb\n", "Line 2 of .*'b': either all classes have a color"),
        ("a\nb 1 2 3\n", "Line 2 of .*'b 1 2 3': either all classes"),
        ("a 1 2 3\nb 1 2 256\n", "0 to 255"),
        ("a 1 2 3\nb 1 2 3\n", "this color is that of 'a'"),
        ("a\na\n", "class 'a' is there twice"),
        ("void\n", "names 0 classes besides void"),
        ("", "names 0 classes"),
    ],
)
def test_malformed_classes_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        label_map(tmp_path, text)


def test_no_text_is_no_classes_file(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="it is no text in UTF-8: line 1"):
        read_label_map(tmp_path / "classes.txt")


def test_254_classes_and_void_fit(tmp_path: Path) -> None:
    many = "".join(f"class {number}\n" for number in range(254))
    path = save(tmp_path, np.array([[253, 254]], dtype=np.uint8))
    assert read_mask(path, label_map(tmp_path, many + "void\n")).tolist() == [[253, IGNORE]]
    with pytest.raises(DataError, match="names 255 classes besides void; expected 1 to 254"):
        label_map(tmp_path, many + "one more\n")
