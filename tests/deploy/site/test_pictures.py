"""The page reads files as data/images.py does, and says in a sentence what is wrong with one."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from counterpoise.data.images import decode
from counterpoise.decoding import Reading

if TYPE_CHECKING:
    from playwright.sync_api import Page

Pixels = NDArray[np.uint8]
AVIF = ["AVIF"] if features.check("avif") else []
"""Where Pillow writes it: from 11.3 on."""
Draw = Callable[..., Image.Image]

CALL = """async ({bytes, reading}) => {
    const { decode, PictureError } = await import("./pictures.js");
    const { planes } = await import("./resampling.js");
    const file = new Blob([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))]);
    try {
        const picture = await decode(file, reading);
        let text = "";
        for (const value of planes(picture)) text += String.fromCharCode(value);
        return {width: picture.width, height: picture.height, pixels: btoa(text)};
    } catch (error) {
        if (!(error instanceof PictureError)) throw error;
        return {error: error.message};
    }
}"""


def in_browser(page: Page, content: bytes, reading: Reading = Reading()) -> Pixels | str:  # noqa: B008
    """[H, W, 3] as decoded, or what the page says."""
    told = {"alpha": reading.alpha, "white_level": reading.white_level}
    found = page.evaluate(CALL, {"bytes": base64.b64encode(content).decode(), "reading": told})
    if "error" in found:
        return str(found["error"])
    pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8)
    return pixels.reshape(3, found["height"], found["width"]).transpose(1, 2, 0)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def far(found: Pixels | str, content: bytes, reading: Reading = Reading()) -> int:  # noqa: B008
    """The largest difference to what Python reads."""
    assert isinstance(found, np.ndarray), found
    expected = np.asarray(decode(content, reading=reading))
    assert found.shape == expected.shape
    return int(np.abs(found.astype(int) - expected).max())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(modules: Page, make_picture: Draw, orientation: int) -> None:
    content = saved(make_picture("square", 3, (64, 40)), "JPEG", quality=92, exif=turned(orientation))
    assert far(in_browser(modules, content), content) <= 2  # decoders of JPEG may differ by a level or two


@pytest.mark.parametrize("sampling", [0, 1, 2], ids=["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg(modules: Page, make_picture: Draw, sampling: int) -> None:
    content = saved(make_picture("circle", 1, (61, 47)), "JPEG", quality=85, subsampling=sampling)
    assert far(in_browser(modules, content), content) <= 2


def test_formats_without_loss_are_the_same_bits(modules: Page, make_picture: Draw) -> None:
    picture = make_picture("stripes", 2, (33, 21))
    files = [(saved(picture, kind), 0) for kind in ("PNG", "BMP", "GIF")]
    files += [(saved(picture, "WEBP", lossless=True), 0), (saved(picture.convert("L"), "PNG"), 0)]
    files += [(saved(picture, kind, quality=100), 4) for kind in AVIF]
    files += [(saved(picture.convert(mode), "PNG"), 0) for mode in "P1"]
    files.append((saved(picture, "JPEG", progressive=True), 2))
    differences = [(far(in_browser(modules, content), content), limit) for content, limit in files]
    assert all(found <= limit for found, limit in differences), differences


def test_transparency_lies_over_white(modules: Page, make_picture: Draw) -> None:
    picture = make_picture("circle", 5, (48, 32)).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    palette = make_picture("square", 6, (30, 30)).quantize(8)
    gray = Image.merge("LA", (picture.getchannel("R"), picture.getchannel("A")))
    for content in (saved(picture, "PNG"), saved(palette, "PNG", transparency=0), saved(gray, "PNG")):
        assert far(in_browser(modules, content), content) <= 1
    lossless = saved(picture, "WEBP", lossless=True, exact=True)
    assert far(in_browser(modules, lossless), lossless) <= 1


def test_color_profiles_are_ignored_as_in_python(modules: Page, make_picture: Draw) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    content = saved(make_picture("circle", 4), "PNG", icc_profile=profile)
    assert far(in_browser(modules, content), content) == 0


def test_sixteen_bits_of_gray_become_eight(modules: Page) -> None:
    values = np.linspace(0, 65535, 40 * 30).astype(np.uint16).reshape(30, 40)
    for orientation in (1, 6):
        content = saved(Image.fromarray(values), "PNG", exif=turned(orientation))
        for reading in (Reading(), Reading(white_level=4095), Reading(white_level=16383)):
            assert far(in_browser(modules, content, reading), content, reading) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_colors_beneath_transparency_are_the_same_bits(modules: Page, make_picture: Draw, orientation: int) -> None:
    picture = make_picture("circle", 5, (37, 22)).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    palette = make_picture("square", 6, (31, 30)).quantize(8)
    gray = Image.merge("LA", (picture.getchannel("R"), picture.getchannel("A")))
    told = Reading(alpha="ignore")
    for each, more in (
        (picture, {}),
        (gray, {}),
        (palette, {"transparency": 0}),
        (palette, {"transparency": b"\x10\x80"}),
    ):
        content = saved(each, "PNG", exif=turned(orientation), **more)
        assert far(in_browser(modules, content, told), content, told) == 0


def test_interlaced_bands_of_data_are_the_same_bits(modules: Page) -> None:
    told = Reading(alpha="ignore")
    rng = np.random.default_rng(0)
    for width, height in ((21, 13), (3, 1), (8, 8)):
        pixels = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
        content = interlaced(pixels)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
        assert far(in_browser(modules, content, told), content, told) == 0


def test_what_a_page_cannot_read_as_told_gets_a_sentence(modules: Page, make_picture: Draw) -> None:
    told = Reading(alpha="ignore", white_level=4095)
    picture = make_picture("circle", 5, (48, 32)).convert("RGBA")
    opaque = saved(picture, "WEBP", lossless=True)
    assert far(in_browser(modules, opaque, told), opaque, told) == 0
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    webp, whole = saved(picture, "WEBP", lossless=True, exact=True), saved(picture, "PNG")
    deep = png(2, 1, struct.pack(">x6H", 0, 2048, 4095, 1, 2, 3), depth=16)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    cases = {
        webp: "save it as PNG",
        deep: "several bands of 16 bits",
        bytes(damaged): "damaged",
        whole[:-30]: "damaged",
    }
    for content, part in cases.items():
        found = in_browser(modules, content, told)
        assert isinstance(found, str)
        assert part in found


def interlaced(pixels: Pixels) -> bytes:
    """A PNG of RGBA in Adam7's seven passes, its lines filtered in all five ways."""
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b""
    for left, top, across, down in steps:
        part = pixels[top::down, left::across]
        if part.size:
            rows += filtered(part.reshape(len(part), -1).astype(int))
    return png(pixels.shape[1], pixels.shape[0], rows, kind=6, interlace=1)


