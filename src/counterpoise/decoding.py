"""From a picture file to the pixels that a network takes, by numpy and Pillow alone.

The one place that says what pixels a picture becomes, so that a photo turned on its side, a palette, a cut-out or a
16-bit scan means the same in training, evaluation and prediction: data/images.py makes tensors of it, data/jpeg.py
comes to the same pixels of plain JPEGs faster, and the run.py beside an export holds the text of this file.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from counterpoise.bands import (
    NUMPY,
    TIFFS,
    array,
    array_shape,
    by_bands,
    dicom,
    dicom_frames,
    dicom_header,
    is_dicom,
    tiff,
    tiff_page,
    tiff_turn,
)
from counterpoise.reading import Ends, bounded, counted, eight_bits, scaled
from counterpoise.reading import Reading as Reading
from counterpoise.reading import Unreadable as Unreadable

# What Pillow decodes by itself. Left out: EPS and WMF, which start other programs, and formats that it only recognizes.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "QOI", "ICO", "CUR"),
    *("ICNS", "DDS", "PSD", "PCX", "DCX", "SGI", "SUN", "IM", "MSP", "XBM", "XPM", "BLP", "TGA"),
)
LONGEST = 4  # sides; what lies farther out along a sliver cannot reach the central square
FITS = ("crop", "squash", "pad")
EXTRA_SAMPLES, TRANSPARENCY = 338, (1, 2)  # a tag of TIFF, and which of its values say that the last band is alpha
PHOTOMETRIC, SAMPLE_FORMAT = 262, 339  # tags of TIFF: whether 0 is white (0), and whether values are signed (2)
SCALED = ("PPM", "JPEG2000")  # formats that say what is white, and are opened as 16 bits of it
LOCK = threading.Lock()
UNKNOWN = "it is not a picture of a known format"


def read(content: bytes, reading: Reading = Reading()) -> Any:  # noqa: B008 - a tuple does not change
    """The first picture of a file, upright: 8-bit RGB, of other channels uint8 [H, W, channels].

    Raises Unreadable, MemoryError.
    """
    if not content:
        raise Unreadable("it is empty (0 bytes)")
    try:
        if is_dicom(content):
            return shaped(dicom(content, reading), reading)
        if reading.arrays and content.startswith(NUMPY):
            return finished(array(content, reading), reading)
        if by_bands(reading) and content.startswith(TIFFS):
            return finished(tiff(content, reading), reading)
        return taken(opened(io.BytesIO(content), reading), reading)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:  # Pillow's many decoders raise many kinds of errors for damaged files
        raise Unreadable(why(error)) from error


def opened(file: Any, reading: Reading = Reading(), formats: Any = None) -> Any:  # noqa: B008
    """A Pillow image of a path or file, its header read. Raises Unreadable where it is too large, and what Pillow does.

    Pillow's own limit would warn from half of ours on, and refuse what the user has allowed.
    """
    with LOCK:
        wall, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(file, formats=formats or known_formats())
        finally:
            Image.MAX_IMAGE_PIXELS = wall
    try:
        bounded(image.height, image.width, reading)
    except Unreadable:
        image.close()
        raise
    return image


def pages(image: Any) -> int:
    """How many pages or frames the opened file has; only the first is read."""
    if image.format not in ("TIFF", "GIF", "WEBP", "PNG", "AVIF"):  # in a JPEG, previews
        return 1
    return int(getattr(image, "n_frames", 1))


def pages_of(content: bytes, reading: Reading) -> int:
    """`pages` of the bytes of a file, of any kind that `read` reads."""
    if is_dicom(content):
        return dicom_frames(dicom_header(io.BytesIO(content), reading))
    if content.startswith(NUMPY) or reading.channels not in (1, 3):
        return 1
    try:
        return pages(opened(io.BytesIO(content), reading))
    except Exception:  # what is behind the first may be cut off; Pillow has many words for it
        return 1


@cache
def known_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read here."""
    Image.init()
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


