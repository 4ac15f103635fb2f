"""Volumes of NIfTI slice by slice: their values, labels, spacing and cases, or what is wrong with them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from pixel_files import WINDOW, windowed
from pixel_files import load_volumes as load
from pydantic import ValidationError

from counterpoise import config
from counterpoise.data import nifti_file, sources
from counterpoise.data.images import pixels_of, reading_specification
from counterpoise.data.sources import loading
from counterpoise.errors import ConfigError, CorruptImage, DataError
from counterpoise.reading import Intensity, Reading, said

AFFINE = np.diag([0.5, 0.75, 2.0, 1.0])


def write(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE, **slope: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    if slope:
        image.header.set_slope_inter(slope["slope"], slope["inter"])
    nibabel.save(image, path)


def volume(number: int, shape: tuple[int, ...] = (6, 8, 5)) -> tuple[np.ndarray, np.ndarray]:
    """Hounsfield units, and an organ in slices 1 to 3 of the last axis."""
    values = np.random.default_rng(number).integers(-1000, 1000, shape).astype(np.int16)
    labels = np.zeros(shape[:3], np.uint8)
    labels[1:4, 2:6, 1:4] = 1
    labels[2, 3, 2] = 2
    return values, labels


def nnunet(root: Path, cases: tuple[str, ...] = ("p1_a", "p1_b", "p2_a", "p3_a"), ending: str = ".nii.gz") -> Path:
    for number, case in enumerate(cases):
        values, labels = volume(number)
        write(root / "imagesTr" / f"{case}_0000{ending}", values)
        write(root / "labelsTr" / f"{case}{ending}", labels)
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "tumor": 2}}))
    return root


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_slices_are_those_of_the_volume_along_the_axis_with_their_labels_and_spacing(
    tmp_path: Path, axis: int, ending: str
) -> None:
    train, val = load(nnunet(tmp_path, ending=ending), options={"axis": axis})
    assert train.classes == ("background", "liver", "tumor")
    assert sum(len(part) for part in (train, val)) == 4 * (6, 8, 5)[axis]
    assert {*train.groups.tolist()}.isdisjoint(val.groups.tolist())  # type: ignore[union-attr]
    assert val.groups is not None
    called = [val.group_names[group] for group in val.groups.tolist()]
    assert called == [Path(val.name(index)).name.split(" #")[0] for index in range(len(val))]
    for index in range(len(train)):
        case, place = Path(train.name(index)).name.split(" #")
        values, labels = volume(("p1_a", "p1_b", "p2_a", "p3_a").index(case))
        assert np.array_equal(train.read(index)[0], windowed(values.take(int(place), axis).T))
        assert np.array_equal(train.read_mask(index), labels.take(int(place), axis).T)
        assert train.extent(index) == labels.take(int(place), axis).T.shape
        assert train.spacing(index) == ((2.0, 0.75), (2.0, 0.5), (0.75, 0.5))[axis]
    held = sources.in_memory(train, 1e9)
    assert held.spacing(0) == train.spacing(0)
    assert "slices along the" in " ".join(train.notes)
    assert "By data.intensity window -160 to 240" in " ".join(train.notes)


@pytest.mark.parametrize("kind", ["int16", "float32"])
@pytest.mark.parametrize("given", [{"percentiles": [2, 97.5]}, {"zscore": 2}])
def test_values_of_whole_volumes_become_eight_bits_by_the_definition(
    tmp_path: Path, given: dict[str, Any], kind: str
) -> None:
    nnunet(tmp_path)
    for number, case in enumerate(("p1_a", "p1_b", "p2_a", "p3_a")):
        values = volume(number)[0].astype(kind) / (1 if kind == "int16" else 3)
        values[..., 0] = -1000  # a slice of air
        write(tmp_path / "imagesTr" / f"{case}_0000.nii.gz", values.astype(kind))
    train, _ = load(tmp_path, intensity={**given, "of": "volume"})
    for index in range(len(train)):
        case, place = Path(train.name(index)).name.split(" #")
        values = nibabel.load(tmp_path / "imagesTr" / f"{case}_0000.nii.gz").get_fdata()
        black, white = values.mean() - 2 * values.std(), values.mean() + 2 * values.std()
        if "percentiles" in given:
            black, white = np.percentile(values, given["percentiles"])
        shown = np.floor((np.clip(values[..., int(place)], black, white) - black) * 255 / (white - black) + 0.5).T
        assert np.abs(train.read(index)[0].numpy().astype(int) - shown).max() <= 1
        assert (train.read(index)[0].numpy() == shown).mean() > 0.99
    assert any("of whole volumes" in note for note in train.notes)
    assert train.reading.intensity is not None
    assert reading_specification(train.reading)["intensity"] == {**train.reading.intensity.values(), "of": "volume"}
    by_slice, _ = load(tmp_path, intensity=given)
    assert "of" not in reading_specification(by_slice.reading)["intensity"]
    assert not torch.equal(by_slice.read(3), train.read(3))


@pytest.mark.slow
def test_percentiles_of_whole_volumes_are_those_of_monai(tmp_path: Path) -> None:
    from monai.transforms import ScaleIntensityRangePercentiles

    train, _ = load(nnunet(tmp_path), intensity={"percentiles": [1, 99], "of": "volume"})
    scale = ScaleIntensityRangePercentiles(1, 99, 0, 255, clip=True)
    for index in range(len(train)):
        case, place = Path(train.name(index)).name.split(" #")
        theirs = np.asarray(scale(volume(("p1_a", "p1_b", "p2_a", "p3_a").index(case))[0].astype(np.float32)))
        assert np.abs(theirs[..., int(place)].T - train.read(index)[0].numpy()).max() <= 0.51


def test_numbers_of_whole_volumes_are_for_volumes_alone(tmp_path: Path) -> None:
    of = Reading(channels=1, intensity=Intensity("zscore", -2, 2, "volume"))
    assert said(of.intensity.values()) == of.intensity  # type: ignore[union-attr]
    with pytest.raises(CorruptImage, match=r"it is one picture, and data.intensity is zscore of whole volumes"):
        pixels_of(volume(0)[0][..., 0], reading=of)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(ConfigError, match=r"of: volume is for volumes .* and source 'masks_folder' has pictures"):
        load(tmp_path, intensity={"zscore": 2, "of": "volume"})
    with pytest.raises(ValidationError, match="of: volume is for percentiles and zscore"):
        config.Data.model_validate({"intensity": {"window": [0, 1], "of": "volume"}})


def test_patients_of_several_volumes_are_on_one_side_and_blocks_are_volumes(tmp_path: Path) -> None:
    for seed in range(4):
        splits = load(nnunet(tmp_path), split_seed=seed, options={"group": r"(p\d+)_"})
        sides = [{Path(part.name(index)).name.split("_")[0] for index in range(len(part))} for part in splits]
        assert sides[0].isdisjoint(sides[1])
    assert splits.train.blocks is not None
    assert set(splits.train.blocks.tolist()) == {5}
    folds = [load(tmp_path, fold=f"{number}/3", options={"group": r"(p\d+)_"}).val for number in (1, 2, 3)]
    assert sorted(name for fold in folds for name in {Path(fold.name(i)).name[:4] for i in range(len(fold))}) == [
        "p1_a",
        "p1_b",
        "p2_a",
        "p3_a",
    ]


def test_slices_without_an_object_may_be_left_out_which_is_said(tmp_path: Path) -> None:
    train, val = load(nnunet(tmp_path), options={"empty": "drop"})
    assert len(train) + len(val) == 4 * 3
    assert all((part.read_mask(index) > 0).any() for part in (train, val) for index in range(len(part)))
    assert any("8 of 20 slices hold nothing but 'background' and are left out" in note for note in train.notes)


def test_channels_are_files_or_a_fourth_axis_and_values_are_rescaled(tmp_path: Path) -> None:
    for number, case in enumerate(("a", "b", "c")):
        values, labels = volume(number)
        write(tmp_path / "one" / "imagesTr" / f"{case}_0000.nii.gz", values)
        write(tmp_path / "one" / "imagesTr" / f"{case}_0001.nii.gz", values[..., ::-1].copy(), slope=0.5, inter=-10)
        write(tmp_path / "one" / "labelsTr" / f"{case}.nii.gz", labels.astype(np.float32))
        both = np.stack([values, values[..., ::-1]], -1)
        write(tmp_path / "two" / "images" / f"{case}.nii", both)
        write(tmp_path / "two" / "labels" / f"{case}.nii", labels)
    for root in ("one", "two"):
        (tmp_path / root / "classes.txt").write_text("background 0\nliver 1\ntumor 2\n")
    first, second = (load(tmp_path / root, channels=2).train for root in ("one", "two"))
    case, place = Path(first.name(0)).name.split(" #")
    values, _ = volume("abc".index(case))
    stored = nibabel.load(tmp_path / "one" / "imagesTr" / f"{case}_0001.nii.gz").get_fdata()[:, :, int(place)].T
    assert np.array_equal(first.read(0)[0], windowed(values[:, :, int(place)].T))
    assert np.array_equal(first.read(0)[1], windowed(stored))
    assert torch.equal(first.read(0)[0], second.read(0)[0])


def bad_size(root: Path) -> None:
    write(root / "labelsTr" / "p2_a.nii.gz", np.zeros((6, 8, 4), np.uint8))


def bad_space(root: Path) -> None:
    write(root / "labelsTr" / "p2_a.nii.gz", volume(2)[1], AFFINE * np.array([-1.0, 1, 1, 1]))


def bad_value(root: Path) -> None:
    for case in ("p1_a", "p1_b", "p2_a", "p3_a"):
        write(root / "labelsTr" / f"{case}.nii.gz", volume(2)[1] * 5)


def without_label(root: Path) -> None:
    (root / "labelsTr" / "p2_a.nii.gz").unlink()


def labels_again(root: Path) -> None:
    write(root / "labelsTr" / "p2_a.nii", volume(2)[1] * 0)


def channel_again(root: Path) -> None:
    write(root / "imagesTr" / "p2_a_0000.nii", volume(3)[0])


def no_volume(root: Path) -> None:
    (root / "imagesTr" / "p2_a_0000.nii.gz").write_bytes(gzip.compress(b"no header" * 99))


def cut_off(root: Path) -> None:
    path = root / "imagesTr" / "p2_a_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:20])


def lying(root: Path) -> None:
    path = root / "imagesTr" / "p2_a_0000.nii.gz"
    header = bytearray(gzip.decompress(path.read_bytes()))
    header[42:48] = (30000).to_bytes(2, "little") * 3
    path.write_bytes(gzip.compress(bytes(header)))


def more_channels(root: Path) -> None:
    write(root / "imagesTr" / "p2_a_0000.nii.gz", np.stack([volume(2)[0]] * 2, -1))


def regions(root: Path) -> None:
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "whole": [1, 2]}}))


def complex_values(root: Path) -> None:
    write(root / "imagesTr" / "p2_a_0000.nii.gz", volume(2)[0].astype(np.complex64))


@pytest.mark.parametrize(
    ("spoil", "why", "data"),
    [
        (bad_size, r"p2_a.nii.gz is 4 x 8 x 6 \(slices, rows, columns\), and .*p2_a_0000.nii.gz is 5 x 8 x 6", {}),
        (bad_space, r"turned or spaced, otherwise in the patient than .*data\.options\.aligned true", {}),
        (bad_value, r"labelsTr/p1_a.nii.gz #1 holds the value 5|holds the value 10", {}),
        (without_label, r"1 volumes of .*imagesTr have no labels: p2_a\. Labels are called", {}),
        (labels_again, r"labelsTr/p2_a.nii and .*labelsTr/p2_a.nii.gz differ in nothing but their ending\. Take", {}),
        (channel_again, r"p2_a_0000.nii and .*p2_a_0000.nii.gz differ in nothing but their ending", {"channels": 2}),
        (no_volume, "p2_a_0000.nii.gz .*it is no NIfTI file", {}),
        (cut_off, "p2_a_0000.nii.gz .*cannot be read", {}),
        (lying, r"GB are taken at max_megapixels", {}),
        (lying, r"it is cut off: .* bytes, and its header promises", {"max_megapixels": 1e9}),
        (more_channels, "Cases differ in how many channels they have: .*p1_a 1, .*p2_a 2", {}),
        (regions, "labels that are no numbers", {}),
        (complex_values, "are no numbers that become gray", {}),
        (lambda root: None, "a slice is too large: it has 0 megapixels", {"max_megapixels": 4e-5}),
        (lambda root: None, r"Each case has 1 channels.*data\.channels is 2.*--data\.channels 1", {"channels": 2}),
        (lambda root: None, r"are no bytes, such as int16.*Say with data\.intensity", {"intensity": None}),
    ],
)
def test_what_is_wrong_with_volumes_is_said(tmp_path: Path, spoil: Any, why: str, data: dict[str, Any]) -> None:
    spoil(nnunet(tmp_path))
    with pytest.raises((DataError, CorruptImage), match=f"(?s){why}"):
        load(tmp_path, **data)
    given = config.Data.model_validate({"path": str(tmp_path), **WINDOW, **data})
    assert any(problem.severity == "error" for problem in loading.problems(given))


def test_cases_that_do_not_fit_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    bad_size(nnunet(tmp_path))
    train, val = load(tmp_path, on_corrupt="skip")
    assert len(train) + len(val) == 15
    bad_space(nnunet(tmp_path))
    train, val = load(tmp_path, options={"aligned": True})
    assert len(train) + len(val) == 20


def test_a_part_to_evaluate_on_shares_no_case(tmp_path: Path) -> None:
    nnunet(tmp_path)
    for case in ("p7", "p8"):
        values, labels = volume(7)
        write(tmp_path / "imagesTs" / f"{case}_0000.nii.gz", values)
        write(tmp_path / "labelsTs" / f"{case}.nii.gz", labels)
    train, val = load(tmp_path)
    assert (len(train), len(val)) == (20, 10)
    write(tmp_path / "imagesTs" / "p1_a_0000.nii.gz", volume(0)[0])
    write(tmp_path / "labelsTs" / "p1_a.nii.gz", volume(0)[1])
    with pytest.raises(DataError, match="1 groups are both trained on and evaluated on, such as 'p1_a'"):
        load(tmp_path)


def test_what_is_kept_of_packed_volumes_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nifti_file, "KEPT", 1000)
    train, _ = load(nnunet(tmp_path))
    for index in range(len(train)):
        train.read(index)
        assert sum(kept.nbytes for kept in nifti_file._volumes.values()) <= 1000


def test_folders_train_and_val_divide_them_and_volumes_of_bytes_need_no_intensity(tmp_path: Path) -> None:
    for half, cases in (("train", "ab"), ("val", "c"), ("test", "d")):
        for case in cases:
            values, labels = volume(1)
            write(tmp_path / "images" / half / f"{case}.nii", (values % 256).astype(np.uint8))
            write(tmp_path / "masks" / half / f"{case}.nii", labels)
    (tmp_path / "classes.txt").write_text("background\nliver\nvoid\n")
    train, val = load(tmp_path, intensity=None)
    assert (len(train), len(val), train.classes) == (10, 5, ("background", "liver"))
    assert (train.called, val.called) == ("train", "val")
    assert train.read_mask(2)[3, 2] == 255
    assert f"not used: {tmp_path}/images/test" in train.notes
    (tmp_path / "images" / "d.nii").write_bytes((tmp_path / "images" / "test" / "d.nii").read_bytes())
    beside = f"1 pictures lie beside the parts and are not used, such as {tmp_path}/images/d.nii"
    assert beside in load(tmp_path, intensity=None).train.notes
    assert "images/test/d" in load(tmp_path, intensity=None, options={"val_split": "test"}).val.name(0)
    with pytest.raises(DataError, match="has no folder train, so there is no split 'test'"):
        load(nnunet(tmp_path / "other"), options={"val_split": "test"})


def test_volumes_that_have_no_labels_or_lie_deeper_are_said(tmp_path: Path) -> None:
    nnunet(tmp_path)
    for place in ("imagesTs", "imagesTr/more"):
        write(tmp_path / place / "x_0000.nii.gz", volume(9)[0])
    assert f"not used: {tmp_path}/imagesTr/more, {tmp_path}/imagesTs" in load(tmp_path).train.notes
