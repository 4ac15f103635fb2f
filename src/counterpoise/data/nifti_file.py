"""A volume in a NIfTI file (.nii, .nii.gz): its header, held against the file, and its planes along an axis.

Headers are read by nibabel from as many bytes as they have; values by numpy, so that a file takes no more memory than
it was found to need.
"""

from __future__ import annotations

import gzip
import logging
import math
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterpoise.data.walking import entries, subfolders
from counterpoise.errors import CorruptImage, MissingExtraError, UnfitFileError
from counterpoise.system.files import regular

ENDINGS = (".nii", ".nii.gz")
BYTES_A_PIXEL = 16
"""That a volume may take for each pixel that data.max_megapixels allows a picture."""
KEPT = 2**30
"""Bytes of volumes that a process keeps beside the last one."""
ALL = slice(None)
_HEADERS = {348: 348, 540: 540}  # what the first number of a file says, and the bytes of its header
_QUIET = logging.getLogger(f"{__name__}.headers")
_QUIET.addHandler(logging.NullHandler())
_MILLIMETERS = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


@dataclass(frozen=True)
class NiftiFile:
    """What the header of a file says.

    Attributes:
        shape: as it is stored, of three or four numbers.
        kind: of its values, as numpy writes it.
        slope, offset: a value is slope times what is stored, plus offset; None: as it is stored.
        spacing: millimeters from one plane to the next along each of the three axes.
        affine: from places in the volume to the patient, 16 numbers.
    """

    path: Path
    shape: tuple[int, ...]
    kind: str
    start: int
    slope: float | None
    offset: float | None
    spacing: tuple[float, float, float]
    affine: tuple[float, ...]

    @property
    def bytes(self) -> int:
        """Of all its values."""
        return math.prod(self.shape) * np.dtype(self.kind).itemsize

    @property
    def channels(self) -> int:
        """The fourth of its numbers, 1 where there is none."""
        return self.shape[3] if len(self.shape) == 4 else 1

    def plane(self, axis: int, place: int) -> NDArray[Any]:
        """[H, W, channels]: rows along the later of the other two axes, columns along the earlier one.

        Raises CorruptImage.
        """
        stored = np.moveaxis(_values(self)[(ALL,) * axis + (place,)], 1, 0)  # take() would copy the whole volume
        stored = stored[..., None] if stored.ndim == 2 else stored
        if self.slope is None or self.offset is None:
            return np.ascontiguousarray(stored)
        values: NDArray[Any] = stored.astype(np.float64) * self.slope + self.offset
        return values

    def lies_as(self, other: NiftiFile) -> bool:
        """Whether both are turned and spaced alike in the patient, and lie in one place, but for rounding."""
        ours, theirs = (np.array(each.affine).reshape(4, 4) for each in (self, other))
        step = max(1e-6, float(np.abs(ours[:3, :3]).max()))
        return bool(np.allclose(ours[:3, :3], theirs[:3, :3], atol=0.01 * step)) and bool(
            np.allclose(ours[:3, 3], theirs[:3, 3], atol=0.5 * step)
        )


def stem(name: str) -> str:
    """A name without the ending of such a file."""
    return next(name[: -len(ending)] for ending in sorted(ENDINGS, key=len)[::-1] if name.lower().endswith(ending))


def is_nifti(name: str) -> bool:
    """Whether a file is one by its name."""
    return name.lower().endswith(ENDINGS)


def holds_volumes(folder: Path) -> bool:
    """Whether such files lie in a folder, or in one directly below it."""
    below = [folder, *(folder / name for name in subfolders(folder))]
    return any(is_nifti(entry.name) for each in below for entry in entries(each))


def opened(path: Path, max_megapixels: float) -> NiftiFile:
    """The header of a file. Raises CorruptImage, and MissingExtraError where nibabel is not installed."""
    header = header_of(path)
    try:
        found = _described(path, header)
    except Exception as error:  # nibabel raises its own for each thing that is wrong with a header
        raise CorruptImage(str(path), f"its header is damaged: {error}") from None
    _check(found, max_megapixels)
    return found


