"""What a student says of pictures: python run.py PICTURE_OR_FOLDER ... (--help tells the rest).

Needs numpy, Pillow and executorch.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

LARGEST_VALUE = 1e300  # of floats: beyond it, differences have no room


class Intensity(NamedTuple):
    """Which values of a picture become black and white; what lies between is in proportion.

    Attributes:
        kind: "window" and "white", the values themselves; "percentiles", of each channel of a picture; "zscore",
            standard deviations from the mean of each channel of a picture.
        low, high: of that, black and white.
        of: "picture", or "volume": percentiles and the mean are those of all slices of its volume together.
    """

    kind: str
    low: float
    high: float
    of: str = "picture"

    def values(self) -> dict[str, Any]:
        """As the run file has it."""
        value = self.high if self.kind in ("zscore", "white") else [self.low, self.high]
        return {self.kind: value} if self.of == "picture" else {self.kind: value, "of": self.of}


def said(values: dict[str, Any]) -> Intensity:
    """The one of the four that values give, as `Intensity.values` has them."""
    ((kind, value),) = ((key, value) for key, value in values.items() if key != "of")
    low, high = value if isinstance(value, (list, tuple)) else (-value if kind == "zscore" else 0.0, value)
    return Intensity(kind, float(low), float(high), values.get("of", "picture"))


Ends = tuple[float, float]
"""The values that become black and white."""


class Reading(NamedTuple):
    """How pictures are read where their files leave it open.

    Attributes:
        alpha: "white" composites transparency over white; "ignore" leaves its band out, for files in which it is data.
        white_level: the value that is white in gray files of 16 bits; None: 65535.
        max_megapixels: larger pictures are refused.
        channels: how many a picture becomes: 3 are RGB, 1 gray; of any other number files must have that many, which
            are taken as they are.
        intensity: how values become 8 bits, of any depth; None: as `white_level` says.
    """

    alpha: str = "white"
    white_level: int | None = None
    max_megapixels: float = 179.0
    channels: int = 3
    intensity: Intensity | None = None

    @property
    def arrays(self) -> bool:
        """Whether .npy files are pictures."""
        return self.channels != 3 or self.intensity is not None


class Unreadable(Exception):  # noqa: N818 - named by what it says about the file
    """A picture that cannot be read; the text says why."""


def bounded(height: int, width: int, reading: Reading) -> None:
    """Raises Unreadable for more pixels than are allowed; one of more than three channels counts as several."""
    megapixels = height * width * max(1, reading.channels / 3) / 1e6
    if megapixels > reading.max_megapixels:
        raise Unreadable(
            f"it has {megapixels:,.0f} megapixels, more pixels than max_megapixels {reading.max_megapixels:g} allows"
        )


def counted(values: Any, reading: Reading) -> Any:
    """The array [H, W, channels], which has as many as are read. Raises Unreadable where not."""
    if values.ndim != 3 or values.shape[2] != reading.channels or 0 in values.shape:
        given = f"{values.shape[2]} channels" if values.ndim == 3 else f"the shape {list(values.shape)}"
        raise Unreadable(f"it has {given}, and data.channels is {reading.channels}")
    return values


def eight_bits(values: Any, reading: Reading, between: Sequence[Ends] | None = None) -> Any:
    """Channels [H, W, C] in 8 bits: as `intensity` says; else of 16 as shares of the white level, floats of 1.

    between: of each channel, where they are those of a volume.
    """
    if reading.intensity is not None:
        return brought(values, reading.intensity, between)
    if values.dtype == np.uint8:
        return values
    white = reading.white_level or 65535
    if values.dtype.kind == "f":
        low, high, white = values.min(), values.max(), 65535
        if not (low >= 0 and high <= 1):
            raise Unreadable(
                f"its values {low:g} to {high:g} are not within 0 to 1, as floats are read: say with data.intensity "
                "how they become 8 bits"
            )
        values = np.rint(values.astype(np.float64) * 65535)
    elif values.dtype.kind != "u" or values.dtype.itemsize != 2:
        raise Unreadable(
            f"its values are {values.dtype}; uint8, uint16 and floats within 0 to 1 are read, others where "
            "data.intensity says how they become 8 bits"
        )
    return scaled(values, white)


def scaled(values: Any, white: int) -> Any:
    """Values from 0 on as shares of `white`, in 8 bits; what lies above is white."""
    return ((np.minimum(values.astype(np.uint32), white) * 255 + white // 2) // white).astype(np.uint8)


def brought(values: Any, intensity: Intensity, between: Sequence[Ends] | None = None) -> Any:
    """Channels [H, W, C] of any depth in 8 bits, each by itself. Raises Unreadable where values are no numbers, and
    where black and white are those of a volume and nobody says which these are."""
    if intensity.of != "picture" and between is None:
        raise Unreadable(
            f"it is one picture, and data.intensity is {intensity.kind} of whole volumes, which one slice does not "
            "tell: give the volume (NIfTI, a stack, a folder of DICOM)"
        )
    if values.dtype.kind not in "uif":
        raise Unreadable(f"its values are {values.dtype}, which are no numbers that become gray")
    found = np.empty(values.shape, np.uint8)
    band = max(1, 2**20 // max(1, values.shape[1]))  # rows at a time, where values take eight bytes each
    for channel in range(values.shape[2]):
        plane = values[..., channel]
        if plane.dtype.kind in "ui" and plane.dtype.itemsize <= 2:
            least = -(1 << 8 * plane.dtype.itemsize - 1) if plane.dtype.kind == "i" else 0
            places, total = plane.astype(np.int32) - least, 1 << 8 * plane.dtype.itemsize
            levels = np.arange(total, dtype=np.float64) + least
            edges = (intensity.low, intensity.high) if between is None else between[channel]
            if intensity.kind not in ("window", "white") and between is None:
                edges = ends_of_counts(levels, np.bincount(places.ravel(), minlength=total), intensity)
            found[..., channel] = shares(levels, edges, intensity)[places]
        else:
            rows = [slice(top, top + band) for top in range(0, len(plane), band)]
            if not all((np.abs(plane[part].astype(np.float64)) <= LARGEST_VALUE).all() for part in rows):
                raise Unreadable("it holds values that are no finite numbers (NaN, infinity, or beyond 1e300)")
            edges = ends(plane, intensity) if between is None else between[channel]
            for part in rows:
                found[part, :, channel] = shares(plane[part].astype(np.float64), edges, intensity)
    return found


def ends_of_counts(levels: Any, counts: Any, intensity: Intensity) -> Ends:
    """The values that are black and white, of a picture that has each of these levels so many times: exact sums."""
    kind, low, high, _ = intensity
    there = counts > 0
    levels, counts = levels[there], counts[there]
    total = int(counts.sum())
    if kind == "percentiles":
        upto, found = np.cumsum(counts), []
        for share in (low, high):
            place = share / 100 * (total - 1)
            below = levels[np.searchsorted(upto, int(place), side="right")]
            above = levels[np.searchsorted(upto, min(int(place) + 1, total - 1), side="right")]
            found.append(float(below + (above - below) * (place - int(place))))
        return found[0], found[1]
    numbers = [(int(level), int(count)) for level, count in zip(levels, counts, strict=True)]
    first, second = (sum(level**power * count for level, count in numbers) for power in (1, 2))
    mean, spread = first / total, (max(0, second * total - first * first) ** 0.5) / total
    return mean + low * spread, mean + high * spread


def ends(plane: Any, intensity: Intensity) -> Ends:
    """The values of a channel, finite numbers [H, W], that are black and white."""
    kind, low, high, _ = intensity
    if kind in ("window", "white"):
        return low, high
    plane = plane.astype(np.float64)
    if kind == "percentiles":
        black, white = np.percentile(plane, (low, high))
        return float(black), float(white)
    scale = float(np.abs(plane).max()) or 1.0  # so that no square is too large
    mean, spread = float((plane / scale).mean()) * scale, float((plane / scale).std()) * scale
    return mean + low * spread, mean + high * spread


def shares(values: Any, between: tuple[float, float], intensity: Intensity) -> Any:
    """Values, float64, in 8 bits, of which `between` are black and white.

    Where these are one value, what lies above it is white and the rest black; a channel of one value by zscore is gray.
    """
    black, white = between
    if not white > black:
        return np.full(values.shape, 128, np.uint8) if intensity.kind == "zscore" else (values > white) * np.uint8(255)
    return np.floor((np.clip(values, black, white) - black) * 255 / (white - black) + 0.5).astype(np.uint8)
import io
from typing import Any

import numpy as np


NUMPY, TIFFS = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how files of arrays and TIFFs begin
PACKED = (1, 5, 8, 32946, 32773, 50000)  # of channels in TIFF: not at all, LZW, DEFLATE twice, PackBits, ZSTD
TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (3, False), 7: (3, True), 8: (1, False)}
DEFLATED = "1.2.840.10008.1.2.1.99"  # a syntax of DICOM, which is unpacked as a whole before anything is known of it
FRAMES_OF_JPEG = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7)


def by_bands(reading: Reading) -> bool:
    """Whether TIFFs are read by tifffile, all bits of all their bands."""
    return reading.channels not in (1, 3) or reading.intensity is not None


def array_shape(file: Any, reading: Reading) -> tuple[int, ...]:
    """The shape [H, W, channels] that the header of a .npy file promises. Raises Unreadable, and what numpy does."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise Unreadable("it is a .npy file of another version than 1.0, which arrays of pictures are")
    shape, _, kind = np.lib.format.read_array_header_1_0(file)
    if len(shape) == 2 and reading.channels in (1, 3):
        shape = (*shape, 1)
    fits = len(shape) == 3 and (shape[2] == reading.channels or (shape[2] == 1 and reading.channels == 3))
    if kind.hasobject or not fits or min(shape) < 1:
        raise Unreadable(f"it holds {kind} {list(shape)}, expected [height, width, {reading.channels}] (data.channels)")
    bounded(shape[0], shape[1], reading)
    return tuple(shape)


