"""Volumes of NIfTI, as nnU-Net, the Medical Segmentation Decathlon and MONAI have them: slices along an axis."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from numpy.typing import NDArray

from counterpoise import config
from counterpoise.data.label_map import LabelMap, of_numbers, read_label_map
from counterpoise.data.nifti_file import NiftiFile, is_nifti, opened, stem
from counterpoise.data.problems import SHOWN, Problem, fault, of_corrupt, raise_first
from counterpoise.data.sources import volumes
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.division import name_parts, split_by_fraction
from counterpoise.data.sources.registry import register
from counterpoise.data.sources.volumes import Case, VolumeScenes
from counterpoise.data.split_names import TRAIN, Halves, find
from counterpoise.data.walking import entries, subfolders
from counterpoise.errors import ConfigError, CorruptImage, DataError
from counterpoise.system import documents
from counterpoise.system.files import expanded

DESCRIPTION = "dataset.json"
LAYOUTS = (("imagesTr", "labelsTr"), ("images", "labels"), ("images", "masks"))
OTHERS = {"imagesTr": "imagesTs", "labelsTr": "labelsTs"}
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


@dataclass
class _Survey:
    """A folder of volumes as it is, and all that is wrong with it.

    Attributes:
        parts: the scenes of each part, as far as they are right.
    """

    data: config.Data
    axis: int
    images: str | None
    labels: str | None
    classes: Path
    ignore: int | None
    group: str | None
    empty: str
    aligned: bool
    val_split: str | None
    shared: bool
    problems: list[Problem] = field(default_factory=list)
    parts: list[VolumeScenes] = field(default_factory=list)
    halves: Halves | None = None

    def __post_init__(self) -> None:
        assert self.data.path is not None  # the registry has seen to it
        self.root = expanded(self.data.path)
        if not 0 <= self.axis <= 2:
            raise ConfigError(f"data.options.axis is 0, 1 or 2, got {self.axis}.")
        found = self._folders()
        label_map = self._label_map()
        if found is None or label_map is None:
            return
        every = [self._cases(images, labels) for images, labels in found]
        kept: list[list[Case]] = []
        flat, wrong = volumes.fitting([case for part in every for case in part], self.data, self.aligned)
        self.problems += wrong
        for part in every:
            kept.append([case for case in part if case in flat])
        numbers, notes, torn = volumes.grouped(kept, self.group, self.shared)
        self.problems += torn
        if any(problem.severity == "error" for problem in self.problems) or not all(kept):
            return
        left = [case.name for part in every for case in part if case not in flat]
        for cases, groups in zip(kept, numbers, strict=True):
            scenes = VolumeScenes(self.root, cases, self._shown(cases, label_map), label_map, groups)
            scenes.read_as(self.data.reading)
            self.parts.append(scenes)
        self.parts[0].corrupt = left
        self.parts[0].notes += [*notes, *self._said(kept)]

    def _folders(self) -> list[tuple[Path, Path]] | None:
        """Folders of images and of labels of each part; None where there are none."""
        wanted = [
            (self.images or images, self.labels or labels)
            for images, labels in LAYOUTS
            if (self.root / (self.images or images)).is_dir() and (self.root / (self.labels or labels)).is_dir()
        ]
        if not wanted:
            known = " or ".join(f"{images} and {labels}" for images, labels in LAYOUTS)
            what = (
                f"{self.root} has no folders of volumes and of labels: {self.images or ''} {self.labels or ''}".strip()
            )
            self.problems.append(fault(f"{what}; known are {known}.", "Name yours: --data.options.images, labels."))
            return None
        images, labels = (self.root / name for name in wanted[0])
        names = subfolders(images)
        if any(name.casefold() in TRAIN for name in names):
            self.halves = find(names, str(images), val=self.val_split)
            assert self.halves is not None
            return [(images / name, labels / name) for name in self.halves.names]
        beside = [self.root / OTHERS.get(name, name) for name in wanted[0]]
        if self.val_split is not None:
            raise DataError(f"{images} has no folder train, so there is no split '{self.val_split}' beside it.")
        if beside[0] != images and beside[1].is_dir() and _files(beside[1]):
            self.halves = Halves("Tr", "Ts", "there is no val", ())
            return [(images, labels), (beside[0], beside[1])]
        return [(images, labels)]

    def _label_map(self) -> LabelMap | None:
        file = expanded(self.classes)
        file = file if file.is_file() else self.root / file
        try:
            if file.is_file() or not (self.root / DESCRIPTION).is_file():
                return read_label_map(file, self.ignore)
            return _described(self.root / DESCRIPTION, self.ignore)
        except DataError as error:
            self.problems.append(fault(str(error)))
        return None

    def _cases(self, images: Path, labels: Path) -> list[Case]:
        """The cases of a part whose volumes can be opened."""
        of_images, of_labels = _by_case(_files(images)), {stem(file): file for file in _files(labels)}
        named = images.relative_to(self.root).as_posix()
        if not of_images:
            self.problems.append(fault(f"{images} holds no volumes (.nii, .nii.gz)."))
        missing = sorted(of_images.keys() - of_labels.keys())
        alone = sorted(of_labels.keys() - of_images.keys())
        if missing or alone:
            sides = (f"{len(missing)} volumes of {images} have no labels", f"{len(alone)} labels have no volume")
            what = " and ".join(side for side, names in zip(sides, (missing, alone), strict=True) if names)
            shown = ", ".join([*missing, *alone][:SHOWN])
            way_out = (
                f"Labels are called as their volumes, without what numbers channels (_0000): {labels}/CASE.nii.gz."
            )
            self.problems.append(fault(f"{what}: {shown}.", way_out, [*missing, *alone]))
        found, broken = [], []
        for name in sorted(of_images.keys() & of_labels.keys()):
            try:
                paths = [*(images / file for file in of_images[name]), labels / of_labels[name]]
                *shown_, label = (Along(opened(path, self.data.max_megapixels), self.axis) for path in paths)
                found.append(Case(f"{named}/{name}", tuple(cast(Sequence[volumes.Volume], shown_)), label))
            except CorruptImage as error:
                broken.append(str(error))
        if broken:
            way_out = "Leave such cases out with --data.on_corrupt skip."
            self.problems.append(of_corrupt(broken[0], way_out, broken, self.data.on_corrupt))
        return found

    def _shown(self, cases: Sequence[Case], label_map: LabelMap) -> list[tuple[int, int]]:
        return volumes.every_slice(cases) if self.empty == "keep" else volumes.labeled_slices(cases, label_map)

    def _said(self, kept: Sequence[Sequence[Case]]) -> Iterable[str]:
        along = ("first", "second", "third")[self.axis]
        total = sum(case.label.size[0] for part in kept for case in part)
        shown = sum(map(len, self.parts))
        yield f"slices along the {along} axis of {sum(map(len, kept)):,} volumes"
        if self.empty == "drop":
            first = self.parts[0].classes[0]
            yield (
                f"{total - shown:,} of {total:,} slices hold nothing but '{first}' and are left out, of evaluation, "
                "too: its scores say nothing of such slices"
            )


def _files(folder: Path) -> list[str]:
    """Names of the volumes in a folder, sorted."""
    return sorted(entry.name for entry in entries(folder) if is_nifti(entry.name) and entry.is_file())


def _by_case(files: Sequence[str]) -> dict[str, list[str]]:
    """The files of each case, in the order of their channels, where all are numbered so; else each file is a case."""
    numbered = [_CHANNEL.fullmatch(stem(file)) for file in files]
    found: dict[str, list[str]] = {}
    for file, match in zip(files, numbered, strict=True):
        found.setdefault(match[1] if match and all(numbered) else stem(file), []).append(file)
    return found


def _described(file: Path, ignore: int | None) -> LabelMap:
    """The labels of a dataset.json, of nnU-Net or of the decathlon. Raises DataError."""
    try:
        values = documents.read_json(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}.") from None
    labels = values.get("labels") if isinstance(values, dict) else None
    if not isinstance(labels, dict) or not labels:
        raise DataError(f"{file} names no labels: expected {{'labels': {{'background': 0, ...}}}}.")
    if all(str(key).isdecimal() for key in labels):
        labels = {str(name): int(key) for key, name in labels.items()}
    if not all(type(number) is int for number in labels.values()):
        raise DataError(
            f"{file} has labels that are no numbers (regions of several?): {dict(labels)!s:.200}. Write a classes.txt, "
            "a name and its number a line."
        )
    return of_numbers(labels, file, ignore)


def _recognizes(path: Path) -> bool:
    return any(
        (path / images).is_dir() and (path / labels).is_dir() and _any_volume(path / images)
        for images, labels in LAYOUTS
    )


def _any_volume(folder: Path) -> bool:
    below = [folder, *(folder / name for name in subfolders(folder))]
    return any(is_nifti(entry.name) for each in below for entry in entries(each))


def _check(data: config.Data, **options: Any) -> list[Problem]:
    survey = _survey(data, **options)
    return [*survey.problems, *(problem for part in survey.parts for problem in volumes.look_through(part))]


def _survey(
    data: config.Data,
    axis: int = 2,
    images: str | None = None,
    labels: str | None = None,
    classes: Path = Path("classes.txt"),
    ignore: int | None = None,
    group: str | None = None,
    empty: str = "keep",
    aligned: bool = False,
    val_split: str | None = None,
    shared: bool = False,
) -> _Survey:
    return _Survey(data, axis, images, labels, classes, ignore, group, empty, aligned, val_split, shared)


@register(
    "nifti",
    summary="volumes of NIfTI with volumes of labels, slice by slice: imagesTr and labelsTr, or images and labels",
    recognizes=_recognizes,
    check=_check,
)
def load(
    data: config.Data,
    *,
    axis: int = 2,
    images: str | None = None,
    labels: str | None = None,
    classes: Path = Path("classes.txt"),
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
        classes: as for masks_folder; without it the labels of dataset.json.
        ignore: value of labels that is void.
        group: a pattern that names the patient in the name of a case, such as (patient[0-9]+)_; default: a case each.
        empty: whether slices without any other class than the first are kept or dropped.
        aligned: labels belong to pictures as both are stored, whatever their headers say of where they lie.
        val_split: name of the folder to evaluate on, beside train.
        shared: let groups be on both sides of the data's own division.
    """
    survey = _survey(data, axis, images, labels, classes, ignore, group, empty, aligned, val_split, shared)
    raise_first(survey.problems)
    parts = survey.parts
    if not parts:
        raise DataError(f"{survey.root} has no case that can be used; `counterpoise check` says why.")
    for part in parts:
        with suppress(CorruptImage) if data.on_corrupt == "skip" else nullcontext():
            part.read_first_labels()  # what is wrong with all labels is said before training begins
    parts[0].notes += [problem.sentence for problem in survey.problems]
    if len(parts) == 1:
        return split_by_fraction(parts[0], data.val_fraction, data.split_seed)
    splits = Splits(parts[0], parts[1])
    if survey.halves is not None:
        name_parts(splits, survey.halves)
        for part, name in zip(parts, survey.halves.names, strict=True):
            part.origin = f"{name} of {survey.root}"
    return splits
