"""A header that is passed over says nothing that Pillow would have understood."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from counterpoise.data.jpeg_header import plain_size

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(kind: str = "RGB", **options: Any) -> bytes:
    """A JPEG that is 40 high and 60 wide."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).convert(kind).save(file, "JPEG", **options)
    return file.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
PLAIN = [
    saved(),
    saved("L"),
    saved(progressive=True),
    saved(optimize=True, restart_marker_rows=1, comment=b"by hand"),
    saved(icc_profile=PROFILE),
]
OTHERS = [saved("CMYK"), saved(keep_rgb=True), saved(exif=EXIF), saved(xmp=b"<x/>")]


def test_plain_headers_are_read_at_once_and_no_others() -> None:
    assert [plain_size(content) for content in PLAIN] == [(40, 60)] * len(PLAIN)
    assert [plain_size(content) for content in OTHERS] == [None] * len(OTHERS)
    assert [plain_size(PLAIN[0][:length]) for length in (0, 3, 25, 200)] == [None] * 4


@pytest.mark.parametrize("content", PLAIN + OTHERS)
def test_whatever_is_passed_over_pillow_opens_and_finds_nothing_in(content: bytes) -> None:
    header = content.index(b"\xff\xda") + 4

    @settings(max_examples=60, derandomize=True, database=None)
    @given(st.integers(2, header - 1), st.integers(1, 255), st.booleans())
    def changed(place: int, by: int, cut: bool) -> None:
        other = content[:place] + (b"" if cut else bytes([content[place] ^ by])) + content[place + 1 :]
        size = plain_size(other)
        if size is not None:
            image = Image.open(io.BytesIO(other))
            assert image.format == "JPEG"
            assert image.size == size[::-1]
            assert image.mode in ("RGB", "L")
            assert "adobe" not in image.info
            assert image.getexif().get(0x0112, 1) == 1

    changed()
