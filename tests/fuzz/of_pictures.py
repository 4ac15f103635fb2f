"""Pictures, by themselves."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import mutators
import numpy as np
import torch
from campaign import Format
from making import file, pixels, saved

from counterpoise.decoding import Reading
from counterpoise.reading import Intensity

WINDOW = Intensity("window", -160, 240)


def _picture(name: str, **reading: Any) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from counterpoise.data import images
        from counterpoise.errors import CorruptImage

        size = None
        with suppress(CorruptImage):
            size = images.header_size(folder / name, None, Reading(max_megapixels=1.0, **reading))
        pixels = images.pixels_of(folder / name, None, Reading(max_megapixels=1.0, **reading))
        images.spacing(folder / name, name)
        return tuple(pixels.shape[1:]), size, pixels.dtype

    return read


def _picture_is_whole(found: Any, _: Any) -> bool:
    size, told, dtype = found
    return dtype == torch.uint8 and min(size) >= 1 and told in (None, size)


def _dicom() -> bytes:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, "1.2.3"
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 9, 7, 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.RescaleSlope, made.RescaleIntercept, made.PixelSpacing = "0.5", "-1024", [0.7, 0.5]
    made.PixelData = pixels(1, (9, 14)).tobytes()
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _tiff16() -> bytes:
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(file, pixels(1, (9, 7)).astype(np.uint16) * 16, photometric="minisblack")
    return file.getvalue()


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, pixels(1, (9, 7)).astype(np.int16))
    return file.getvalue()


USUAL: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("PNG", "png", (9, 7, 3)),
    ("JPEG", "jpg", (19, 17, 3)),
    ("GIF", "gif", (9, 7)),
    ("BMP", "bmp", (9, 7, 3)),
    ("WebP", "webp", (19, 17, 3)),
    ("TIFF", "tif", (9, 7, 3)),
)
"""Of 8 bits, as Pillow saves them."""


def _usual(name: str, ending: str, shape: tuple[int, ...]) -> Format:
    path = f"a.{ending}"
    made = file(path, lambda: saved(name.upper(), pixels(1, shape)))
    return Format(name, made, path, mutators.of_bytes, _picture(path), sound=_picture_is_whole)


PICTURES: tuple[Format, ...] = (
    *(_usual(*each) for each in USUAL),
    Format(
        "TIFF of 16 bits",
        file("a.tif", _tiff16),
        "a.tif",
        mutators.of_bytes,
        _picture("a.tif", channels=1, intensity=WINDOW),
        sound=_picture_is_whole,
    ),
    Format(
        "array",
        file("a.npy", _npy),
        "a.npy",
        mutators.of_bytes,
        _picture("a.npy", channels=1, intensity=WINDOW),
        sound=_picture_is_whole,
    ),
    Format(
        "DICOM",
        file("a.dcm", _dicom),
        "a.dcm",
        mutators.of_bytes,
        _picture("a.dcm", channels=1, intensity=WINDOW),
        sound=_picture_is_whole,
    ),
)
