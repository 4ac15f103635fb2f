"""JPEGs by libjpeg-turbo itself (simplejpeg): the very pixels that Pillow makes, in less time, and only the part used.

Pillow reads every header that says more than its pixels need (jpeg_header.py), and decodes what is no plain JPEG, what
is damaged, and everything where the two decoders do not agree on a few samples: each brings a library of its own.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from counterpoise import decoding
from counterpoise.data.jpeg_header import plain_size
from counterpoise.data.jpeg_samples import SAMPLES
from counterpoise.decoding import Reading

SMALLER = (8, 4, 2)
"""How many times smaller JPEGs can be decoded at little cost."""

_START = b"\xff\xd8\xff"
_SUBSAMPLINGS = ("Gray", "444", "422", "420", "440")


class Part(NamedTuple):
    """A part of an upright picture, in pixels of its whole, and how many times smaller it may be decoded."""

    top: int
    left: int
    height: int
    width: int
    smaller: int = 1


Choose: TypeAlias = Callable[[int, int], Part]
"""The part that is wanted of a picture of this height and width."""


def whole(height: int, width: int) -> Part:
    """All of a picture, in its own size."""
    return Part(0, 0, height, width)


class _Turn(NamedTuple):
    """From a picture as it is stored to the upright one: mirrored top to bottom, left to right, and then transposed."""

    down: bool = False
    across: bool = False
    transposed: bool = False

    def stored(self, part: Part, height: int, width: int) -> Part:
        """Where a part of the upright picture lies in the stored one, which is of this size."""
        top, left, high, wide, smaller = part
        if self.transposed:
            top, left, high, wide = left, top, wide, high
        top = height - top - high if self.down else top
        left = width - left - wide if self.across else left
        return Part(top, left, high, wide, smaller)

    def upright(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] as stored -> upright; a view where nothing is mirrored."""
        if not any(self):
            return pixels
        single = pixels.view("V3")[..., 0]  # whole pixels move twice as fast as bytes
        single = single[:: -1 if self.down else 1, :: -1 if self.across else 1]
        turned = np.ascontiguousarray(single.T if self.transposed else single)
        return turned.view(np.uint8).reshape(*turned.shape, 3)


_TURNS = {
    2: _Turn(across=True),
    3: _Turn(down=True, across=True),
    4: _Turn(down=True),
    5: _Turn(transposed=True),
    6: _Turn(down=True, transposed=True),
    7: _Turn(down=True, across=True, transposed=True),
    8: _Turn(across=True, transposed=True),
}


def decode(content: bytes, reading: Reading, choose: Choose) -> tuple[NDArray[np.uint8], tuple[int, int]] | None:
    """The chosen part of the JPEG in a file, upright: uint8 [H, W, 3], as much smaller as was allowed.

    With it come height and width of the whole, in its own size.

    None where decoding.py is to decode it, or to say what is wrong with it.
    """
    if not content.startswith(_START):
        return None
    try:
        found = _at_once(content, reading, choose)
        if found is not None:
            return found
        with decoding.opened(io.BytesIO(content), reading) as image:
            if image.format not in ("JPEG", "MPO"):  # the second has further pictures, of which none is read
                return None
            width, height = image.size
            turn = _turn(image)
            extent = (width, height) if turn.transposed else (height, width)
            part = choose(*extent)
            pixels = _decoded(image, content, part.smaller)
        return None if pixels is None else (turn.upright(_cut(pixels, turn.stored(part, height, width))), extent)
    except MemoryError:
        raise
    except Exception:  # whatever it is, it is said by who decodes it then
        return None


def _at_once(content: bytes, reading: Reading, choose: Choose) -> tuple[NDArray[np.uint8], tuple[int, int]] | None:
    """The same of a JPEG whose header has nothing to be understood; None where it has, or is not decoded like that."""
    size = plain_size(content)
    if size is None or size[0] * size[1] / 1e6 > reading.max_megapixels or not agree():
        return None
    part = choose(*size)
    extent = -(-size[0] // part.smaller), -(-size[1] // part.smaller)
    pixels = _turbo(content, extent)
    return None if pixels is None or pixels.shape != (*extent, 3) else (_cut(pixels, part), size)


def _turn(image: Any) -> _Turn:
    """What the EXIF data say, as `decoding.upright` understands them."""
    try:
        return _TURNS.get(image.getexif().get(0x0112, 1), _Turn())
    except Exception:  # damaged metadata says nothing about the pixels
        return _Turn()


def _cut(pixels: NDArray[np.uint8], part: Part) -> NDArray[np.uint8]:
    """The part of a picture that may have been decoded smaller: to the nearest pixel, and one at least."""
    spans = []
    for start, length, there in ((part.top, part.height, pixels.shape[0]), (part.left, part.width, pixels.shape[1])):
        first, last = ((2 * edge + part.smaller) // (2 * part.smaller) for edge in (start, start + length))
        first = min(first, there - 1)
        spans.append(slice(first, max(min(last, there), first + 1)))
    return pixels[spans[0], spans[1]]


def _decoded(image: Any, content: bytes, smaller: int) -> NDArray[np.uint8] | None:
    """The pixels of an opened JPEG as they are stored, `smaller` times smaller; None where it is not for us."""
    width, height = image.size
    extent = -(-height // smaller), -(-width // smaller)
    pixels = None
    if _is_plain(image) and agree():
        pixels = _turbo(content, extent)
    if pixels is None and smaller > 1:
        pixels = _pillow(image, smaller)
    return pixels if pixels is not None and pixels.shape == (*extent, 3) else None


def _is_plain(image: Any) -> bool:
    """Whether an opened JPEG has gray or YCbCr pixels, by its header as Pillow reads it."""
    return image.mode in ("RGB", "L") and "adobe" not in image.info


def _turbo(content: bytes, extent: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Decoded by simplejpeg to this height and width, or nothing where as much as a warning was given."""
    import simplejpeg

    try:
        _, _, colors, subsampling = simplejpeg.decode_jpeg_header(content)
        if colors not in ("Gray", "YCbCr") or subsampling not in _SUBSAMPLINGS:
            return None
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            content, fastdct=False, fastupsample=False, min_height=extent[0], min_width=extent[1]
        )
    except ValueError:
        return None
    return pixels


def _pillow(image: Any, smaller: int) -> NDArray[np.uint8]:
    """An opened JPEG decoded by Pillow, `smaller` times smaller."""
    image.draft(None, (max(1, image.width // smaller), max(1, image.height // smaller)))
    raw, transparent, kind = decoding.raw_mode(image), decoding.is_transparent(image), image.format
    image.load()
    pixels: NDArray[np.uint8] = np.array(decoding.rgb(image, Reading(), raw, transparent, kind))
    return pixels


@cache
def agree() -> bool:
    """Whether simplejpeg is there and makes of each sample what Pillow makes of it, in every size."""
    try:
        return all(_agree(base64.b85decode(sample)) for sample in SAMPLES)
    except Exception:  # a wheel of another platform, an old version
        return False


def _agree(content: bytes) -> bool:
    for smaller in (1, *SMALLER):
        with decoding.opened(io.BytesIO(content)) as image:
            width, height = image.size
            theirs = _pillow(image, smaller)
        ours = _turbo(content, (-(-height // smaller), -(-width // smaller)))
        if ours is None or not np.array_equal(ours, theirs):
            return False
    return True
