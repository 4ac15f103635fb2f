"""Stacks of slices: the pages of a TIFF, and the files of a series of DICOM in a folder."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from counterpoise import bands, decoding
from counterpoise.data.walking import entries
from counterpoise.errors import CorruptImage, UnfitFileError
from counterpoise.reading import Intensity, Reading, Unreadable
from counterpoise.system.files import regular

TIFFS = (".tif", ".tiff")
GAP = 0.02
"""By what share of the usual distance slices of a series may lie nearer or farther."""
_ANY = Intensity("window", 0, 1)  # so that pages of any depth are taken: they are mapped later
_CORNER = "ImagePositionPatient"
_T = TypeVar("_T")


@dataclass(frozen=True)
class TiffStack:
    """The pages of a TIFF, all of one size and kind.

    Attributes:
        spacing: as `ImageSet.spacing`, as a person has said.
    """

    path: Path
    size: tuple[int, int, int]
    channels: int
    kind: str
    spacing: tuple[float, float] | None = None

    @property
    def identity(self) -> str:
        return f"{self.path.stat().st_size} pages"

    def plane(self, place: int) -> NDArray[Any]:
        def read() -> NDArray[Any]:
            with regular(self.path).open("rb") as file:
                values: NDArray[Any] = np.ascontiguousarray(bands.page_values(bands.tiff_pages(file)[place]))
                return values

        return _said(f"{self.path} #{place}", read)

    def unlike(self, label: Any) -> str:
        return ""


@dataclass(frozen=True)
class DicomSeries:
    """The files of a series in a folder, in the order in which they lie in the patient.

    Attributes:
        affine: from column, row and slice to millimeters to the right, to the front and up in the patient, as NIfTI has
            it: 16 numbers; None where the files do not say where they lie.
    """

    path: Path
    files: tuple[str, ...]
    size: tuple[int, int, int]
    spacing: tuple[float, float] | None
    affine: tuple[float, ...] | None = None
    channels: int = 1
    kind: str = "<f8"

    @property
    def identity(self) -> str:
        return " ".join(f"{file} {(self.path / file).stat().st_size}" for file in (self.files[0], self.files[-1]))

    def plane(self, place: int) -> NDArray[Any]:
        file = self.path / self.files[place]

        def read() -> NDArray[Any]:
            content = io.BytesIO(regular(file).read_bytes())
            header = bands.dicom_header(content, Reading(max_megapixels=self.size[1] * self.size[2] / 1e6), pixels=True)
            values: NDArray[Any] = bands.dicom_values(header)
            return values

        return _said(str(file), read)

    def unlike(self, label: Any) -> str:
        return ""


def tiff_stack(path: Path, max_megapixels: float, spacing: tuple[float, float] | None = None) -> TiffStack:
    """The pages of a TIFF. Raises CorruptImage where one is not for us, or they differ."""

    def read() -> TiffStack:
        reading = Reading(max_megapixels=max_megapixels, intensity=_ANY)
        with regular(path).open("rb") as file:
            pages = bands.tiff_pages(file)
            shapes = []
            for page in pages:
                bands.check_page(page, reading)
                turned = bands.tiff_turn(page)[0] % 2
                sides = (page.imagelength, page.imagewidth)[:: -1 if turned else 1]
                shapes.append((*sides, int(page.samplesperpixel), np.dtype(page.dtype).str))
            said = math.prod(pages.parent.series[0].shape) // max(1, math.prod(shapes[0][:3]))
        if said > len(shapes):
            raise Unreadable(f"it has {len(shapes)} pages and says that it holds {said} slices: save each as a page")
        for place, shape in enumerate(shapes):
            if shape != shapes[0]:
                ours, first = (f"{each[1]} x {each[0]}, {each[2]} channels of {each[3]}" for each in (shape, shapes[0]))
                raise Unreadable(f"page {place} is {ours}, and the first is {first}")
        height, width, channels, kind = shapes[0]
        return TiffStack(path, (len(shapes), height, width), channels, kind, spacing)

    return _said(str(path), read)


def dicom_series(folder: Path, max_megapixels: float) -> DicomSeries:
    """The series in a folder. Raises CorruptImage where its files are not of one, or differ, or one is missing."""
    names = sorted(entry.name for entry in entries(folder) if entry.is_file())

    def read(name: str) -> Any:
        with regular(folder / name).open("rb") as file:
            if not bands.is_dicom(file.read(132)):
                raise Unreadable("it is no DICOM file, and lies among those of a series")
            return bands.dicom_header(file, Reading(max_megapixels=max_megapixels))

    headers = {name: _said(str(folder / name), lambda name=name: read(name)) for name in names}  # type: ignore[misc]
    if not headers:
        raise CorruptImage(str(folder), "it holds no files")
    return _said(str(folder), lambda: _series(folder, headers))


def _series(folder: Path, headers: dict[str, Any]) -> DicomSeries:
    first = next(iter(headers))
    for what, of in (
        ("series", lambda header: str(header.get("SeriesInstanceUID"))),
        ("size", lambda header: (int(header.Columns), int(header.Rows))),
        ("spacing", bands.dicom_spacing),
        ("colors", lambda header: str(header.get("PhotometricInterpretation"))),
        ("frames", bands.dicom_frames),
    ):
        found = {name: of(header) for name, header in headers.items()}
        odd = next((name for name, value in found.items() if value != found[first]), None)
        if odd is not None:
            raise Unreadable(f"its slices differ in {what}: {first} has {found[first]}, {odd} has {found[odd]}")
    header = headers[first]
    if header.get("PhotometricInterpretation") != "MONOCHROME2":
        raise Unreadable(f"its slices are {header.get('PhotometricInterpretation')}; series are of MONOCHROME2")
    if bands.dicom_frames(header) > 1:
        raise Unreadable(f"its files have {bands.dicom_frames(header)} frames; a slice is a file")
    order = _in_order(headers)
    size = len(order), int(header.Rows), int(header.Columns)
    spacing = bands.dicom_spacing(header)
    affine = _affine([headers[order[0]], headers[order[-1]]], len(order), spacing)
    return DicomSeries(folder, tuple(order), size, spacing, affine)


def _affine(ends: Sequence[Any], count: int, spacing: tuple[float, float] | None) -> tuple[float, ...] | None:
    """As `DicomSeries.affine`, from the headers of the first and the last of so many slices."""
    turns, corners = ([header.get(tag) for header in ends] for tag in ("ImageOrientationPatient", _CORNER))
    if spacing is None or any(value is None for value in (*turns, *corners)):
        return None
    turn, (first, last) = np.array(turns[0], float), (np.array(corner, float) for corner in corners)
    step = (last - first) / max(1, count - 1)
    if count == 1:
        step = np.cross(turn[:3], turn[3:]) * float(ends[0].get("SliceThickness") or 1)
    found = np.eye(4)
    found[:3] = np.stack([turn[:3] * spacing[1], turn[3:] * spacing[0], step, first], 1)
    return tuple(
        float(value) for value in (np.diag([-1.0, -1.0, 1.0, 1.0]) @ found).ravel()
    )  # DICOM counts to the left


def _in_order(headers: dict[str, Any]) -> list[str]:
    """Names by where the slices lie in the patient, else by InstanceNumber. Raises Unreadable."""
    places: dict[str, float] = {}
    for name, header in headers.items():
        turn, corner = header.get("ImageOrientationPatient"), header.get("ImagePositionPatient")
        if turn is None or corner is None or len(turn) != 6 or len(corner) != 3:
            break
        normal = np.cross([float(value) for value in turn[:3]], [float(value) for value in turn[3:]])
        places[name] = float(normal @ [float(value) for value in corner])
    if len(places) == len(headers):
        order = sorted(places, key=lambda name: (places[name], name))
        steps = np.diff([places[name] for name in order])
        usual = float(np.sort(steps)[(len(steps) - 1) // 2]) if len(steps) else 1.0
        odd = np.flatnonzero(~(np.abs(steps - usual) <= GAP * max(usual, 1e-6)))
        if len(odd) or not usual > 0:
            at = int(odd[0]) if len(odd) else 0
            raise Unreadable(
                f"its slices differ in spacing: {order[at]} and {order[at + 1]} lie {steps[at]:.3g} mm apart, and most "
                f"{usual:.3g} mm: one is missing, or there are two series"
            )
        return order
    numbers = {name: header.get("InstanceNumber") for name, header in headers.items()}
    if any(number is None for number in numbers.values()) or len({*numbers.values()}) < len(numbers):
        raise Unreadable("neither ImagePositionPatient nor InstanceNumber says in which order its slices lie")
    return sorted(numbers, key=lambda name: int(numbers[name]))


def _said(name: str, read: Callable[[], _T]) -> _T:
    """What is read; whatever is wrong is said of this name, as CorruptImage."""
    try:
        return read()
    except (CorruptImage, MemoryError):
        raise
    except UnfitFileError as error:
        raise CorruptImage(name, f"it {error.strerror}") from None
    except Exception as error:  # as the decoders of files raise many kinds
        raise CorruptImage(name, str(error) if isinstance(error, Unreadable) else decoding.why(error)) from error