def array(content: bytes, reading: Reading) -> Any:
    """The picture in a .npy file: [H, W, channels]. Raises Unreadable, and what numpy does."""
    shape = array_shape(io.BytesIO(content), reading)
    return np.load(io.BytesIO(content), allow_pickle=False).reshape(shape)


def tiff_page(file: Any, reading: Reading) -> Any:
    """The first page of a TIFF, by tifffile, its header read. Raises Unreadable where it is not for us."""
    page = tiff_pages(file)[0]
    count = page.samplesperpixel
    if count != reading.channels and not (count == 1 and reading.channels == 3):
        raise Unreadable(f"its first page has {count} channels, and data.channels is {reading.channels}")
    check_page(page, reading)
    return page


def tiff_pages(file: Any) -> Any:
    """The pages of a TIFF, by tifffile. Raises Unreadable where that is not installed."""
    try:  # the second keeps what is unpacked to the size of a tile, which the decoders within the first do not
        import imagecodecs  # noqa: F401
        import tifffile
    except ImportError:
        raise Unreadable(
            "a TIFF of such channels is read by the packages tifffile and imagecodecs, which are not installed"
        ) from None
    pages: Any = tifffile.TiffFile(file).pages
    return pages


def check_page(page: Any, reading: Reading) -> None:
    """Raises Unreadable where a page is not for us."""
    height, width = page.imagelength, page.imagewidth
    if page.imagedepth != 1:
        raise Unreadable(f"a page is {page.imagedepth} pictures deep")
    bounded(height, width, reading)
    if page.photometric not in (1, 2):
        raise Unreadable(f"its colors are {getattr(page.photometric, 'name', page.photometric)}: save plain channels")
    if page.bitspersample not in (8, 16, 32, 64) and (page.bitspersample != 12 or reading.intensity is None):
        raise Unreadable(f"its channels have {page.bitspersample} bits: save 8 or 16")
    if page.is_tiled and page.tilelength * page.tilewidth > 4 * max(height * width, 2**20):
        raise Unreadable(f"its tiles of {page.tilewidth} x {page.tilelength} are much larger than itself")
    if page.compression not in PACKED:
        raise Unreadable(f"it is packed by {getattr(page.compression, 'name', page.compression)}: save DEFLATE or LZW")


