"""A folder of volumes of pictures and of labels: its cases by name, and all that is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from counterpoise import config
from counterpoise.data.label_map import LabelMap, of_numbers, read_label_map
from counterpoise.data.problems import SHOWN, Problem, fault, of_corrupt, raise_first
from counterpoise.data.sources import volumes
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.division import folders_beside, name_parts, not_used, split_by_fraction
from counterpoise.data.sources.given import CLASSES, classes_file
from counterpoise.data.sources.volumes import Case, Volume, VolumeScenes
from counterpoise.data.split_names import TRAIN, Halves, find
from counterpoise.data.walking import subfolders
from counterpoise.errors import CorruptImage, DataError
from counterpoise.system import documents
from counterpoise.system.files import expanded, is_file, is_folder

DESCRIPTION = "dataset.json"
OTHERS = {"imagesTr": "imagesTs", "labelsTr": "labelsTs"}


@dataclass(frozen=True)
class Kind:
    """How a source finds and opens its volumes.

    Attributes:
        endings: what volumes are, in words.
        layouts: names of folders of volumes and of labels, the first that are there being taken.
        cases, labels: the files of each case in a folder of volumes, and of each in one of labels, by the case's name;
            that two are called alike is added to the problems.
        open_image, open_label: a volume at a path. They raise CorruptImage.
        called: how labels are called: a sentence without its end.
    """

    endings: str
    layouts: Sequence[tuple[str, str]]
    cases: Callable[[Path, list[Problem]], dict[str, list[str]]]
    labels: Callable[[Path, list[Problem]], dict[str, str]]
    open_image: Callable[[Path], Volume]
    open_label: Callable[[Path], Volume]
    called: str


@dataclass(frozen=True)
class Asked:
    """What options of a source of volumes have in common; as the sources say of them."""

    images: str | None = None
    labels: str | None = None
    classes: Path | None = None
    ignore: int | None = None
    group: str | None = None
    empty: str = "keep"
    aligned: bool = False
    val_split: str | None = None
    shared: bool = False


@dataclass
class Survey:
    """A folder of volumes as it is, and all that is wrong with it.

    Attributes:
        parts: the scenes of each part, as far as they are right.
        unused: a word on what is there and is no part.
    """

    data: config.Data
    kind: Kind
    asked: Asked
    notes: Sequence[str] = ()
    problems: list[Problem] = field(default_factory=list)
    parts: list[VolumeScenes] = field(default_factory=list)
    halves: Halves | None = None
    unused: Sequence[str] = ()

    def __post_init__(self) -> None:
        assert self.data.path is not None  # the registry has seen to it
        self.root = expanded(self.data.path)
        found = self._folders()
        label_map = self._label_map()
        if found is None or label_map is None:
            return
        every = [self._cases(images, labels) for images, labels in found]
        kept: list[list[Case]] = []
        flat, wrong = volumes.fitting([case for part in every for case in part], self.data, self.asked.aligned)
        self.problems += wrong
        for part in every:
            kept.append([case for case in part if case in flat])
        numbers, called, notes, torn = volumes.grouped(kept, self.asked.group, self.asked.shared)
        self.problems += torn
        if any(problem.severity == "error" for problem in self.problems) or not all(kept):
            return
        left = [case.name for part in every for case in part if case not in flat]
        for cases, groups in zip(kept, numbers, strict=True):
            scenes = VolumeScenes(self.root, cases, self._shown(cases, label_map), label_map, groups)
            scenes.group_names = called
            scenes.read_as(self.data.reading)
            self.parts.append(scenes)
        self.parts[0].corrupt = left
        self.parts[0].notes += [*notes, *self._said(kept), *self.unused]

    def splits(self) -> Splits:
        """What was found. Raises DataError for the first thing that is wrong."""
        raise_first(self.problems)
        parts = self.parts
        if not parts:
            raise DataError(f"{self.root} has no case that can be used; `counterpoise check` says why.")
        for part in parts:
            with suppress(CorruptImage) if self.data.on_corrupt == "skip" else nullcontext():
                part.read_first_labels()  # what is wrong with all labels is said before training begins
        parts[0].notes += [problem.sentence for problem in self.problems]
        if len(parts) == 1:
            return split_by_fraction(parts[0], self.data.val_fraction, self.data.split_seed)
        splits = Splits(parts[0], parts[1])
        if self.halves is not None:
            name_parts(splits, self.halves)
            for part, name in zip(parts, self.halves.names, strict=True):
                part.origin = f"{name} of {self.root}"
        return splits

    def look_through(self) -> list[Problem]:
        """All that is wrong, every label read."""
        return [*self.problems, *(problem for part in self.parts for problem in volumes.look_through(part))]

    def _folders(self) -> list[tuple[Path, Path]] | None:
        """Folders of images and of labels of each part; None where there are none."""
        wanted = [
            (self.asked.images or images, self.asked.labels or labels)
            for images, labels in self.kind.layouts
            if (self.root / (self.asked.images or images)).is_dir()
            and (self.root / (self.asked.labels or labels)).is_dir()
        ]
        if not wanted:
            known = " or ".join(f"{images} and {labels}" for images, labels in self.kind.layouts)
            said = " ".join(filter(None, (self.asked.images, self.asked.labels)))
            what = f"{self.root} has no folders of volumes and of labels{said and f' ({said})'}"
            self.problems.append(fault(f"{what}; known are {known}.", "Name yours: --data.options.images, labels."))
            return None
        images, labels = (self.root / name for name in wanted[0])
        names = subfolders(images)
        direct = [file for files in self._there(images).values() for file in files]
        if any(name.casefold() in TRAIN for name in names):
            self.halves = find(names, str(images), val=self.asked.val_split)
            assert self.halves is not None
            loose = [images / file for file in direct if is_file(images / file)]
            self.unused = not_used(folders_beside(self.halves.names, images, found=self._there), loose)
            return [(images / name, labels / name) for name in self.halves.names]
        others = folders_beside(direct, images, found=self._there)
        beside = [self.root / OTHERS.get(name, name) for name in wanted[0]]
        if self.asked.val_split is not None:
            raise DataError(f"{images} has no folder train, so there is no split '{self.asked.val_split}' beside it.")
        if beside[0] != images and beside[1].is_dir() and self.kind.labels(beside[1], []):
            self.halves = Halves("Tr", "Ts", "there is no val", ())
            self.unused = not_used(others)
            return [(images, labels), (beside[0], beside[1])]
        without = [beside[0]] if beside[0] != images and is_folder(beside[0]) and self._there(beside[0]) else []
        self.unused = not_used([*others, *without])
        return [(images, labels)]

    def _there(self, folder: Path) -> Mapping[str, Sequence[str]]:
        """The cases of a folder, of which nothing is asked yet."""
        return self.kind.cases(folder, [])

    def _label_map(self) -> LabelMap | None:
        asked, description = self.asked, self.root / DESCRIPTION
        try:
            if asked.classes is None and not (self.root / CLASSES).is_file() and description.is_file():
                return _described(description, asked.ignore)
            return read_label_map(classes_file(asked.classes, self.root), asked.ignore)
        except DataError as error:
            self.problems.append(fault(str(error)))
        return None

    def _cases(self, images: Path, labels: Path) -> list[Case]:
        """The cases of a part whose volumes can be opened."""
        of_images, of_labels = self.kind.cases(images, self.problems), self.kind.labels(labels, self.problems)
        named = images.relative_to(self.root).as_posix()
        if not of_images:
            self.problems.append(fault(f"{images} holds no volumes ({self.kind.endings})."))
        missing = sorted(of_images.keys() - of_labels.keys())
        alone = sorted(of_labels.keys() - of_images.keys())
        if missing or alone:
            sides = (f"{len(missing)} volumes of {images} have no labels", f"{len(alone)} labels have no volume")
            what = " and ".join(side for side, names in zip(sides, (missing, alone), strict=True) if names)
            shown = ", ".join([*missing, *alone][:SHOWN])
            self.problems.append(fault(f"{what}: {shown}.", f"{self.kind.called} in {labels}.", [*missing, *alone]))

        def case(name: str) -> Case:
            seen = _images(self.kind, images, of_images[name])
            return Case(f"{named}/{name}", seen, self.kind.open_label(labels / of_labels[name]))

        found, broken = _each(sorted(of_images.keys() & of_labels.keys()), case, self.data.on_corrupt)
        self.problems += broken
        return found

    def _shown(self, cases: Sequence[Case], label_map: LabelMap) -> list[tuple[int, int]]:
        return volumes.every_slice(cases) if self.asked.empty == "keep" else volumes.labeled_slices(cases, label_map)

    def _said(self, kept: Sequence[Sequence[Case]]) -> Iterable[str]:
        total = sum(case.size[0] for part in kept for case in part)
        shown = sum(map(len, self.parts))
        yield f"{sum(map(len, kept)):,} cases of volumes"
        yield from self.notes
        if self.asked.empty == "drop":
            first = self.parts[0].classes[0]
            yield (
                f"{total - shown:,} of {total:,} slices hold nothing but '{first}' and are left out, of evaluation, "
                "too: its scores say nothing of such slices"
            )


def without_labels(folder: Path, kind: Kind, data: config.Data) -> VolumeScenes:
    """All slices of the volumes in a folder, of which nothing is known. Raises DataError."""
    alike: list[Problem] = []
    of_images = kind.cases(folder, alike)
    raise_first(alike)
    if not of_images:
        raise DataError(f"{folder} holds no volumes ({kind.endings}).")
    every, problems = _each(
        sorted(of_images), lambda name: Case(name, _images(kind, folder, of_images[name]), None), data.on_corrupt
    )
    cases, wrong = volumes.fitting(every, data, aligned=True)
    raise_first([*problems, *wrong])
    if not cases:
        raise DataError(f"{folder} holds no volumes that can be read.")
    slices = volumes.every_slice(cases)
    found = VolumeScenes(folder, cases, slices, None, torch.arange(len(cases)))
    found.read_as(data.reading)
    found.corrupt = [case.name for case in every if case not in cases]
    found.notes = [
        f"data.unlabeled: {len(slices):,} slices of {len(cases):,} cases of volumes",
        *(problem.sentence for problem in (*problems, *wrong)),
    ]
    return found


def _images(kind: Kind, folder: Path, files: Sequence[str]) -> tuple[Volume, ...]:
    return tuple(kind.open_image(folder / file) for file in files)


def _each(names: Sequence[str], opened: Callable[[str], Case], on_corrupt: str) -> tuple[list[Case], list[Problem]]:
    """The cases that can be opened, and what is wrong with the others."""
    found, broken = [], []
    for name in names:
        try:
            found.append(opened(name))
        except CorruptImage as error:
            broken.append(str(error))
    way_out = "Leave such cases out with --data.on_corrupt skip."
    return found, [of_corrupt(broken[0], way_out, broken, on_corrupt)] if broken else []


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