def raw_mode(image: Any) -> str:
    """How Pillow's decoder calls the layout of the pixels in an opened file, or nothing."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def is_transparent(image: Any) -> bool:
    """Whether an opened picture has transparency as its format defines it; in TIFF a tag says what the band is."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None and image.mode in ("RGBA", "LA", "PA"):
        extra = tags.get(EXTRA_SAMPLES, ())
        return any(kind in TRANSPARENCY for kind in (extra if isinstance(extra, tuple) else (extra,)))
    return bool(image.has_transparency_data)


def check_grays(image: Any) -> None:
    """Raises Unreadable where Pillow gives the grays of an opened TIFF otherwise than they are meant.

    It turns grays of 8 bits of which 0 is white, and not those of more; and signed ones of 8 bits lose their sign.
    """
    tags = getattr(image, "tag_v2", {})
    if tags.get(PHOTOMETRIC) == 0 and (image.mode.startswith("I;16") or image.mode in ("I", "F")):
        raise Unreadable("0 is white in it (MINISWHITE), of more than 8 bits: save it with 0 as black (MINISBLACK)")
    kinds = tags.get(SAMPLE_FORMAT, ())
    if 2 in (kinds if isinstance(kinds, tuple) else (kinds,)) and image.mode == "L":
        least = int(np.asarray(image).view(np.int8).min())
        if least < 0:
            raise Unreadable(
                f"its values are signed, from {least} on: save them without a sign, or say how they become gray with "
                "data.intensity"
            )


def upright(image: Any) -> Any:
    """The picture turned as its EXIF data say."""
    try:
        # In place, so that damage in other EXIF fields, which are rewritten afterwards, cannot undo the turn.
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # whatever is damaged in the metadata, the pixels are there
        return image
    return image