def tiff_turn(page: Any) -> tuple[int, bool]:
    """How many quarters to the left a page is turned, and whether it is mirrored before."""
    return TURNS.get(page.tags[274].value if 274 in page.tags else 1, (0, False))


def tiff(content: bytes, reading: Reading) -> Any:
    """The first page of a TIFF, upright: [H, W, channels]. Raises Unreadable, and what tifffile does."""
    page = tiff_page(io.BytesIO(content), reading)
    return page_values(page)


def page_values(page: Any) -> Any:
    """The values of a page of a TIFF, upright: [H, W, channels]. Raises what tifffile does."""
    values = page.asarray(maxworkers=1)
    if page.samplesperpixel == 1:
        values = values[..., None]
    elif page.planarconfig == 2:
        values = np.moveaxis(values, 0, -1)
    turns, mirrored = tiff_turn(page)
    return np.rot90(values[:, :: -1 if mirrored else 1], turns)


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins like this, by 132 bytes, is one of DICOM."""
    return start[128:132] == b"DICM"


def dicom_syntax(file: Any) -> str:
    """How an open DICOM file is written, by its number; empty where it does not say."""
    file.seek(132)
    while True:
        head = file.read(8)
        if len(head) < 8 or head[:2] != b"\x02\x00":
            return ""
        length = int.from_bytes(head[6:8], "little")
        if head[4:6] in (b"OB", b"OW", b"UN", b"SQ"):
            length = int.from_bytes(file.read(4), "little")
        if head[2:4] == b"\x10\x00":
            return str(file.read(min(length, 64)).decode("ascii", "replace").strip("\0 "))
        file.seek(length, 1)


class _Whole:
    """A file that is asked for no more than it holds: Python sets aside as much as it is asked for."""

    def __init__(self, file: Any) -> None:
        self.file = file
        place = file.tell()
        self.end = file.seek(0, 2)
        file.seek(place)

    def read(self, size: int = -1) -> Any:
        return self.file.read(size if size < 0 else min(size, max(0, self.end - self.file.tell())))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def dicom_header(file: Any, reading: Reading, pixels: bool = False) -> Any:
    """What an open DICOM file says, with its pixels, still packed, or without them. Raises Unreadable."""
    try:
        import pydicom
    except ImportError:
        raise Unreadable(
            "a DICOM file is read by the package pydicom, which is not installed: pip install 'counterpoise[medical]'"
        ) from None
    if dicom_syntax(file) == DEFLATED:
        raise Unreadable("it is deflated as a whole, which is not read: save it uncompressed")
    file.seek(0)
    found: Any = pydicom.dcmread(_Whole(file), stop_before_pixels=not pixels)
    kind = getattr(getattr(found, "SOPClassUID", None), "name", "unknown")
    if not isinstance(found.get("Rows"), int) or not isinstance(found.get("Columns"), int):
        raise Unreadable(f"it is a DICOM file without pixels (its kind is {kind})")
    if min(found.Rows, found.Columns) < 1:
        raise Unreadable(f"it is a DICOM file of {found.Columns} x {found.Rows} pixels")
    if pixels and not found.get("PixelData"):
        raise Unreadable(f"it is a DICOM file without pixels (its kind is {kind})")
    bounded(found.Rows, found.Columns, reading)
    return found


def dicom_frames(header: Any) -> int:
    """How many frames a DICOM file has."""
    return max(1, int(header.get("NumberOfFrames") or 1))


def dicom_spacing(header: Any) -> tuple[float, float] | None:
    """Millimeters in the patient from row to row, and from column to column; None where the file does not say."""
    found = header.get("PixelSpacing")
    if found is None:
        try:
            groups = header.SharedFunctionalGroupsSequence[0]
            found = groups.PixelMeasuresSequence[0].PixelSpacing
        except (AttributeError, IndexError):
            return None
    down, across = float(found[0]), float(found[1])
    return (down, across) if 0 < down < 1e6 and 0 < across < 1e6 else None


def dicom(content: bytes, reading: Reading) -> Any:
    """The first frame of a DICOM file in 8 bits, [H, W, 1 or 3]: rescaled, and MONOCHROME1 turned to white on black.

    Raises Unreadable, and what pydicom does.
    """
    header = dicom_header(io.BytesIO(content), reading, pixels=True)
    pixels = eight_bits_of_dicom(dicom_values(header), reading)
    return 255 - pixels if header.PhotometricInterpretation == "MONOCHROME1" else pixels


def dicom_values(header: Any) -> Any:
    """The values of the first frame of a file, [H, W, 1 or 3], rescaled. Raises as `dicom`."""
    kind = str(header.get("PhotometricInterpretation"))
    if kind not in ("MONOCHROME1", "MONOCHROME2", "RGB") and not kind.startswith("YBR_"):
        raise Unreadable(f"its colors are {kind}: MONOCHROME1, MONOCHROME2, RGB and YBR are read")
    dicom_unpackable(header)
    import pydicom.pixels

    tools: Any = pydicom.pixels
    values = tools.pixel_array(header, index=0)
    if values.ndim == 3:
        return values
    plain = float(header.get("RescaleSlope") or 1) == 1 and float(header.get("RescaleIntercept") or 0) == 0
    if not plain or "ModalityLUTSequence" in header:
        values = tools.apply_modality_lut(values, header)
    return values[..., None]


def eight_bits_of_dicom(values: Any, reading: Reading) -> Any:
    """Values of DICOM in 8 bits. Raises Unreadable where nothing says how they become that."""
    known = reading.intensity is not None or (reading.white_level is not None and values.dtype == np.uint16)
    if values.dtype != np.uint8 and not known:
        raise Unreadable(
            f"its values are {values.dtype}, {values.min():g} to {values.max():g}: say with data.intensity how they "
            "become 8 bits, such as window: [-160, 240]"
        )
    return eight_bits(values, reading)


def dicom_unpackable(header: Any) -> None:
    """Raises Unreadable where pixels are packed by what is not here, or are more than the header promises."""
    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    import pydicom.pixels
    from pydicom.encaps import get_frame

    tools: Any = pydicom.pixels
    try:
        able = tools.get_decoder(syntax).is_available
    except NotImplementedError:  # what pydicom raises for a syntax that it knows no decoder of
        raise Unreadable(f"it is packed as {syntax.name}, which is not read: save it uncompressed") from None
    if not able:
        raise Unreadable(
            f"it is packed as {syntax.name}, and nothing installed unpacks that: pip install pylibjpeg "
            "pylibjpeg-libjpeg pylibjpeg-openjpeg, or save it uncompressed"
        )
    frame = get_frame(header.PixelData, 0, number_of_frames=dicom_frames(header))
    size = stream_extent(frame)
    if size is not None and size != (header.Rows, header.Columns):
        raise Unreadable(
            f"its packed pixels are {size[1]} x {size[0]}, and its header says {header.Columns} x {header.Rows}"
        )


def stream_extent(frame: bytes) -> tuple[int, int] | None:
    """Height and width that a stream of JPEG, JPEG-LS or JPEG 2000 promises; None where it is none of them."""
    if frame[:4] == b"\xff\x4f\xff\x51":
        left, top = (int.from_bytes(frame[at : at + 4], "big") for at in (16, 20))
        right, bottom = (int.from_bytes(frame[at : at + 4], "big") for at in (8, 12))
        return bottom - top, right - left
    if frame[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        if frame[at + 1] in FRAMES_OF_JPEG:
            return int.from_bytes(frame[at + 5 : at + 7], "big"), int.from_bytes(frame[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return 0, 0
import io
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


# What Pillow decodes by itself. Left out: EPS and WMF, which start other programs, and formats that it only recognizes.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "QOI", "ICO", "CUR"),
    *("ICNS", "DDS", "PSD", "PCX", "DCX", "SGI", "SUN", "IM", "MSP", "XBM", "XPM", "BLP", "TGA"),
)
LONGEST = 4  # sides; what lies farther out along a sliver cannot reach the central square
FITS = ("crop", "squash", "pad")
EXTRA_SAMPLES, TRANSPARENCY = 338, (1, 2)  # a tag of TIFF, and which of its values say that the last band is alpha
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
    return pages(opened(io.BytesIO(content), reading))


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

def load(path: str, threads: int | None) -> Runtime:
    """The logits of pixels, by ExecuTorch's Python runtime, which takes torch tensors; threads are the process's."""
    import numpy as np
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    if threads is not None:
        portable_lib._unsafe_reset_threadpool(threads)
    program = Runtime.get().load_program(path)
    method = program.load_method("forward")
    largest = program.metadata("forward").input_tensor_meta(0).sizes()[0]

    def run(pixels: np.ndarray, program: Any = program) -> np.ndarray:  # a method lives as long as its program
        parts = [torch.tensor(pixels[start : start + largest]) for start in range(0, len(pixels), largest)]
        return np.concatenate([method.execute([part])[0].numpy() for part in parts])

    return run


def asked(about: Any, arguments: Any) -> Any:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="run.py",
        description=f"What a student ({about['architecture']}, {len(about['classes'])} classes) says of pictures.",
    )
    parser.add_argument("pictures", nargs="+", type=Path, help="picture files, or folders of them")
    parser.add_argument(
        "--max_megapixels", type=float, default=Reading().max_megapixels, help="larger ones are refused"
    )
    if about["task"].endswith("segmentation"):
        parser.add_argument("--out", type=Path, help="file of the mask, PNG; of several pictures, folder of the masks")
        parser.add_argument("--overwrite", action="store_true", help="replace masks that are there")
        parser.add_argument("--probabilities", action="store_true", help="write them, too: PNG of 16 bits, 65535 is 1")
    return parser.parse_args(arguments)


def pictures_in(given: Any, arrays: bool = False) -> Any:
    """The picture files among paths and in folders, at any depth, hidden ones left out; each with a name of its own."""
    Image.init()
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in known_formats()}
    endings |= {".dcm", ".dicom", *([".npy"] if arrays else [])}
    found, names = [], set()
    for path in given:
        files = [path]
        if path.is_dir():
            inside = (file for file in sorted(path.rglob("*")) if file.is_file() and file.suffix.lower() in endings)
            files = [file for file in inside if not any(part[0] == "." for part in file.relative_to(path).parts)]
            if not files:
                print(f"{path} holds no pictures", file=sys.stderr)
        for file in files:
            name = "-".join(file.relative_to(path).with_suffix("").parts) if path.is_dir() else file.stem
            while name in names:
                name += "-"
            names.add(name)
            found.append((file, name))
    return found


def loaded(path: Any, reading: Any) -> Any:
    """A picture as `read` gives it; further pages are said. Raises Unreadable."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Unreadable("the file does not exist") from None
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None
    picture = read(content, reading)
    count = pages_of(content, reading)
    if count > 1:
        print(f"{path} has {count} pages or frames: only the first is read", file=sys.stderr)
    return picture