def filtered(lines: NDArray[np.int64]) -> bytes:
    found, above = b"", np.zeros(lines.shape[1], int)
    for number, line in enumerate(lines):
        left, corner = (np.concatenate([np.zeros(4, int), each[:-4]]) for each in (line, above))
        three = np.stack([left, above, corner])
        paeth = np.take_along_axis(three, np.abs(left + above - corner - three).argmin(0)[None], 0)[0]
        kind = number % 5
        predicted = (0 * line, left, above, (left + above) // 2, paeth)[kind]
        found += bytes([kind]) + ((line - predicted) % 256).astype(np.uint8).tobytes()
        above = line
    return found


def png(width: int, height: int, rows: bytes = b"", depth: int = 8, kind: int = 2, interlace: int = 0) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_what_is_no_picture_gets_a_sentence(modules: Page, make_picture: Draw) -> None:
    good = make_picture("circle", 0, (64, 64))
    jpeg, whole, webp = saved(good, "JPEG"), saved(good, "PNG"), saved(good, "WEBP")
    cases = {
        b"": "empty",
        b"hello, this is text": "not a JPEG",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>": "not a JPEG",
        b"%PDF-1.7": "not a JPEG",
        b"\xff\xd8": "damaged",
        jpeg[: len(jpeg) // 2]: "damaged or incomplete",
        whole[: len(whole) // 2]: "damaged or incomplete",
        webp[: len(webp) // 2]: "damaged or incomplete",
        whole[:20]: "damaged",
        png(64, 64, b"\0" * 10): "damaged or incomplete",
        png(0, 5): "promises no pixels",
        png(100_000, 100_000): "100000 × 100000, 10000 megapixels",  # noqa: RUF001
    }
    for content, part in cases.items():
        found = in_browser(modules, content)
        assert isinstance(found, str), f"{content[:20]!r} was taken for a picture"
        assert part in found
        assert found.endswith(".")


def test_bytes_changed_at_random_give_pixels_or_a_sentence(modules: Page, make_picture: Draw) -> None:
    rng = np.random.default_rng(0)
    good = make_picture("square", 0, (40, 40))
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", *AVIF):
        content = saved(good, kind)
        for _ in range(8):
            broken = bytearray(content)
            for place in rng.integers(2, len(broken), 6):
                broken[place] = rng.integers(0, 256)
            found = in_browser(modules, bytes(broken))  # anything else raises
            assert isinstance(found, str) or found.ndim == 3
