"""Answers to volumes: masks and probabilities that lie in the patient as the volume does, whatever holds it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

import counterpoise
from counterpoise import tasks
from counterpoise.engine.volume_answers import within
from counterpoise.errors import ConfigError, CorruptImage, DataError, RunError

Run = Callable[..., tuple[int, str, str]]
SHAPE = (16, 20, 4)
AFFINE = np.array([[0, -0.5, 0, 10], [0.75, 0, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])  # turned


def volume(number: int) -> np.ndarray:
    values = np.random.default_rng(number).integers(-1000, 1000, SHAPE).astype(np.int16)
    values[4:12, 5:15] += 1500
    return values


@pytest.fixture(scope="session")
def organs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases of NIfTI, and in run/ a student of their slices along the second axis."""
    root = tmp_path_factory.mktemp("organs")
    for number, case in enumerate("abc"):
        values = volume(number)
        labels = np.zeros(SHAPE, np.uint8)
        labels[4:12, 5:15] = 1
        for folder, name, array in (("imagesTr", f"{case}_0000", values), ("labelsTr", case, labels)):
            (root / folder).mkdir(exist_ok=True)
            image = nibabel.Nifti1Image(array, AFFINE)
            image.header.set_xyzt_units("mm")
            nibabel.save(image, root / folder / f"{name}.nii.gz")
    (root / "classes.txt").write_text("background 0\norgan 1\n")
    counterpoise.train(
        {
            "task": "segmentation",
            "data": {
                "path": str(root),
                "channels": 1,
                "intensity": {"percentiles": [1, 99], "of": "volume"},
                "options": {"axis": 1},
                "val_fraction": 0.34,
                "workers": 0,
            },
            "student": {"model": "digits/unet_4_4"},
            "train": {"epochs": 1, "batch_size": 8, "device": "cpu", "precision": "fp32"},
            "out": str(root / "run"),
        }
    )
    return root