def pixels_of(picture: Any, about: Any) -> Any:
    """uint8 [1, C, H, W], as the network takes them, and height and width of the part that the picture covers."""
    size, reduction = tuple(about["size"]), about.get("reduction", 1)
    own = tuple(max(1, round(side / reduction)) for side in extent_of(picture))
    if about.get("any_size"):
        size = own
    if about.get("around") is None or own == size:
        shown, covered = show(picture, size, about["crop_share"], about.get("fit", "crop")), size
    else:
        shown, covered = letterbox(picture, size, tuple(about["around"]), reduction)
    return np.ascontiguousarray(np.asarray(shown).transpose(2, 0, 1)[None]), covered


def files_of(out: Any, about: Any, soft: Any) -> Any:
    """The files of one picture: its mask, or one for each question, and those of probabilities where wanted."""
    parts: Any = []
    for name in about["classes"]:
        part = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name).strip("-.") or "class"
        while part.lower() in [one.lower() for one in parts]:
            part += "-"
        parts.append(part)
    stem = out.stem[:-4] if out.stem.endswith("mask") else f"{out.stem}-"
    several = about["task"] != "segmentation"
    masks = [out.with_name(f"{stem}{part}-mask.png") for part in parts] if several else [out]
    return masks, [out.with_name(f"{stem}{part}-probability.png") for part in parts] if soft else []


