"""Stacks of slices, volumes, and slides of several levels, with their labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import binaries
import mutators
import numpy as np
from campaign import Format
from making import pixels
from of_sets import read_as, sets_fit

STACKS = {"channels": 1, "intensity": {"window": [0, 255]}}
CASES = ("p1", "p2", "p3")


def _classes(folder: Path) -> None:
    (folder / "classes.txt").write_text("background\nliver\n")


def _stacks(folder: Path) -> None:
    """Three TIFFs of four pages with labels, and three series of DICOM of as many slices, with theirs."""
    import tifffile

    for number, name in enumerate(CASES):
        for kind, values in (("images", pixels(number, (4, 8, 6))), ("labels", pixels(number, (4, 8, 6)) % 2)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            with tifffile.TiffWriter(folder / kind / f"{name}.tif") as file:
                for page in values:
                    file.write(page, photometric="minisblack", metadata=None)
    _classes(folder)


def _series(folder: Path) -> None:
    import tifffile
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    for number, name in enumerate(CASES):
        (folder / "images" / name).mkdir(parents=True)
        (folder / "labels").mkdir(exist_ok=True)
        for place, values in enumerate(pixels(number, (4, 8, 6)).astype(np.int16)):
            made = Dataset()
            made.file_meta = FileMetaDataset()
            made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            made.SOPClassUID, made.SOPInstanceUID, made.SeriesInstanceUID = CTImageStorage, f"1.2.{place}", "1.2.3"
            made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 8, 6, 1, "MONOCHROME2"
            made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 1
            made.PixelSpacing, made.ImageOrientationPatient = [0.7, 0.5], [1, 0, 0, 0, 1, 0]
            made.ImagePositionPatient, made.InstanceNumber = [-3, 20, 2.5 * place], place
            made.RescaleSlope, made.RescaleIntercept = "1", "0"
            made.PixelData = values.tobytes()
            made.save_as(folder / "images" / name / f"{place}.dcm", enforce_file_format=True)
        with tifffile.TiffWriter(folder / "labels" / f"{name}.tif") as file:
            for page in pixels(number, (4, 8, 6)) % 2:
                file.write(page, photometric="minisblack", metadata=None)
    _classes(folder)


def _slides(folder: Path) -> None:
    """Two pyramids of tiles with masks of as many levels."""
    import tifffile

    for number, name in enumerate("ab"):
        large = np.kron(pixels(number, (40, 48, 3)), np.ones((4, 4, 1), np.uint8))
        for kind, values in (("images", large), ("masks", large[..., 0] % 2)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            form: dict[str, Any] = {"tile": (64, 64), "compression": "zlib", "metadata": None}
            form["photometric"] = "rgb" if values.ndim == 3 else "minisblack"
            with tifffile.TiffWriter(folder / kind / f"{name}.tif") as file:
                for level in (values, values[::4, ::4].copy()):
                    file.write(level, subfiletype=int(len(level) < len(values)), resolution=(4e4, 4e4), **form)
    _classes(folder)


def _packed(folder: Path) -> None:
    """Volumes of NIfTI, gzipped, as nnU-Net has them, with their dataset.json."""
    import nibabel

    for number, name in enumerate(CASES):
        for kind, values in (
            ("imagesTr", pixels(number, (6, 8, 5)).astype(np.int16)),
            ("labelsTr", pixels(number, (6, 8, 5)) % 2),
        ):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            file = folder / kind / f"{name}{'_0000' if kind == 'imagesTr' else ''}.nii.gz"
            nibabel.Nifti1Image(values, np.diag([0.7, 0.7, 2.0, 1.0])).to_filename(file)
    said = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "numTraining": 3}
    (folder / "dataset.json").write_text(json.dumps({**said, "file_ending": ".nii.gz"}))


def _repacked(content: bytes, random: Any) -> bytes:
    """What is packed changed, or the packing."""
    import gzip

    if random.random() < 0.4:
        return mutators.of_bytes(content, random)
    if random.random() < 0.05:
        return gzip.compress(bytes(10**8), mtime=0)  # a bomb
    return gzip.compress(mutators.of_bytes(gzip.decompress(content), random), mtime=0)


def _forget(read: Any) -> Any:
    """What readers keep of files by their names is not of the file that now has the name."""

    def fresh(folder: Path) -> Any:
        from counterpoise.data import slide_file
        from counterpoise.data.sources import slides

        slides._slide.cache_clear()
        slide_file._open.cache_clear()
        return read(folder)

    return fresh


_stacked, _nifti = read_as(source="stacks", **STACKS), read_as(source="nifti", **STACKS)
_sliding = _forget(read_as(source="slides", options={"level": 1}))

VOLUMES: tuple[Format, ...] = (
    Format("TIFF stack", _stacks, "images/p1.tif", binaries.of_tiff, _stacked, sound=sets_fit, quick=30),
    Format("labels of a stack", _stacks, "labels/p1.tif", binaries.of_tiff, _stacked, sound=sets_fit, quick=30),
    Format("DICOM series", _series, "images/p1/2.dcm", binaries.of_dicom, _stacked, sound=sets_fit, quick=20),
    Format("NIfTI, packed", _packed, "imagesTr/p1_0000.nii.gz", _repacked, _nifti, sound=sets_fit, quick=20),
    Format("labels of NIfTI", _packed, "labelsTr/p1.nii.gz", _repacked, _nifti, sound=sets_fit, quick=20),
    Format("dataset.json", _packed, "dataset.json", mutators.of_json, _nifti, sound=sets_fit, quick=20),
    Format(
        "slide", _slides, "images/a.tif", binaries.of_tiff, _sliding, sound=sets_fit, needs=("openslide",), apart=True
    ),
    Format(
        "mask of a slide",
        _slides,
        "masks/a.tif",
        binaries.of_tiff,
        _sliding,
        sound=sets_fit,
        needs=("openslide",),
        apart=True,
    ),
)
