"""Stacks of slices: pages of TIFFs and series of DICOM, or what is wrong with them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pixel_files import load_volumes, windowed
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from counterpoise.data import sources, stack_file
from counterpoise.errors import CorruptImage, DataError

CASES = ("a", "b", "c")


def volume(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Hounsfield units, 4 slices of 5 rows and 6 columns, and an organ in the second."""
    values = np.random.default_rng(number).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 1:3, 2:5] = 1
    return values, labels


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, values, photometric="minisblack", compression="deflate")


def slice_of(path: Path, values: np.ndarray, place: int, **tags: Any) -> None:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID, made.SeriesInstanceUID = CTImageStorage, generate_uid(), "1.2.3"
    made.Rows, made.Columns = values.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.RescaleSlope, made.RescaleIntercept = "1", "-1024"
    made.PixelSpacing = [0.7, 0.5]
    made.ImageOrientationPatient, made.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.5 * place]
    made.PixelData = (values + 1024).astype(np.uint16).tobytes()
    for key, value in tags.items():
        setattr(made, key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)


def folder(root: Path, kind: str) -> Path:
    for number, case in enumerate(CASES):
        values, labels = volume(number)
        write(root / "labels" / f"{case}.tif", labels)
        if kind == "tiff":
            write(root / "images" / f"{case}.tif", values)
        else:
            for place, name in enumerate(("IM9", "IM1", "IM5", "IM3")):  # not in the order of their names
                slice_of(root / "images" / case / name, values[place], place)
    (root / "classes.txt").write_text("background\norgan\n")
    return root


def load(root: Path, **data: Any) -> sources.Splits:
    return load_volumes(root, source="stacks", **data)


@pytest.mark.parametrize("kind", ["tiff", "dicom"])
def test_slices_are_in_their_order_with_their_labels_spacing_and_case(tmp_path: Path, kind: str) -> None:
    options = {"spacing": [0.3, 0.2]} if kind == "tiff" else {}
    train, val = load(folder(tmp_path, kind), options=options)
    assert (len(train), len(val)) == (8, 4)
    for index in range(len(train)):
        case, place = Path(train.name(index)).name.split(" #")
        values, labels = volume(CASES.index(case))
        assert np.array_equal(train.read(index)[0], windowed(values[int(place)]))
        assert np.array_equal(train.read_mask(index), labels[int(place)])
        assert train.spacing(index) == ((0.3, 0.2) if kind == "tiff" else (0.7, 0.5))


def other_size(root: Path) -> None:
    slice_of(root / "images" / "b" / "IM1", np.zeros((5, 7)), 1)


def other_spacing(root: Path) -> None:
    slice_of(root / "images" / "b" / "IM1", np.zeros((5, 6)), 1, PixelSpacing=[0.7, 0.6])


def missing(root: Path) -> None:
    (root / "images" / "b" / "IM5").unlink()


def two_series(root: Path) -> None:
    slice_of(root / "images" / "b" / "IM7", np.zeros((5, 6)), 4, SeriesInstanceUID="1.2.4")


def no_order(root: Path) -> None:
    for place, name in enumerate(("IM9", "IM1", "IM5", "IM3")):
        slice_of(root / "images" / "b" / name, np.zeros((5, 6)), place, ImagePositionPatient=None)


def text_among(root: Path) -> None:
    (root / "images" / "b" / "notes.txt").write_text("seen by nobody")


def fewer_labels(root: Path) -> None:
    write(root / "labels" / "b.tif", volume(1)[1][:3])


def pages_that_differ(root: Path) -> None:
    with tifffile.TiffWriter(root / "labels" / "b.tif") as file:
        file.write(np.zeros((5, 6), np.uint8))
        file.write(np.zeros((5, 7), np.uint8))


def pages_without_headers(root: Path) -> None:
    tifffile.imwrite(root / "labels" / "b.tif", volume(1)[1], imagej=True, truncate=True)


