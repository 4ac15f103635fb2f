"""Volumes of NIfTI, as nnU-Net, the Medical Segmentation Decathlon and MONAI have them: slices along an axis."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from counterpoise import config
from counterpoise.data.nifti_file import ENDINGS, NiftiFile, holds_volumes, is_nifti, opened
from counterpoise.data.nifti_file import stem as stem
from counterpoise.data.problems import Problem, raise_first
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.masks_pairing import by_key
from counterpoise.data.sources.registry import register
from counterpoise.data.sources.volume_survey import Asked, Kind, Survey
from counterpoise.data.sources.volumes import Volume
from counterpoise.data.walking import entries
from counterpoise.errors import ConfigError

LAYOUTS = (("imagesTr", "labelsTr"), ("images", "labels"), ("images", "masks"))
_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class Along:
    """A file of NIfTI, slice by slice along one of its axes."""

    file: NiftiFile
    axis: int

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def kind(self) -> str:
        return "<f8" if self.file.slope is not None else self.file.kind

    @property
    def channels(self) -> int:
        return self.file.channels

    @property
    def size(self) -> tuple[int, int, int]:
        columns, rows = (self.file.shape[axis] for axis in range(3) if axis != self.axis)
        return self.file.shape[self.axis], rows, columns

    @property
    def spacing(self) -> tuple[float, float] | None:
        across, down = (self.file.spacing[axis] for axis in range(3) if axis != self.axis)
        return (down, across) if 0 < down < 1e6 and 0 < across < 1e6 else None

    @property
    def identity(self) -> str:
        return f"{self.path.stat().st_size} axis {self.axis}"

    def plane(self, place: int) -> NDArray[Any]:
        return self.file.plane(self.axis, place)

    def unlike(self, label: Along) -> str:
        return "" if self.file.lies_as(label.file) else "lies, or is turned or spaced, otherwise in the patient"


def _files(folder: Path) -> list[str]:
    """Names of the volumes in a folder, sorted."""
    return sorted(entry.name for entry in entries(folder) if is_nifti(entry.name) and entry.is_file())


def cases(folder: Path, problems: list[Problem]) -> dict[str, list[str]]:
    """The files of each case in a folder, in the order of their channels, by its name."""
    return _by_case(_by_stem(folder, _files(folder), problems))


def case_of(path: Path) -> tuple[str, list[str]]:
    """The case that a file is of, and the files of its channels. Raises DataError where two are of one channel."""
    stems: dict[str, list[str]] = {}
    for file in _files(path.parent):
        stems.setdefault(stem(file), []).append(file)
    every = _by_case({one: one for one in stems})
    name, channels = next((case for case in every.items() if stem(path.name) in case[1]), ("", []))
    if len(channels) < 2:
        return stem(path.name), [path.name]
    problems: list[Problem] = []
    files = _by_stem(path.parent, [file for one in channels for file in stems[one]], problems)
    raise_first(problems)
    return name, [*files.values()]


def _by_stem(folder: Path, files: Iterable[str], problems: list[Problem]) -> dict[str, str]:
    return by_key(folder, ((stem(file), file) for file in files), problems)


def _by_case(files: Mapping[str, str]) -> dict[str, list[str]]:
    """The files of each case, by their stems, where all are numbered as channels are; else each file is a case."""
    numbered = [_CHANNEL.fullmatch(each) for each in files]
    channels = all(numbered)
    found: dict[str, list[str]] = {}
    for (each, file), match in zip(files.items(), numbered, strict=True):
        found.setdefault(match[1] if match and channels else each, []).append(file)
    return found


def _recognizes(path: Path) -> bool:
    return any(
        (path / images).is_dir() and (path / labels).is_dir() and holds_volumes(path / images)
        for images, labels in LAYOUTS
    )


def _check(data: config.Data, **options: Any) -> list[Problem]:
    return _survey(data, **options).look_through()


def kind(data: config.Data, axis: int) -> Kind:
    """How volumes are found and opened. Raises ConfigError for an axis that there is not."""
    if not 0 <= axis <= 2:
        raise ConfigError(f"data.options.axis is 0, 1 or 2, got {axis}.")

    def volume(path: Path) -> Volume:
        return Along(opened(path, data.max_megapixels), axis)

    return Kind(
        ", ".join(ENDINGS),
        LAYOUTS,
        cases,
        lambda folder, problems: _by_stem(folder, _files(folder), problems),
        volume,
        volume,
        "Labels are called as their volumes, without what numbers channels (_0000), CASE.nii.gz",
    )


def _survey(data: config.Data, axis: int = 2, **options: Any) -> Survey:
    said = [f"slices along the {('first', 'second', 'third')[axis % 3]} axis"]
    return Survey(data, kind(data, axis), Asked(**options), said)


@register(
    "nifti",
    summary="volumes of NIfTI, slice by slice: imagesTr and labelsTr, or images and labels (extra: medical)",
    recognizes=_recognizes,
    check=_check,
)
def load(
    data: config.Data,
    *,
    axis: int = 2,
    images: str | None = None,
    labels: str | None = None,
    classes: Path | None = None,
    ignore: int | None = None,
    group: str | None = None,
    empty: Literal["keep", "drop"] = "keep",
    aligned: bool = False,
    val_split: str | None = None,
    shared: bool = False,
) -> Splits:
    """Slices of the volumes in `data.path`/imagesTr with the labels of the same names in labelsTr, cases kept whole.

    Evaluated on imagesTs with labelsTs, where those are there, or on folders val beside train; else on cases held out
    by `data.val_fraction`.

    Args:
        axis: of the volumes as they are stored, along which slices lie, 0 to 2; rows are the later of the other two.
        images, labels: names of the two folders.
        classes: as for masks_folder; default: classes.txt of `data.path`, and without it the labels of dataset.json.
        ignore: value of labels that is void.
        group: a pattern that names the patient in the name of a case, such as (patient[0-9]+)_; default: a case each.
        empty: whether slices without any other class than the first are kept or dropped.
        aligned: labels belong to pictures as both are stored, whatever their headers say of where they lie.
        val_split: name of the folder to evaluate on, beside train.
        shared: let groups be on both sides of the data's own division.
    """
    survey = _survey(
        data,
        axis,
        images=images,
        labels=labels,
        classes=classes,
        ignore=ignore,
        group=group,
        empty=empty,
        aligned=aligned,
        val_split=val_split,
        shared=shared,
    )
    return survey.splits()