def write_soft(files: Any, shares: Any) -> None:
    """Write probabilities, a PNG of 16 bits for each class."""
    for file, layer in zip(files, shares, strict=True):
        Image.fromarray(np.rint(65535 * layer).astype(np.uint16)).save(file, format="PNG")


def enlarged(logits: Any, size: Any, most: int = 2**25) -> Any:
    """Logits [C, h, w] at a picture's width and height: at once or, where those are many, some rows at a time.

    The first row, that behind the last, and a layer a class.
    """
    (width, height), (_, rows, columns) = size, logits.shape
    step = height if len(logits) * width * height <= most else max(1, most // (8 * len(logits) * width))
    for first in range(0, height, step):
        end = min(first + step, height)
        part = (0, first * rows / height, columns, end * rows / height)
        shape, images = (width, end - first), (Image.fromarray(layer) for layer in logits)
        yield first, end, [np.asarray(one.resize(shape, Image.Resampling.BILINEAR, part)) for one in images]


def write_classes(mask: Any, about: Any, out: Any) -> Any:
    """Write a mask as the values of a PNG; the share of each class, a line each."""
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(out, format="PNG")
    rows = max(1, 2**22 // mask.shape[1])
    parts = (mask[first : first + rows].ravel() for first in range(0, len(mask), rows))
    counts = sum((np.bincount(part, minlength=256) for part in parts), np.zeros(256, np.int64))
    return [f"{counts[index] / mask.size:8.4f}  {about['classes'][index]}" for index in np.flatnonzero(counts)]


def write_mask(logits: Any, about: Any, picture: Any, out: Any) -> Any:
    """Write the class of every pixel of the picture, as the values of a PNG; the share of each, a line each."""
    (file, *_), soft = out
    size = extent_of(picture)[::-1]
    mask, shares = np.empty(size[::-1], np.uint8), []
    for first, end, layers in enlarged(logits, size):
        mask[first:end] = np.argmax(layers, axis=0)
        if soft:
            some = np.exp(np.stack(layers) - np.max(layers, axis=0))
            shares.append(some / some.sum(0))
    if soft:
        write_soft(soft, np.concatenate(shares, 1))
    return write_classes(mask, about, file)


def begins(length: int, window: int, stride: int) -> list[int]:
    """Where windows along a side begin; the last one ends with it."""
    return [*range(0, length - window, stride), length - window]


def weight_of(window: Any, blend: str) -> Any:
    """How much each pixel of a window (height, width) counts, float32 [h, w]; None: all alike."""
    if blend == "mean":
        return None
    sides = []
    for edge in window:
        place = np.arange(edge) + 0.5
        if blend == "linear":
            sides.append(np.minimum(place, edge - place) / (edge / 2))
        else:
            sides.append(np.exp(-((place - edge / 2) ** 2) / (2 * (edge / 8) ** 2)))
    return np.maximum(np.outer(*sides), 1e-3).astype(np.float32)


def through_window(picture: Any, place: Any, about: Any, run: Any) -> Any:
    """Logits [C, h, w] of the part of a picture at top, left, height and width, which is the window or less of it."""
    top, left, height, width = place
    size = tuple(about["size"])
    if isinstance(picture, np.ndarray):
        pixels = picture[top : top + height, left : left + width]
    else:
        pixels = np.asarray(picture.crop((left, top, left + width, top + height)))
    if (height, width) != size:
        board = np.empty((*size, pixels.shape[2]), np.uint8)
        board[:] = about["around"]
        board[:height, :width] = pixels
        pixels = board
    pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
    logits = run(np.repeat(pixels, about["batch"] or 1, 0))[0]
    if (height, width) != size:
        logits = cut(logits, (height, width), size)
    if logits.shape[1:] == (height, width):
        return logits
    layers = (np.ascontiguousarray(layer, np.float32) for layer in logits)
    return np.stack(
        [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BILINEAR)) for one in layers]
    )