def rgb(image: Any, reading: Reading, raw: str, transparent: bool, kind: str | None) -> Any:
    """A loaded picture as 8-bit RGB.

    Args:
        raw, transparent, kind: `raw_mode`, `is_transparent` and format of the opened one.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return gray(np.asarray(image), image.mode, white_of(reading, raw, kind))
    if reading.white_level is not None and ";16" in raw:
        raise Unreadable(
            f"it has {len(image.getbands())} bands of 16 bits, and white_level is for gray pictures: save its colors "
            "in 8 bits"
        )
    if transparent and reading.alpha == "white":
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    image.info.pop("transparency", None)  # of palettes: Pillow would warn that it is left out
    return image if image.mode == "RGB" else image.convert("RGB")


def white_of(reading: Reading, raw: str, kind: str | None) -> int:
    """The value that is white in a gray file of more than 8 bits."""
    if raw.startswith("I;12"):
        return 4095
    return 65535 if kind in SCALED else reading.white_level or 65535


def gray(values: Any, mode: str, white: int) -> Any:
    """Grays of more than 8 bits, in 8; what lies above `white` is white."""
    if mode in ("I", "F"):
        # Some formats and Pillow versions open 16-bit greys as 32-bit integers; floats are taken as shares of white.
        low, high, most = values.min(), values.max(), 65535 if mode == "I" else 1
        if not (low >= 0 and high <= most):
            raise Unreadable(
                f"its 32-bit values {low} to {high} are not within 0 to {most}; save 8 or 16 bits, or say how they "
                "become 8 with data.intensity"
            )
        if mode == "F":
            values, white = np.rint(values * 65535), 65535
    return Image.fromarray(scaled(values, white)).convert("RGB")


def finished(values: Any, reading: Reading, between: Sequence[Ends] | None = None) -> Any:
    """Channels [H, W, C] as they lie in a file, as `read` gives them: of three, an image, for which one is enough.

    between: as for `eight_bits`.
    """
    if reading.channels != 3 or values.ndim != 3 or values.shape[2] not in (1, 3):
        counted(values, reading)
    return shaped(eight_bits(values, reading, between), reading)


def shaped(pixels: Any, reading: Reading) -> Any:
    """uint8 [H, W, C] as `read` gives it; three colors become gray where that is read, and gray three equal ones."""
    if reading.channels == 1 and pixels.shape[2] == 3:
        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    if reading.channels != 3:
        return counted(pixels, reading)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))


def taken(image: Any, reading: Reading) -> Any:
    """An opened picture as `read` gives it."""
    check_grays(image)
    if reading.intensity is None:
        return as_usual(image, reading)
    raw, kind, decoder = raw_mode(image), image.format, image.tile[0][0] if getattr(image, "tile", None) else "raw"
    deep = image.mode.startswith("I;16") or image.mode in ("I", "F")
    own = kind != "PPM" or decoder == "raw"  # values are those of the file
    if reading.intensity.kind in ("window", "white") and (not own or (deep and kind == "JPEG2000")):
        raise Unreadable(f"a {kind} comes as shares of its white, of which data.intensity.window and white know none")
    if deep:
        image.load()
        return finished(np.asarray(upright(image))[..., None], reading)
    if ";16" in raw:
        raise Unreadable("it has bands of 16 bits, of which only TIFFs and .npy files give all: save one")
    return finished(np.asarray(as_usual(image, reading)), reading)


def as_usual(image: Any, reading: Reading) -> Any:
    """An opened picture whose values become 8 bits as its format or the white level says."""
    raw, transparent, kind = raw_mode(image), is_transparent(image), image.format
    image.load()
    image = upright(image)
    if reading.channels in (1, 3):
        image = rgb(image, reading, raw, transparent, kind)
        return image if reading.channels == 3 else np.asarray(image.convert("L"))[..., None]
    if reading.white_level is not None and ";16" in raw:
        raise Unreadable("it has bands of 16 bits, and white_level is for those of TIFFs and .npy files: save one")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if transparent else "RGB")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise Unreadable(f"its pixels are {image.mode}, which are not taken as {reading.channels} channels")
    values = np.asarray(image)
    return counted(values if values.ndim == 3 else values[..., None], reading)


def extent(file: Any, reading: Reading) -> tuple[int, int] | None:
    """Height and width by the header of an open file that Pillow does not read; None where it does."""
    start = file.read(132)
    file.seek(0)
    if is_dicom(start):
        header = dicom_header(file, reading)
        return int(header.Rows), int(header.Columns)
    if reading.arrays and start.startswith(NUMPY):
        shape = array_shape(file, reading)
        return shape[0], shape[1]
    if by_bands(reading) and start.startswith(TIFFS):
        page = tiff_page(file, reading)
        height, width = page.imagelength, page.imagewidth
        return (width, height) if tiff_turn(page)[0] % 2 else (height, width)
    return None


def extent_of(picture: Any) -> tuple[int, int]:
    """Height and width of a picture as `read` gives it."""
    if isinstance(picture, np.ndarray):
        return int(picture.shape[0]), int(picture.shape[1])
    return picture.height, picture.width


def placing(
    width: int, height: int, size: tuple[int, int], crop_share: float | None, fit: str
) -> tuple[tuple[int, int, int, int], tuple[int, int], tuple[int, int]]:
    """How a picture is brought to the size (height, width) that a network takes.

    crop: the shorter side is resized to `size / crop_share` and the center is cut out, as published evaluations do.
    squash, and without a crop_share: all of it is resized to that size. pad: all of it is resized, its shape kept, and
    lies in the middle of black.

    Returns:
        Left, top, right and bottom of the part that is used; width and height to which that is resized; left and top
        of where it then lies on the network's input, less than 0 where it is cut.
    """
    high, wide = size
    whole = (0, 0, width, height)
    if fit == "pad" and crop_share is not None:
        longer = max(width * high, height * wide)  # of width / wide and height / high, over wide * high
        across, down = (max(1, (2 * side * wide * high + longer) // (2 * longer)) for side in (width, height))
        return whole, (across, down), ((wide - across) // 2, (high - down) // 2)
    if fit == "squash" or crop_share is None:
        return whole, (wide, high), (0, 0)
    longest = LONGEST * min(width, height)  # the ends of a sliver (1 x 10000 pixels) would take gigabytes
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    width, height = min(width, longest), min(height, longest)
    shorter, edge = min(width, height), max(high, round(high / crop_share))
    across, down = (edge if side == shorter else int(edge * side / shorter) for side in (width, height))
    # rounded as torchvision's center_crop
    return (
        (left, top, left + width, top + height),
        (across, down),
        (round((wide - across) / 2), round((high - down) / 2)),
    )


def show(image: Any, size: tuple[int, int], crop_share: float | None = 1.0, fit: str = "crop") -> Any:
    """An RGB picture as a network of this input size (height, width) is shown it: see `placing`.

    uint8 [H, W, channels] likewise, channel by channel.

    Resized by Pillow, bilinear and antialiased, whose integer arithmetic gives the same pixels on every machine. A
    picture of that size stays as it is.
    """
    high, wide = size
    if isinstance(image, np.ndarray):
        if image.shape[:2] == (high, wide):
            return image
        planes = [Image.fromarray(np.ascontiguousarray(image[..., index])) for index in range(image.shape[2])]
        return np.stack([np.asarray(show(plane, size, crop_share, fit)) for plane in planes], -1)
    if image.size == (wide, high):
        return image
    part, whole, (left, top) = placing(image.width, image.height, size, crop_share, fit)
    if part != (0, 0, *image.size):
        image = Image.fromarray(np.asarray(image)[part[1] : part[3], part[0] : part[2]])
    if image.size != whole:
        image = image.resize(whole, Image.Resampling.BILINEAR)
    if whole == (wide, high):
        return image
    if left < 0 or top < 0:
        return image.crop((-left, -top, wide - left, high - top))
    board = Image.new(image.mode, (wide, high))
    board.paste(image, (left, top))
    return board


def letterbox(image: Any, size: tuple[int, int], color: Any, reduction: float = 1) -> tuple[Any, tuple[int, int]]:
    """An RGB scene for a network of this size (height, width) that answers every pixel, and the part it then covers.

    uint8 [H, W, channels] likewise, channel by channel, each with its own number of the color. It lies in the upper
    left, `reduction` times smaller, as the network sees scenes, or more where it would not fit; the rest is of the
    color. The part: height, width.
    """
    high, wide = size
    height, width = extent_of(image)
    scale = min(1 / reduction, high / height, wide / width)
    covered = min(high, max(1, round(height * scale))), min(wide, max(1, round(width * scale)))
    if isinstance(image, np.ndarray):
        around = np.empty((high, wide, image.shape[2]), np.uint8)
        around[:] = color
        around[: covered[0], : covered[1]] = show(image, covered, None)
        return around, covered
    if image.size != covered[::-1]:
        image = image.resize(covered[::-1], Image.Resampling.BILINEAR)
    board = Image.new("RGB", (wide, high), color)
    board.paste(image, (0, 0))
    return board, covered


def cut(logits: Any, covered: tuple[int, int], size: tuple[int, int]) -> Any:
    """Of logits [..., h, w] of a network of this size, those of the part from the upper left, as models/padding.py."""
    for axis, edge, whole in ((-2, covered[0], size[0]), (-1, covered[1], size[1])):
        cells = logits.shape[axis]
        kept = -(-cells * edge // whole)
        places = np.arange(kept)
        held = logits.take(places, axis)
        back = ((places + 0.5) * (1 - cells * edge / (whole * kept))).astype(logits.dtype)
        before = held.take(np.maximum(places - 1, 0), axis)
        logits = held + (before - held) * (back[:, None] if axis == -2 else back)
    return logits


def why(error: Exception) -> str:
    """What an error of Pillow's says of the file."""
    if isinstance(error, UnidentifiedImageError):
        return UNKNOWN
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    if isinstance(error, AttributeError | LookupError | TypeError | UnicodeError):  # of the program, not of the file
        return "it does not hold what it should"
    return (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
