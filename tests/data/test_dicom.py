"""DICOM files as pictures: rescaled, turned to white on black, with their spacing, or refused with the reason."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.images import header_size, pixels_of, spacing
from counterpoise.data.noticing import look_at
from counterpoise.decoding import Reading
from counterpoise.errors import CorruptImage
from counterpoise.reading import Intensity

RNG = np.random.default_rng(3)
STORED = RNG.integers(0, 4096, (9, 7)).astype(np.uint16)
CT = Reading(channels=1, intensity=Intensity("window", -160, 240))


def dicom(values: np.ndarray, syntax: Any = ExplicitVRLittleEndian, **tags: Any) -> bytes:
    """A file of these stored values, [H, W] or [H, W, 3]; tags are laid over the usual ones, None leaves one out."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, generate_uid()
    made.Rows, made.Columns = values.shape[:2]
    made.SamplesPerPixel = 1 if values.ndim == 2 else values.shape[2]
    made.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    made.BitsAllocated = 8 * values.dtype.itemsize
    made.BitsStored, made.HighBit = made.BitsAllocated, made.BitsAllocated - 1
    made.PixelRepresentation = int(values.dtype.kind == "i")
    if values.ndim == 3:
        made.PlanarConfiguration = 0
    made.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
    for key, value in tags.items():
        if value is None:
            made.pop(key, None)
        else:
            setattr(made, key, value)
    if syntax == RLELossless:
        made.compress(syntax, generate_instance_uid=False)
    made.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def packed(kind: str, size: tuple[int, int] = (7, 9)) -> bytes:
    """A gray picture as a stream in the pixels of a DICOM file."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).save(file, kind, **({"irreversible": False} if kind == "JPEG2000" else {}))
    return encapsulate([file.getvalue()])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_values_are_rescaled_and_shown_through_the_window(syntax: Any) -> None:
    content = dicom(STORED, syntax, RescaleSlope="0.5", RescaleIntercept="-1024", PixelSpacing=[0.7, 0.5])
    units = STORED * 0.5 - 1024
    expected = np.floor(np.clip((units + 160) / 400, 0, 1) * 255 + 0.5)
    assert np.array_equal(pixels_of(content, "it", CT)[0], expected)
    assert np.array_equal(pixels_of(content, "it", CT._replace(channels=3))[2], expected)
    assert header_size(content, "it", CT) == header_size(content, "it") == (9, 7)
    turned = dicom(
        STORED, syntax, RescaleSlope="0.5", RescaleIntercept="-1024", PhotometricInterpretation="MONOCHROME1"
    )
    assert np.array_equal(pixels_of(turned, "it", CT)[0], 255 - expected)


def test_what_lies_beside_the_stored_bits_and_the_sign_is_understood() -> None:
    wide = Reading(channels=1, intensity=Intensity("window", -2048, 4095))
    beside = dicom(STORED | 0xF000, BitsStored=12, HighBit=11)
    assert np.array_equal(pixels_of(beside, "it", wide), pixels_of(dicom(STORED), "it", wide))
    signed = STORED.astype(np.int16) - 2048
    expected = np.floor((signed + 2048.0) / 6143 * 255 + 0.5)
    assert np.array_equal(pixels_of(dicom(signed), "it", wide)[0], expected)


def test_eight_bits_and_colors_need_no_intensity_and_become_what_is_asked_for() -> None:
    gray, colors = (RNG.integers(0, 256, (9, 7, *more), dtype=np.uint8) for more in ((), (3,)))
    assert np.array_equal(pixels_of(dicom(gray), "it")[1], gray)
    assert np.array_equal(pixels_of(dicom(gray, PhotometricInterpretation="MONOCHROME1"), "it")[1], 255 - gray)
    assert np.array_equal(pixels_of(dicom(colors), "it").permute(1, 2, 0), colors)
    luma = np.asarray(Image.fromarray(colors).convert("L"))
    assert np.array_equal(pixels_of(dicom(colors), "it", Reading(channels=1))[0], luma)
    level = pixels_of(dicom(STORED), "it", Reading(channels=1, white_level=4095))
    assert np.array_equal(level, pixels_of(dicom(STORED), "it", CT._replace(intensity=Intensity("white", 0, 4095))))
    lossless = dicom(gray, JPEG2000Lossless, PixelData=packed("JPEG2000"))
    assert np.array_equal(pixels_of(lossless, "it")[0], np.asarray(Image.linear_gradient("L").resize((7, 9))))


def test_of_several_frames_the_first_is_read_and_it_is_said() -> None:
    frames = np.stack([STORED, STORED + 1])
    content = dicom(STORED, NumberOfFrames=2, PixelData=frames.tobytes())
    assert np.array_equal(pixels_of(content, "it", CT), pixels_of(dicom(STORED), "it", CT))
    assert any("further pages or frames (up to 2)" in note for note in look_at([content], CT).notes(CT))


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "no pixels": (lambda: dicom(STORED, PixelData=None), r"without pixels \(its kind is CT Image Storage\)"),
    "no size": (lambda: dicom(STORED, PixelData=None, Rows=None), "without pixels"),
    "nothing of 16 bits": (lambda: dicom(STORED.astype(np.int16)), r"are int16, .*: say with data\.intensity how"),
    "no codec": (
        lambda: dicom(STORED, JPEGLosslessSV1, PixelData=packed("JPEG")),
        "packed as JPEG Lossless.*pip install",
    ),
    "a film": (lambda: dicom(STORED, MPEG2MPML, PixelData=packed("JPEG")), "packed as MPEG2.*is not read"),
    "deflated": (lambda: dicom(STORED, DeflatedExplicitVRLittleEndian), "deflated as a whole"),
    "too large": (lambda: dicom(STORED, Rows=65535, Columns=65535), "4,295 megapixels"),
    "a bomb": (
        lambda: dicom(STORED.astype(np.uint8), JPEGBaseline8Bit, PixelData=packed("JPEG", (3000, 3000))),
        "packed pixels are 3000 x 3000, and its header says 7 x 9",
    ),
    "colors by a table": (lambda: dicom(STORED, PhotometricInterpretation="PALETTE COLOR"), "colors are PALETTE COLOR"),
    "cut off": (lambda: dicom(STORED)[:-40], "cannot be read"),
    "no DICOM": (lambda: b"x" * 200, "it is no DICOM file, which would have DICM"),
    "a size that is none": (lambda: dicom(STORED, Rows=0), "of 7 x 0 pixels"),
    "no numbers": (
        lambda: dicom(STORED, RescaleSlope="1e400", RescaleIntercept="0"),
        "no finite numbers|cannot be read",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_read_is_refused_with_the_reason(what: str) -> None:
    make, why = REFUSED[what]
    told = Reading(channels=1) if "16 bits" in what or "bomb" in what else CT
    with pytest.raises(CorruptImage, match=why):
        pixels_of(make(), "it.dcm", told)


def test_without_pydicom_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    content = dicom(STORED)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(CorruptImage, match=r"pip install 'counterpoise\[medical\]'"):
        pixels_of(content, "it", CT)


def test_they_are_pictures_of_classes_and_of_scenes_with_their_spacing(tmp_path: Path) -> None:
    for half in ("train", "val"):
        for name in ("images", "masks"):
            (tmp_path / "scenes" / name / half).mkdir(parents=True)
        for name in "ab":
            (tmp_path / "photos" / half / name).mkdir(parents=True)
            (tmp_path / "photos" / half / name / "0.dcm").write_bytes(dicom(STORED))
            path = tmp_path / "scenes" / "images" / half / f"{name}.dcm"
            path.write_bytes(dicom(STORED, PixelSpacing=[0.7, 0.5] if name == "a" else None))
            mask = np.arange(63, dtype=np.uint8).reshape(9, 7) % 2
            Image.fromarray(mask).save(tmp_path / "scenes" / "masks" / half / f"{name}.png")
    (tmp_path / "scenes" / "classes.txt").write_text("background\nbone\n")
    for name in ("photos", "scenes"):
        told = config.Data(path=tmp_path / name, channels=1, intensity=config.Intensity(percentiles=(1, 99)))
        images = sources.load(told).train
        assert images.read(0).shape == (1, 9, 7)
    assert [images.spacing(0), images.spacing(1)] == [(0.7, 0.5), None]
    (tmp_path / "1.2.840").write_bytes(dicom(STORED, PixelSpacing=[0.7, 0.5]))
    (tmp_path / "other").write_bytes(b"text")
    assert [spacing(tmp_path / name, name) for name in ("1.2.840", "other")] == [(0.7, 0.5), None]
    held = sources.in_memory(images, 1e9)
    assert [held.spacing(0), held.spacing(1)] == [(0.7, 0.5), None]
