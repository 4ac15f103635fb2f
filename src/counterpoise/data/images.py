"""Pictures as tensors: files, arrays and PIL images are read as decoding.py does, plain JPEGs faster by jpeg.py."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from counterpoise import bands, decoding
from counterpoise.data import jpeg
from counterpoise.data.jpeg import Choose, whole
from counterpoise.data.stages import READING
from counterpoise.decoding import Reading, Unreadable
from counterpoise.errors import CorruptImage, DataError, UnfitFileError
from counterpoise.system.files import regular

Picture: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]

AS_USUAL = Reading()
DICOM = (".dcm", ".dicom")
"""Endings of DICOM files."""


@contextmanager
def skipping_advised() -> Iterator[None]:
    """Have a corrupt image that stops a run told together with the way out; also a decorator."""
    try:
        yield
    except CorruptImage as error:
        if "on_corrupt" not in str(error):
            way_out = "Leave such images out with --data.on_corrupt skip; `counterpoise check` names all of them."
            error.args = (f"{error} {way_out}",)
        raise


def decode(image: Picture, name: str | None = None, reading: Reading = AS_USUAL) -> Image.Image:
    """Decode a picture completely into 8-bit RGB.

    The EXIF orientation is applied, transparency is composited over white, palettes, greys and CMYK become RGB, 16-bit
    greys are scaled to 8 bits. Of an animation the first frame is taken.

    Args:
        image: path, the bytes of a file, a PIL image (left unchanged), or a uint8 array [H, W] or [H, W, 1, 2, 3 or 4].
        name: what errors call it; default: the path.
        reading: what files leave open.

    Raises:
        CorruptImage: where it cannot be read to its end.
        DataError: where it is none of the things above.
    """
    found: Image.Image = _decoded(image, name, reading._replace(channels=3))
    return found


def _decoded(image: Picture, name: str | None, reading: Reading) -> Any:
    """As `decode`; where other than three channels are read, uint8 [H, W, channels]."""
    name = name or (os.fspath(image) if isinstance(image, str | os.PathLike) else "given")
    if isinstance(image, np.ndarray) and not reading.arrays:
        image = _from_array(image)
    if isinstance(image, str | os.PathLike):
        image = _read(Path(image), name)
    try:
        if isinstance(image, bytes):
            return decoding.read(image, reading)
        if isinstance(image, Image.Image):
            return _given(image, reading)
        if isinstance(image, np.ndarray):
            alone = image.ndim == 2 and reading.channels in (1, 3)
            return decoding.finished(image[..., None] if alone else image, reading)
    except Unreadable as error:
        raise CorruptImage(name, _why(name, error)) from error.__cause__
    raise DataError(f"Image {name} is a {type(image).__name__}; expected a path, bytes, a PIL image or a uint8 array.")


def pictures(given: Any, channels: int = 3) -> Iterable[Any]:
    """Pictures as they were handed in, of which a single one is a list of one: a path, the bytes of a file, a PIL
    image, an array [H, W] or [H, W, C], a tensor [C, H, W].

    channels: as many as are read: an array whose last axis is no longer than colors are is one picture, and else
    gray ones, [N, H, W].

    Raises:
        DataError: it is neither.
    """
    if isinstance(given, np.ndarray):
        alone = given.ndim == 2 or (given.ndim == 3 and given.shape[2] in (1, 2, 3, 4, channels))
    elif isinstance(given, Tensor):
        alone = given.ndim == 3
    else:
        alone = isinstance(given, str | os.PathLike | bytes | Image.Image)
    if alone:
        return [given]
    if not isinstance(given, Iterable):
        raise DataError(
            f"The pictures are a {type(given).__name__}; expected a list of paths, bytes of files, PIL images or uint8 "
            "arrays [H, W, 3], or one of these."
        )
    return list(given) if isinstance(given, np.ndarray | Tensor) else given


def to_tensor(image: Image.Image | NDArray[np.uint8]) -> Tensor:
    """Pixels of an image as uint8 [3, H, W]; one that is not RGB is decoded first. Of an array [H, W, C] all of C."""
    return _as_it_lies(image).contiguous()


def pixels_of(image: Picture | Tensor, name: str | None = None, reading: Reading = AS_USUAL) -> Tensor:
    """`to_tensor` of `decode`: uint8 [3, H, W]; as many channels as are read. Of a tensor, itself: it has been read."""
    if isinstance(image, Tensor):
        return image
    return part_of(image, whole, name, reading)[0].contiguous()


def part_of(
    image: Picture, choose: Choose, name: str | Callable[[], str] | None = None, reading: Reading = AS_USUAL
) -> tuple[Tensor, tuple[int, int]]:
    """The part of a picture that is chosen by its height and width: uint8 [channels, H, W], in any order in memory.

    A JPEG comes as much smaller as the choice allows. The rest as `decode`; a name may be made when it is needed.

    Returns:
        The part; height and width of the whole.
    """
    found = as_decoded(image, choose, name, reading)
    return found if isinstance(found, tuple) else cut_out(_as_it_lies(found), choose)


def as_decoded(
    image: Picture, choose: Choose, name: str | Callable[[], str] | None = None, reading: Reading = AS_USUAL
) -> tuple[Tensor, tuple[int, int]] | Image.Image | NDArray[np.uint8]:
    """`part_of` of a plain JPEG, and any other picture whole, as Pillow or numpy hold it."""
    if isinstance(image, str | os.PathLike):
        name = name or os.fspath(image)
        image = _read(Path(image), name)
    if isinstance(image, bytes) and reading.channels in (1, 3) and reading.intensity is None:
        found = jpeg.decode(image, reading, choose)
        if found is not None:
            pixels = torch.from_numpy(found[0]).permute(2, 0, 1)
            return pixels if reading.channels == 3 else as_gray(pixels), found[1]
    decoded: Image.Image | NDArray[np.uint8] = _decoded(image, name() if callable(name) else name, reading)
    return decoded


def as_gray(images: Tensor) -> Tensor:
    """Luma (ITU-R 601-2) as Pillow rounds it: uint8 [..., 3, H, W] -> [..., 1, H, W]."""
    red, green, blue = images.to(torch.int32).unbind(-3)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).to(torch.uint8).unsqueeze(-3)


def cut_out(image: Tensor, choose: Choose) -> tuple[Tensor, tuple[int, int]]:
    """The chosen part of a picture that is there, uint8 [3, H, W], in its own size; height and width of the whole."""
    extent = image.shape[1], image.shape[2]
    top, left, height, width, _ = choose(*extent)
    return image[:, top : top + height, left : left + width], extent


def _as_it_lies(image: Image.Image | NDArray[np.uint8]) -> Tensor:
    """uint8 [3, H, W], pixel by pixel in memory; of an array [H, W, C] all of C."""
    if isinstance(image, Image.Image) and image.mode != "RGB":
        image = decode(image)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def header_size(
    file: str | os.PathLike[str] | bytes, name: str | None = None, reading: Reading = AS_USUAL
) -> tuple[int, int]:
    """Height and width that the header of a file, or of its bytes, promises, after its EXIF orientation.

    Decodes no pixels. Raises CorruptImage where the header cannot be read.
    """
    name = name or os.fsdecode(file)
    try:
        with io.BytesIO(file) if isinstance(file, bytes) else regular(Path(file)).open("rb") as opened:
            found = decoding.extent(opened, reading)
            if found is not None:
                return found
            with decoding.opened(opened, reading) as image:
                width, height = image.size
                turned = image.format != "TIFF" and _orientation(image) in range(5, 9)  # of TIFF they are as turned
                return (width, height) if turned else (height, width)
    except MemoryError:
        raise
    except UnfitFileError as error:
        raise CorruptImage(name, f"it {error.strerror}") from None
    except Exception as error:
        raise CorruptImage(name, _why(name, error)) from error


def may_be_dicom(name: str) -> bool:
    """Whether a file is one of DICOM as far as its name tells: it has not the ending of another kind of picture."""
    return name.lower().endswith(DICOM) or Path(name).suffix.lower() not in extensions()


def spacing(file: Path | bytes, name: str) -> tuple[float, float] | None:
    """What `ImageSet.spacing` answers for a file: of DICOM, by its header. Raises CorruptImage."""
    if not may_be_dicom(name):
        return None
    try:
        with io.BytesIO(file) if isinstance(file, bytes) else regular(file).open("rb") as opened:
            if not bands.is_dicom(opened.read(132)):
                return None
            return bands.dicom_spacing(bands.dicom_header(opened, AS_USUAL._replace(max_megapixels=float("inf"))))
    except MemoryError:
        raise
    except Exception as error:
        raise CorruptImage(name, _why(name, error)) from error


def reading_specification(reading: Reading) -> dict[str, Any]:
    """What of a reading changes pixels and is not as usual, as JSON holds it."""
    found = {
        key: getattr(reading, key)
        for key in ("alpha", "white_level", "channels")
        if getattr(reading, key) != getattr(AS_USUAL, key)
    }
    return found if reading.intensity is None else {**found, "intensity": reading.intensity.values()}


def prepare(image: Tensor, size: int, crop_share: float = 1.0, fit: str = "crop") -> Tensor:
    """The view of evaluation and prediction: uint8 [C, H, W] -> uint8 [C, size, size], as `decoding.show`.

    An image that already is `size` x `size` is returned unchanged.
    """
    if tuple(image.shape[-2:]) == (size, size):
        return image
    return to_tensor(decoding.show(laid(image), (size, size), crop_share, fit)).to(image.device)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [C, H, W] -> [C, *size], bilinear, antialiased.

    By Pillow, whose integer arithmetic gives the same pixels on every machine, and in the runners beside exports.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return to_tensor(decoding.show(laid(image), size, None)).to(image.device)


@cache
def extensions() -> frozenset[str]:
    """File name endings, lower case and with their dot, of the formats that can be decoded here as RGB."""
    formats = set(decoding.known_formats())
    return frozenset({*(key for key, kind in Image.registered_extensions().items() if kind in formats), *DICOM})


def _read(path: Path, name: str | Callable[[], str]) -> bytes:
    try:
        with READING.timed("reading"):
            return regular(path).read_bytes()
    except OSError as error:
        named = name() if callable(name) else name
        if isinstance(error, FileNotFoundError):
            raise CorruptImage(named, "the file does not exist") from None
        if isinstance(error, UnfitFileError):
            raise CorruptImage(named, f"it {error.strerror}") from None
        raise CorruptImage(named, error.strerror or str(error)) from error


def _why(name: str, error: Exception) -> str:
    """Why a file cannot be read; one that is called DICOM and is none is no picture of another format."""
    said = str(error) if isinstance(error, Unreadable) else decoding.why(error)
    if name.lower().endswith(DICOM) and said == decoding.UNKNOWN:
        return "it is no DICOM file, which would have DICM behind its first 128 bytes"
    return said


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged metadata says nothing about the pixels
        return 1


def _given(image: Image.Image, reading: Reading) -> Any:
    """A PIL image, which is left as it is."""
    try:
        raw, transparent = decoding.raw_mode(image), decoding.is_transparent(image)
        decoding.check_grays(image)
        image.load()
        if reading.arrays:
            return decoding.taken(image.copy(), reading)
        found: Image.Image = decoding.rgb(decoding.upright(image.copy()), reading, raw, transparent, image.format)
        return found
    except (Unreadable, MemoryError):
        raise
    except Exception as error:
        raise Unreadable(decoding.why(error)) from error


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (2, 3, 4))
    if array.dtype != np.uint8 or not fits or 0 in array.shape:
        given = f"{array.dtype} {list(array.shape)}"
        raise DataError(f"Image array is {given}; expected uint8 [height, width] or [height, width, 1 to 4 channels].")
    return Image.fromarray(array)


def visible(image: Tensor) -> Tensor:
    """uint8 [C, H, W] as a person is shown it, uint8 [3, H, W]: the first three as RGB, of fewer the first as gray."""
    return image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)


def to_picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())


def laid(image: Tensor) -> Any:
    """The same pixels as `decoding.show` takes them."""
    return to_picture(image) if len(image) == 3 else image.permute(1, 2, 0).contiguous().cpu().numpy()
