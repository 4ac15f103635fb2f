"""The one place where a picture becomes pixels: every file, array or PIL image goes through `decode`.

So that a photo turned on its side, a palette, a cut-out with transparency or a 16-bit scan means the same thing in
training, evaluation and prediction.
"""

from __future__ import annotations

import io
import os
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from counterpoise.errors import DataError

Picture: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]

# What Pillow decodes by itself. Left out: EPS and WMF, which start other programs, and formats that it only recognizes.
_FORMATS = (
    *("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "QOI", "ICO", "CUR"),
    *("ICNS", "DDS", "PSD", "PCX", "DCX", "SGI", "SUN", "IM", "MSP", "XBM", "XPM", "BLP", "TGA"),
)
_LONGEST = 4  # sides; what lies farther out along a sliver cannot reach the central square


class CorruptImage(DataError):  # noqa: N818 - named by what it says about the file
    """A picture that cannot be read: missing, empty, truncated, not a picture, or absurdly large."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"Image {name} cannot be read: {reason}.")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[CorruptImage], tuple[str, str]]:
        return type(self), (self.name, self.reason)  # workers send it to the main process


def decode(image: Picture, name: str | None = None) -> Image.Image:
    """Decode a picture completely into 8-bit RGB.

    The EXIF orientation is applied, transparency is composited over white, palettes, greys and CMYK become RGB, 16-bit
    greys are scaled to 8 bits. Of an animation the first frame is taken.

    Args:
        image: path, the bytes of a file, a PIL image (left unchanged), or a uint8 array [H, W] or [H, W, 1, 2, 3 or 4].
        name: what errors call it; default: the path.

    Raises:
        CorruptImage: where it cannot be read to its end.
        DataError: where it is none of the things above.
    """
    name = name or (os.fspath(image) if isinstance(image, str | os.PathLike) else "given")
    if isinstance(image, np.ndarray):
        return _rgb(_from_array(image), name)
    if isinstance(image, str | os.PathLike):
        image = _read(Path(image), name)
    try:
        if isinstance(image, bytes):
            if not image:
                raise CorruptImage(name, "it is empty (0 bytes)")
            opened: Image.Image = Image.open(io.BytesIO(image), formats=_formats())
            opened.load()
        elif isinstance(image, Image.Image):
            image.load()
            opened = image.copy()
        else:
            raise DataError(
                f"Image {name} is a {type(image).__name__}; expected a path, bytes, a PIL image or a uint8 array."
            )
        return _rgb(_upright(opened), name)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # Pillow's many decoders raise many kinds of errors for damaged files
        raise CorruptImage(name, _reason(error)) from error


def to_tensor(image: Image.Image) -> Tensor:
    """Pixels of an image as uint8 [3, H, W]; one that is not RGB is decoded first."""
    if image.mode != "RGB":
        image = decode(image)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def header_size(path: str | os.PathLike[str], name: str | None = None) -> tuple[int, int]:
    """Height and width that a file's header promises, after its EXIF orientation. Decodes no pixels.

    Raises CorruptImage where the header cannot be read.
    """
    return _header_size(path, name or os.fspath(path))


def header_size_of_bytes(data: bytes, name: str) -> tuple[int, int]:
    """`header_size` for the bytes of a file."""
    return _header_size(io.BytesIO(data), name)


def prepare(image: Tensor, size: int, crop_share: float = 1.0) -> Tensor:
    """The view of evaluation and prediction: uint8 [3, H, W] -> uint8 [3, size, size].

    The shorter side is resized to `size / crop_share` (bilinear, antialiased) and the center is cut out, as published
    evaluations do. An image that already is `size` x `size` is returned unchanged.
    """
    if tuple(image.shape[-2:]) == (size, size):
        return image
    edge = max(size, round(size / crop_share))
    image = _without_far_ends(image)
    height, width = image.shape[-2:]
    if min(height, width) != edge:
        shorter = min(height, width)
        height, width = (edge if side == shorter else int(edge * side / shorter) for side in (height, width))
        image = resize(image, (height, width))
    top, left = round((height - size) / 2), round((width - size) / 2)  # as torchvision's center_crop
    return image[..., top : top + size, left : left + size].contiguous()


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [3, H, W] -> [3, *size], bilinear, antialiased.

    By Pillow, whose integer arithmetic gives the same pixels on every machine, and in the runners beside exports.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    whole = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    return to_tensor(whole.resize((size[1], size[0]), Image.Resampling.BILINEAR)).to(image.device)


@cache
def extensions() -> frozenset[str]:
    """File name endings, lower case and with their dot, of the formats that can be decoded here."""
    formats = set(_formats())
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in formats)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(kind for kind in _FORMATS if kind in Image.OPEN)


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CorruptImage(name, "the file does not exist") from None
    except IsADirectoryError:
        raise CorruptImage(name, "it is a folder") from None
    except OSError as error:
        raise CorruptImage(name, error.strerror or str(error)) from error


def _header_size(file: str | os.PathLike[str] | io.BytesIO, name: str) -> tuple[int, int]:
    try:
        with Image.open(file, formats=_formats()) as image:
            width, height = image.size
            turned = image.format != "TIFF" and _orientation(image) in range(5, 9)  # TIFF sizes are reported as turned
            return (width, height) if turned else (height, width)
    except MemoryError:
        raise
    except Exception as error:
        raise CorruptImage(name, _reason(error)) from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged metadata says nothing about the pixels
        return 1


def _upright(image: Image.Image) -> Image.Image:
    try:
        # In place, so that damage in other EXIF fields, which are rewritten afterwards, cannot undo the turn.
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # whatever is damaged in the metadata, the pixels are there
        return image
    return image


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _from_16_bits(np.asarray(image))
    if image.mode in ("I", "F"):
        # Some formats and Pillow versions open 16-bit greys as 32-bit integers; floats are taken as shares of white.
        values, white = np.asarray(image), 65535 if image.mode == "I" else 1
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= white):
            raise CorruptImage(
                name, f"its 32-bit values {low} to {high} are not within 0 to {white}; save 8 or 16 bits"
            )
        return _from_16_bits(values if white == 65535 else np.rint(values * 65535))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bits(values: NDArray[Any]) -> Image.Image:
    scaled = (values.astype(np.uint32) * 255 + 32767) // 65535
    return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (2, 3, 4))
    if array.dtype != np.uint8 or not fits or 0 in array.shape:
        given = f"{array.dtype} {list(array.shape)}"
        raise DataError(f"Image array is {given}; expected uint8 [height, width] or [height, width, 1 to 4 channels].")
    return Image.fromarray(array)


def _without_far_ends(image: Tensor) -> Tensor:
    """Cut the ends off a sliver (1 x 10000 pixels), which resizing would blow up to gigabytes."""
    height, width = image.shape[-2:]
    longest = _LONGEST * min(height, width)
    if max(height, width) <= longest:
        return image
    top, left = max(0, (height - longest) // 2), max(0, (width - longest) // 2)
    return image[..., top : top + min(height, longest), left : left + min(width, longest)]


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not a picture of a known format"
    if isinstance(error, Image.DecompressionBombError):
        return "it has more pixels than any photo (Pillow suspects a decompression bomb)"
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    return (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