def header_of(path: Path) -> Any:
    """The header of a file as nibabel has it. Raises as `opened`."""
    try:
        import nibabel
    except ImportError:
        raise MissingExtraError("A volume of NIfTI", "medical") from None
    name = str(path)
    try:
        with _stream(path) as file:
            block = file.read(540)
    except UnfitFileError as error:
        raise CorruptImage(name, f"it {error.strerror}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptImage(name, _why(error)) from None
    size = next((_HEADERS.get(int.from_bytes(block[:4], order)) for order in ("little", "big")), None)
    size = size or _HEADERS.get(int.from_bytes(block[:4], "big"))
    if size is None or len(block) < size:
        raise CorruptImage(name, "it is no NIfTI file")
    library: Any = nibabel
    try:
        found = (library.Nifti1Header if size == 348 else library.Nifti2Header)(block[:size], check=False)
        found.check_fix(_QUIET)  # by itself it would say on stderr what it mends
        return found
    except Exception as error:
        raise CorruptImage(name, f"its header is damaged: {error}") from None


def _described(path: Path, header: Any) -> NiftiFile:
    shape = tuple(int(side) for side in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    shape = (*shape, *(1,) * (3 - len(shape)))
    slope, offset = header.get_slope_inter()
    plain = slope is None or (slope == 1 and offset in (0, None))
    unit = _MILLIMETERS.get(header.get_xyzt_units()[0], 1.0)
    zooms = [float(zoom) * unit for zoom in header.get_zooms()[:3]]
    zooms += [0.0] * (3 - len(zooms))
    return NiftiFile(
        path,
        shape,
        header.get_data_dtype().str,
        int(header.get_data_offset()),
        None if plain else float(slope),
        None if plain else float(offset or 0.0),
        (zooms[0], zooms[1], zooms[2]),
        tuple(float(value) for value in header.get_best_affine().ravel()),
    )


def _check(found: NiftiFile, max_megapixels: float) -> None:
    """Raises CorruptImage for a header that promises what cannot be, or is more than is allowed."""
    name = str(found.path)
    if len(found.shape) > 4 or min(found.shape) < 1:
        raise CorruptImage(name, f"its shape is {list(found.shape)}; volumes of three or four axes are read")
    if np.dtype(found.kind).kind not in "uif":
        raise CorruptImage(name, f"its values are {np.dtype(found.kind)}, which are no numbers that become gray")
    most = BYTES_A_PIXEL * max_megapixels * 1e6
    if found.bytes > most:
        raise CorruptImage(
            name, f"it takes {found.bytes / 1e9:,.1f} GB, and {most / 1e9:,.1f} GB are taken at max_megapixels"
        )
    there = found.path.stat().st_size
    packed = found.path.name.lower().endswith(".gz")
    if found.start < 0 or found.start + found.bytes > there * (1040 if packed else 1):  # gzip packs 1032 to 1 at most
        raise CorruptImage(name, f"it is cut off: {there:,} bytes, and its header promises {found.bytes:,} of values")


def _stream(path: Path) -> Any:
    file = regular(path)
    return gzip.open(file, "rb") if path.name.lower().endswith(".gz") else file.open("rb")


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    return str(error).rstrip(".") or type(error).__name__


_TURN = threading.Lock()
_volumes: OrderedDict[tuple[str, int, int], NDArray[Any]] = OrderedDict()


def _values(file: NiftiFile) -> NDArray[Any]:
    """All values of a file as they are stored: mapped where it is not packed, else kept for the planes that follow."""
    name = str(file.path)
    try:
        if not file.path.name.lower().endswith(".gz"):
            regular(file.path)
            return np.memmap(file.path, file.kind, "r", file.start, file.shape, order="F")
        return _unpacked(file)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise CorruptImage(name, _why(error)) from None


def _unpacked(file: NiftiFile) -> NDArray[Any]:
    """One after the other where threads ask, so that a volume is unpacked once."""
    with _TURN:
        state = file.path.stat()
        key = str(file.path), state.st_mtime_ns, state.st_size
        if key in _volumes:
            _volumes.move_to_end(key)
            return _volumes[key]
        values = np.empty(file.shape, file.kind, order="F")
        flat: Any = values.reshape(-1, order="F").view(np.uint8)
        into, filled = memoryview(flat), 0
        with _stream(file.path) as stream:
            stream.seek(file.start)
            while filled < len(into):
                count = stream.readinto(into[filled : filled + 2**24])
                if not count:
                    raise EOFError(f"it is cut off after {filled:,} of {len(into):,} bytes of values")
                filled += count
        while _volumes and sum(each.nbytes for each in _volumes.values()) + values.nbytes > KEPT:
            _volumes.popitem(last=False)
        _volumes[key] = values
        return values