def slid(picture: Any, about: Any, run: Any, most: int = 2**24) -> Any:
    """Logits for every pixel, piece by piece: the top and left of each, and float32 [C, h, w].

    most: values that are held for a row of windows; what is wider comes in strips, and windows between two of them are
    asked about in both.
    """
    extent, moves = extent_of(picture), about["window"]["stride"]
    high, wide = (min(edge, side) for edge, side in zip(about["size"], extent, strict=True))
    tops, lefts = begins(extent[0], high, moves[0]), begins(extent[1], wide, moves[1])
    weight = weight_of((high, wide), about["window"]["blend"])
    first = through_window(picture, (0, 0, high, wide), about, run)
    strip = max(wide, most // (len(first) * high))
    for left in range(0, extent[1], strip):
        right = min(left + strip, extent[1])
        total = np.zeros((len(first), high, right - left), np.float32)
        seen = np.zeros((high, right - left), np.float32)
        for top, done in zip(tops, [*tops[1:], extent[0]], strict=True):
            for start in lefts:
                begin, end = max(start, left), min(start + wide, right)
                if begin >= end:
                    continue
                logits = through_window(picture, (top, start, high, wide), about, run)
                inner, here = slice(begin - start, end - start), slice(begin - left, end - left)
                total[:, :, here] += logits[..., inner] if weight is None else (logits * weight)[..., inner]
                seen[:, here] += 1 if weight is None else weight[:, inner]
            yield top, left, total[:, : done - top] / seen[: done - top]
            for layer in (*total, seen):  # what is done makes room
                layer[: high - (done - top)] = layer[done - top :].copy()
                layer[high - (done - top) :] = 0


def write_by_window(picture: Any, about: Any, run: Any, answer: Any, out: Any) -> Any:
    """What `answer` writes of a picture of any size that is answered window by window.

    Masks of one class a pixel are made as logits come; else, and where scenes are reduced, logits are held at the
    size of the scene as shown.
    """
    size, reduction = extent_of(picture), about["input"].get("reduction", 1)
    own = tuple(max(1, round(side / reduction)) for side in size)
    if own == size and answer is write_mask and not out[1]:
        mask = np.empty(size, np.uint8)
        for top, left, part in slid(picture, about["input"], run):
            mask[top : top + part.shape[1], left : left + part.shape[2]] = np.argmax(part, axis=0)
        return write_classes(mask, about, out[0][0])
    logits = np.empty((len(about["classes"]), *own), np.float32)
    for top, left, part in slid(picture if own == size else show(picture, own, None), about["input"], run):
        logits[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    return answer(logits, about, picture, out)


def top_five(logits: Any, about: Any, picture: Any, out: Any) -> Any:
    """The five likeliest classes with their probabilities, a line each."""
    shares = logits
    if about.get("outputs", "logits") == "logits":
        shares = np.exp(logits - logits.max())
        shares = shares / shares.sum()
    best = np.argsort(-logits, kind="stable")[:5]
    return [f"{shares[index]:8.4f}  {about['classes'][index]}" for index in best]


def main(here: Any, description: str, file: str, answer: Any, load: Any, arguments: Any = None) -> int:
    """Answer every picture; one that cannot be read is named, and the others are answered. The exit code."""
    about = json.loads((here / description).read_text(encoding="utf-8"))
    given, takes = asked(about, arguments), about["input"]
    channels = takes.get("channels", "RGB")
    channels = 3 if channels == "RGB" else channels
    intensity = said(takes["intensity"]) if "intensity" in takes else None
    reading = Reading(takes.get("alpha", "white"), takes.get("white_level"), given.max_megapixels, channels, intensity)
    found, dense, failed = pictures_in(given.pictures, reading.arrays), about["task"].endswith("segmentation"), 0
    several = len(found) > 1 or any(path.is_dir() for path in given.pictures)
    run = load(str(here / file), None)
    for path, name in found:
        out = None
        try:
            if dense:
                out = (given.out or Path("masks")) / f"{name}-mask.png" if several else given.out or Path("mask.png")
                out = files_of(out, about, given.probabilities)
                there = [file for kind in out for file in kind if file.exists()]
                if there and not given.overwrite:
                    raise FileExistsError(f"{there[0]} is there already: give --overwrite, or another --out")
            picture = loaded(path, reading)
            if takes.get("window"):
                lines = write_by_window(picture, about, run, answer, out)
            else:
                pixels, covered = pixels_of(picture, takes)
                logits = run(np.repeat(pixels, takes["batch"] or 1, 0))[0]
                if covered != pixels.shape[2:]:
                    logits = cut(logits, covered, pixels.shape[2:])
                lines = answer(logits, about, picture, out)
        except (Unreadable, OSError) as error:
            failed += 1
            print(f"Error: {path} is not answered: {error}", file=sys.stderr)
            continue
        print("\n".join([f"{path}"] * several + lines))
    return 2 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent, "export.json", "model.pte", top_five, load))