def no_tiff(root: Path) -> None:
    (root / "labels" / "b.tif").write_bytes(b"no TIFF at all")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (other_size, r"slices differ in size: IM1 has \(7, 5\), IM3 has \(6, 5\)"),
        (other_spacing, r"slices differ in spacing: IM1 has \(0.7, 0.6\), IM3 has \(0.7, 0.5\)"),
        (missing, "slices differ in spacing: IM1 and IM3 lie 5 mm apart, and most"),
        (two_series, "slices differ in series"),
        (no_order, "neither ImagePositionPatient nor InstanceNumber says"),
        (text_among, "notes.txt cannot be read: it is no DICOM file, and lies among"),
        (fewer_labels, r"labels/b.tif is 3 x 5 x 6 \(slices, rows, columns\)"),
        (pages_that_differ, "b.tif cannot be read: page 1 is 7 x 5.*, and the first is 6 x 5"),
        (pages_without_headers, "b.tif cannot be read: it has 1 pages and says that it holds 4 slices"),
        (no_tiff, "b.tif cannot be read"),
    ],
)
def test_what_is_wrong_with_stacks_is_said_and_may_be_left_out(tmp_path: Path, spoil: Any, why: str) -> None:
    spoil(folder(tmp_path, "dicom"))
    with pytest.raises((DataError, CorruptImage), match=why):
        load(tmp_path)
    train, val = load(tmp_path, on_corrupt="skip")
    assert len(train) + len(val) == 8


@pytest.mark.parametrize(
    ("kind", "again"), [("tiff", "labels/b.tiff"), ("tiff", "images/b.TIF"), ("dicom", "images/b.tiff")]
)
def test_two_stacks_of_one_name_are_refused(tmp_path: Path, kind: str, again: str) -> None:
    root = folder(tmp_path, kind)
    write(root / again, volume(7)[0])
    with pytest.raises(DataError, match=r"/b.* and .*/b.* differ in nothing but their ending"):
        load(root, on_corrupt="skip")
    if again.startswith("images"):
        with pytest.raises(DataError, match="differ in nothing but their ending"):
            load(folder(tmp_path / "own", "tiff"), unlabeled=root / "images")


def test_a_page_may_say_that_it_is_in_color_and_have_one_channel(tmp_path: Path) -> None:
    """tifffile gives such a page an axis more."""
    values = np.arange(96, dtype=np.uint8).reshape(2, 6, 8)
    write(tmp_path / "a.tif", values)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages[1].tags["PhotometricInterpretation"].overwrite(2)
    stack = stack_file.tiff_stack(tmp_path / "a.tif", 1)
    assert [stack.plane(place)[..., 0].tolist() for place in range(2)] == values.tolist()


def test_pages_that_lead_back_to_one_another_end(tmp_path: Path) -> None:
    root = folder(tmp_path / "root", "tiff")
    file = root / "labels" / "b.tif"
    content = bytearray(file.read_bytes())
    first = int.from_bytes(content[4:8], "little")
    after = first + 2 + 12 * int.from_bytes(content[first : first + 2], "little")
    content[after : after + 4] = first.to_bytes(4, "little")
    file.write_bytes(content)
    with pytest.raises(DataError, match="its pages lead back to one another"):
        load(root)


def test_files_that_a_stack_names_are_not_opened(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """OME files may be of several, by names that lead anywhere."""
    root = folder(tmp_path / "root", "tiff")
    pages = tifffile.imread(root / "labels" / "b.tif")
    write(tmp_path / "outside.tif", pages + 1)
    size = f'SizeX="{pages.shape[2]}" SizeY="{pages.shape[1]}" SizeZ="{2 * len(pages)}" SizeC="1" SizeT="1"'
    ours, theirs = ("urn:uuid:a", "b.tif"), ("urn:uuid:b", "../../outside.tif")
    planes = "".join(
        f'<TiffData FirstZ="{place}" PlaneCount="1" IFD="{place % len(pages)}">'
        f'<UUID FileName="{name}">{number}</UUID></TiffData>'
        for place in range(2 * len(pages))
        for number, name in [ours if place < len(pages) else theirs]
    )
    said = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:a"><Image ID="Image:0"><Pixels '
        f'ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" {size}>{planes}</Pixels></Image></OME>'
    )
    with tifffile.TiffWriter(root / "labels" / "b.tif") as file:
        for number, page in enumerate(pages):
            file.write(page, description=said if number == 0 else None, metadata=None, photometric="minisblack")
    assert tifffile.TiffFile(root / "labels" / "b.tif").series[0].shape[0] == 2 * len(pages)  # it would be followed
    opened: list[str] = []
    sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
    load(root)
    assert not any("outside" in path for path in opened)
    assert capfd.readouterr().err == ""
