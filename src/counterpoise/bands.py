"""Channels as they lie in files that Pillow does not read, or not in full: arrays, bands of TIFFs, DICOM.

Below decoding.py; the run.py beside an export holds the text of this file, too.
"""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np

from counterpoise.reading import Reading, Unreadable, bounded, eight_bits

NUMPY, TIFFS = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how files of arrays and TIFFs begin
PACKED = (1, 5, 8, 32946, 32773, 50000)  # of channels in TIFF: not at all, LZW, DEFLATE twice, PackBits, ZSTD
TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (1, True), 6: (3, False), 7: (3, True), 8: (1, False)}
DEFLATED = "1.2.840.10008.1.2.1.99"  # a syntax of DICOM, which is unpacked as a whole before anything is known of it
_QUIET = logging.NullHandler()  # a damaged file has a library say on stderr what is wrong with each of its tags
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
    """The pages of a TIFF, by tifffile. Raises Unreadable where that is not installed, or they have no end."""
    try:  # the second keeps what is unpacked to the size of a tile, which the decoders within the first do not
        import imagecodecs  # noqa: F401
        import tifffile
    except ImportError:
        raise Unreadable(
            "a TIFF of such channels is read by the packages tifffile and imagecodecs, which are not installed"
        ) from None
    logging.getLogger("tifffile").addHandler(_QUIET)
    # These kinds are of several files, which one of them may name wherever they lie.
    found: Any = tifffile.TiffFile(file, is_ome=False, is_ndtiff=False, is_mmstack=False)
    _follow(found.filehandle)
    return found.pages


def _follow(file: Any) -> None:
    """Raises Unreadable where the directories of an open TIFF lead to one another without end, or overlap."""
    size = file.size
    file.seek(0)
    start = file.read(16)
    order: Any = "little" if start[:2] == b"II" else "big"
    first, width, counts, entry = (8, 8, 8, 20) if start[:4] in TIFFS[2:] else (4, 4, 2, 12)
    place, seen, held = int.from_bytes(start[first : first + width], order), set[int](), 0
    while 0 < place < size:
        file.seek(place)
        end = place + counts + entry * int.from_bytes(file.read(counts), order)
        held += end - place
        if place in seen or (held > size and end <= size):
            raise Unreadable("its pages lead back to one another")
        seen.add(place)
        file.seek(min(end, size))
        place = int.from_bytes(file.read(width), order)


def check_page(page: Any, reading: Reading) -> None:
    """Raises Unreadable where a page is not for us."""
    height, width = page.imagelength, page.imagewidth
    if not isinstance(height, int) or not isinstance(width, int):
        raise Unreadable("its header is damaged: its size is no number")
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
    if page.samplesperpixel == 1:  # of one channel some files have an axis of its own
        values = values.reshape(page.imagelength, page.imagewidth, 1)
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


class Whole:
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
    found: Any = pydicom.dcmread(Whole(file), stop_before_pixels=not pixels)
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
    from pydicom.encaps import get_frame
    from pydicom.pixels import decoders

    known = {one.UID: one for name, one in vars(decoders).items() if name.endswith("Decoder")}
    if syntax not in known:
        raise Unreadable(f"it is packed as {syntax.name}, which is not read: save it uncompressed")
    if not known[syntax].is_available:
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