def expected(student: Any, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mask [N, H, W] and probabilities [C, N, H, W] of slices [N, H, W], black and white by the whole volume."""
    black, white = np.percentile(values, [1, 99])
    shown = np.floor((np.clip(values, black, white) - black) * 255 / (white - black) + 0.5).astype(np.uint8)
    task: Any = tasks.get("segmentation")
    found = [task.answer_of(student, torch.from_numpy(each)[None], True) for each in shown]
    return np.stack([mask for mask, _ in found]), np.stack([belief for _, belief in found], 1)


def test_the_mask_of_a_nifti_volume_lies_as_the_volume_does(run: Run, organs: Path, tmp_path: Path) -> None:
    student = counterpoise.load_student(organs / "run")
    file = organs / "imagesTr" / "a_0000.nii.gz"
    flags = ("--student", organs / "run", "--out", tmp_path / "out", "--probabilities", "tiff", "--json")
    code, out, err = run("predict", file, *flags)
    assert code == 0, err
    (answer,) = json.loads(out)
    mask, shares = expected(student, np.moveaxis(volume(0), 1, 0).transpose(0, 2, 1))
    given, found = nibabel.load(file), nibabel.load(answer["mask"])
    assert np.array_equal(np.asarray(found.dataobj), np.moveaxis(mask.transpose(0, 2, 1), 0, 1))
    assert np.array_equal(found.affine, given.affine)
    assert found.header.get_zooms() == given.header.get_zooms()
    assert nibabel.aff2axcodes(found.affine) == nibabel.aff2axcodes(given.affine) == ("A", "L", "S")
    for key in ("sform_code", "qform_code", "xyzt_units"):
        assert found.header[key] == given.header[key]
    assert found.get_data_dtype() == np.uint8
    assert (answer["slices"], answer["height"], answer["width"]) == (20, 4, 16)
    share = {one["class"]: one["share"] for one in answer["classes"]}
    assert share.get("organ", 0) == pytest.approx((mask == 1).mean())
    belief = nibabel.load(answer["probabilities"]["organ"])
    assert np.allclose(np.moveaxis(np.asarray(belief.dataobj), 1, 0).transpose(0, 2, 1), shares[1], atol=1e-6)
    assert np.array_equal(belief.affine, given.affine)
    with pytest.raises(RunError, match="is there already"):
        counterpoise.predict([file], student=organs / "run", out=tmp_path / "out")
    every = counterpoise.predict([organs / "imagesTr"], student=organs / "run")
    assert [Path(one["image"]).name for one in every] == [f"{case}_0000.nii.gz" for case in "abc"]
    assert every[0]["classes"] == answer["classes"]
    (other,) = counterpoise.predict([file], student=organs / "run", axis=2)
    assert (other["slices"], other["height"], other["width"]) == (4, 20, 16)


def series(folder: Path, values: np.ndarray) -> None:
    """Slices [N, H, W] of a series whose rows run to the back and whose columns run up."""
    folder.mkdir()
    for place, each in enumerate(values):
        made = Dataset()
        made.file_meta = FileMetaDataset()
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.SOPClassUID, made.SOPInstanceUID, made.SeriesInstanceUID = CTImageStorage, generate_uid(), "1.2.3"
        made.Rows, made.Columns = each.shape
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 1
        made.PixelSpacing, made.ImageOrientationPatient = [0.7, 0.5], [0, 1, 0, 0, 0, -1]
        made.ImagePositionPatient = [-3 - 2.5 * place, 20, 40]
        made.PixelData = each.tobytes()
        made.save_as(folder / f"{9 - place}.dcm", enforce_file_format=True)


def test_a_series_of_dicom_becomes_nifti_in_its_place_and_pages_become_pages(organs: Path, tmp_path: Path) -> None:
    student = counterpoise.load_student(organs / "run")
    values = np.ascontiguousarray(np.moveaxis(volume(1), 2, 0))
    series(tmp_path / "scan", values)
    tifffile.imwrite(tmp_path / "stack.tif", values, photometric="minisblack")
    mask, shares = expected(student, values)
    given = [tmp_path / "scan", tmp_path / "stack.tif"]
    scan, stack = counterpoise.predict(
        given, student=organs / "run", out=tmp_path / "out", volumes=True, probabilities="tiff"
    )
    found = nibabel.load(scan["mask"])
    assert np.array_equal(np.asarray(found.dataobj), mask.transpose(2, 1, 0))
    for column, row, place in ((0, 0, 0), (3, 0, 0), (0, 5, 0), (7, 6, 2)):  # to the left, back and up, as DICOM has it
        left, back, up = -3 - 2.5 * place, 20 + 0.5 * column, 40 - 0.7 * row
        assert found.affine @ [column, row, place, 1] == pytest.approx([-left, -back, up, 1])
    assert found.header.get_zooms() == pytest.approx((0.5, 0.7, 2.5))
    assert np.array_equal(tifffile.imread(stack["mask"]), mask)
    assert np.allclose(tifffile.imread(stack["probabilities"]["organ"]), shares[1], atol=1e-6)
    assert scan["classes"] == stack["classes"]


def test_files_of_one_name_are_asked_about_by_their_own_names_alone(tmp_path: Path) -> None:
    for name in ("a_0000.nii", "a_0001.nii.gz", "b_0000.nii", "b_0001.nii"):
        (tmp_path / name).touch()
    assert [volume.files for volume in within(tmp_path, False, 2, 2)] == [
        ["a_0000.nii", "a_0001.nii.gz"],
        ["b_0000.nii", "b_0001.nii"],
    ]
    (tmp_path / "a_0000.nii.gz").touch()
    for asked in (tmp_path, tmp_path / "a_0001.nii.gz", tmp_path / "a_0000.nii"):
        with pytest.raises(DataError, match=r"a_0000.nii and .*a_0000.nii.gz differ in nothing but their ending"):
            [*within(asked, False, 2, 2)]
    assert [volume.files for volume in within(tmp_path / "b_0001.nii", False, 2, 2)] == [["b_0000.nii", "b_0001.nii"]]
    assert [volume.files for volume in within(tmp_path / "a_0000.nii", False, 1, 2)] == [["a_0000.nii"]]
    (tmp_path / "own.nii").touch()  # no channels any more: each file is a case
    assert [volume.files for volume in within(tmp_path / "a_0000.nii", False, 2, 2)] == [["a_0000.nii"]]


def test_pictures_of_a_student_of_whole_volumes_and_what_volumes_do_not_have_are_refused(
    organs: Path, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", np.moveaxis(volume(1), 2, 0), photometric="minisblack")
    with pytest.raises(CorruptImage, match="percentiles of whole volumes, which one slice does not tell"):
        counterpoise.predict([tmp_path / "stack.tif"], student=organs / "run")
    asked: dict[str, Any] = {"student": organs / "run", "out": tmp_path / "out"}
    file = organs / "imagesTr" / "a_0000.nii.gz"
    with pytest.raises(ConfigError, match="Probabilities of volumes are floats"):
        counterpoise.predict([file], **asked, probabilities="png")
    with pytest.raises(ConfigError, match="beside draws sheets of pictures"):
        counterpoise.predict([file], **asked, beside={"other": organs / "run"})
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6, 2), np.int16), np.eye(4)), tmp_path / "two.nii.gz")
    with pytest.raises(CorruptImage, match="has 2 channels"):
        counterpoise.predict([tmp_path / "two.nii.gz"], student=organs / "run")
