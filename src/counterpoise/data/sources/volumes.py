"""Scenes that are slices of volumes, of which each case has its own, and a volume of labels."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from counterpoise import config, decoding
from counterpoise.data.images import to_tensor
from counterpoise.data.label_map import LabelMap
from counterpoise.data.mask_file import classes_of
from counterpoise.data.problems import SHOWN, Problem, fault, of_corrupt
from counterpoise.data.sources import grouping
from counterpoise.data.sources.base import IGNORE, UNLABELED, ImageSet
from counterpoise.data.sources.masks_files import meaning
from counterpoise.data.volume_ends import ends_of
from counterpoise.errors import CorruptImage, CounterpoiseError
from counterpoise.reading import Ends, Intensity, Reading, Unreadable, bounded


class Volume(Protocol):
    """A stack of planes of one size."""

    @property
    def path(self) -> Path:
        """The file or folder."""

    @property
    def size(self) -> tuple[int, int, int]:
        """How many planes there are, and their height and width."""

    @property
    def channels(self) -> int:
        """Of each plane."""

    @property
    def kind(self) -> str:
        """Of its values, as numpy writes it."""

    @property
    def spacing(self) -> tuple[float, float] | None:
        """Of a plane, as `ImageSet.spacing`."""

    @property
    def identity(self) -> str:
        """What tells its planes from those of others, beside its path."""

    def plane(self, place: int) -> NDArray[Any]:
        """The values of a plane, [H, W, channels]. Raises CorruptImage."""

    def unlike(self, label: Any) -> str:
        """How a volume of labels of the same size lies otherwise in the patient, in words; or nothing."""


class Case(NamedTuple):
    """What there is of a case.

    Attributes:
        name: such as its path without what ends it.
        images: its volumes, whose channels follow one another.
        label: None where nothing is known of it.
    """

    name: str
    images: tuple[Volume, ...]
    label: Volume | None

    @property
    def channels(self) -> int:
        return sum(volume.channels for volume in self.images)

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """All that there are."""
        return self.images if self.label is None else (*self.images, self.label)

    @property
    def size(self) -> tuple[int, int, int]:
        """That of all of them."""
        return self.volumes[-1].size

    def plane(self, place: int) -> NDArray[Any]:
        """The values of a slice, [H, W, channels]. Raises CorruptImage."""
        return np.concatenate([volume.plane(place) for volume in self.images], -1)

    def ends(self, intensity: Intensity) -> list[Ends]:
        """Of each channel, of all slices together. Raises CorruptImage."""
        try:
            return ends_of(self.plane, self.size[0], self.channels, intensity)
        except Unreadable as error:
            raise CorruptImage(str(self.images[0].path), str(error)) from None


class VolumeScenes(ImageSet):
    """Slices of volumes, read when asked; those of a case lie together. Without a label map they are no scenes.

    Args:
        root: folder that the names of cases are relative to.
        slices: of all of them, or of those to be shown: the number of a case and a place in its volumes.
        groups: which cases belong together, int64 [cases].
    """

    def __init__(
        self,
        root: Path,
        cases: Sequence[Case],
        slices: Sequence[tuple[int, int]],
        label_map: LabelMap | None,
        groups: Tensor,
    ) -> None:
        labels = torch.full((len(slices),), UNLABELED if label_map is None else 0)
        super().__init__(labels, () if label_map is None else label_map.classes)
        self.masked = label_map is not None
        self.root, self.cases, self.label_map = root, tuple(cases), label_map
        self.origin = str(root)
        self._found: dict[tuple[int, Intensity], list[Ends]] = {}
        self._slices = np.array(slices, dtype=np.int64).reshape(-1, 2)
        self.groups = groups[torch.from_numpy(self._slices[:, 0])]
        _, counts = np.unique(self._slices[:, 0], return_counts=True)
        self.blocks = torch.from_numpy(counts)

    def find(self, index: int) -> tuple[Case, int]:
        """The case of a slice, and its place in the volumes."""
        case, place = self._slices[index].tolist()
        return self.cases[case], place

    def name(self, index: int) -> str:
        case, place = self.find(index)
        return f"{os.fspath(self.root / case.name)} #{place}"

    def read(self, index: int) -> Tensor:
        case, place = self.find(index)
        between = self._ends(int(self._slices[index, 0]))
        values = case.plane(place)
        try:
            return to_tensor(decoding.finished(values, self.reading, between))
        except Unreadable as error:
            raise CorruptImage(self.name(index), str(error)) from None

    def _ends(self, number: int) -> list[Ends] | None:
        """Which values of a case become black and white, where those are of whole volumes. Found once a process."""
        intensity = self.reading.intensity
        if intensity is None or intensity.of == "picture":
            return None
        key = number, intensity
        if key not in self._found:
            self._found[key] = self.cases[number].ends(intensity)
        return self._found[key]

    def read_mask(self, index: int) -> Tensor:
        case, place = self.find(index)
        if case.label is None or self.label_map is None:
            return super().read_mask(index)
        where = Path(f"{case.label.path} #{place}")
        return torch.from_numpy(classes_of(where, self._labels(index), self.label_map))

    def _labels(self, index: int) -> NDArray[np.uint8]:
        """The labels of a slice as its volume has them. Raises CorruptImage."""
        case, place = self.find(index)
        assert case.label is not None
        where = f"{case.label.path} #{place}"
        values = case.label.plane(place)[..., 0]
        odd = values[~((values >= 0) & (values <= 255) & (values == np.floor(values)))]
        if odd.size:
            raise CorruptImage(where, f"it holds the label {odd[0]:g}; labels are whole numbers of 0 to 255")
        return np.ascontiguousarray(values.astype(np.uint8))

    def place(self, index: int) -> str:
        """Its case, below the root, and its place in the volumes."""
        case, place = self.find(index)
        return f"{case.name} #{place}"

    def as_file(self, index: int) -> bytes:
        """The values of a slice as a file: PNG of 8 bits gray or in colors, else an array. Raises CorruptImage."""
        case, place = self.find(index)
        values = np.ascontiguousarray(case.plane(place))
        written = io.BytesIO()
        if values.dtype == np.uint8 and values.shape[2] in (1, 3):
            Image.fromarray(values[..., 0] if values.shape[2] == 1 else values).save(written, "PNG")
        else:
            np.save(written, values.astype(values.dtype.newbyteorder("=")), allow_pickle=False)
        return written.getvalue()

    def mask_file(self, index: int) -> bytes | None:
        """The labels of a slice as a gray PNG, which no file holds."""
        if self.label_map is None:
            return None
        written = io.BytesIO()
        Image.fromarray(self._labels(index)).save(written, "PNG")
        return written.getvalue()

    def mask_name(self, index: int) -> str:
        """What that would be called."""
        return f"{self.place(index)}.png"

    def read_first_labels(self) -> None:
        """All that are shown of the first case. Raises as `read_mask`."""
        for index in np.flatnonzero(self._slices[:, 0] == self._slices[0, 0]).tolist():
            self.read_mask(index)

    def extent(self, index: int) -> tuple[int, int]:
        _, height, width = self.find(index)[0].size
        return height, width

    def spacing(self, index: int) -> tuple[float, float] | None:
        return self.find(index)[0].images[0].spacing

    def identity(self, index: int) -> bytes:
        case, place = self.find(index)
        volumes = [f"{_below(volume.path, self.root)} {volume.identity}" for volume in case.volumes]
        return os.fsencode(" ".join([*volumes, str(place), *self._meaning]))

    def whereabouts(self, index: int) -> bytes:
        case, place = self.find(index)
        first = case.images[0]
        return os.fsencode(f"{first.path.resolve()} {first.identity} {place}")

    @cached_property
    def _meaning(self) -> list[str]:
        return [] if self.label_map is None else [meaning(self.label_map, False)]


def _below(path: Path, root: Path) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def every_slice(cases: Sequence[Case]) -> list[tuple[int, int]]:
    """The number of a case and a place in it, of all."""
    return [(number, place) for number, case in enumerate(cases) for place in range(case.size[0])]


def labeled_slices(cases: Sequence[Case], label_map: LabelMap) -> list[tuple[int, int]]:
    """Those in which a pixel is of another class than the first. Reads all volumes of labels."""
    every = every_slice(cases)
    whole = VolumeScenes(Path(), cases, every, label_map, torch.zeros(len(cases), dtype=torch.int64))
    masks = (whole.read_mask(index) for index in range(len(whole)))
    return [each for each, mask in zip(every, masks, strict=True) if bool(((mask > 0) & (mask != IGNORE)).any())]


def fitting(cases: Sequence[Case], data: config.Data, aligned: bool) -> tuple[list[Case], list[Problem]]:
    """Those whose volumes fit one another and what is read, and what is wrong with the others.

    Args:
        aligned: labels belong to the pictures as they are stored, whatever headers say of where they lie.
    """
    wrong: dict[str, list[str]] = {}
    kept = []
    for case in cases:
        unfit = list(_unfit(case, data.reading, aligned))
        kept += [] if unfit else [case]
        for kind, what in unfit[:1]:
            wrong.setdefault(kind, []).append(what)
    problems = [_of(kind, whats, data) for kind, whats in wrong.items()]
    counts = {case.channels for case in kept}
    if len(counts) > 1:
        shown = [next(case for case in kept if case.channels == count) for count in sorted(counts)][:SHOWN]
        said = ", ".join(f"{case.name} {case.channels}" for case in shown)
        problems.append(fault(f"Cases differ in how many channels they have: {said}.", "All must have as many."))
    elif counts and not _as_many(counts.pop(), data.channels):
        problems.append(
            fault(
                f"Each case has {kept[0].channels} channels, such as {kept[0].name}, and data.channels is "
                f"{data.channels}.",
                f"Say so: --data.channels {kept[0].channels}.",
            )
        )
    deep = [case for case in kept if any(np.dtype(volume.kind) != np.uint8 for volume in case.images)]
    if deep and data.intensity is None:
        kind = next(volume.kind for volume in deep[0].images if np.dtype(volume.kind) != np.uint8)
        what = (
            f"Values of {len(deep):,} of {len(kept):,} cases are no bytes, such as {np.dtype(kind)} of {deep[0].name}."
        )
        way_out = "Say with data.intensity how they become 8 bits, such as --data.intensity.window -160 240."
        problems.append(fault(what, way_out, [case.name for case in deep]))
    return kept, problems


def _as_many(count: int, wanted: int) -> bool:
    return count == wanted or (count == 1 and wanted == 3)


def _unfit(case: Case, reading: Reading, aligned: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with a case: a kind of mistake, and a sentence."""
    label = case.label
    for volume in case.images:
        if label is None:
            if volume.size != case.size:
                ours, theirs = (" x ".join(map(str, size)) for size in (volume.size, case.size))
                where = case.images[-1].path
                yield "size", f"{volume.path} is {ours} (slices, rows, columns), and {where} is {theirs}"
        elif volume.size != label.size:
            ours, theirs = (" x ".join(map(str, each.size)) for each in (volume, label))
            yield "size", f"{label.path} is {theirs} (slices, rows, columns), and {volume.path} is {ours}"
        elif not aligned and (how := volume.unlike(label)):
            yield "space", f"{label.path} {how} than {volume.path}"
    if label is not None and label.channels != 1:
        yield "labels", f"{label.path} holds {label.channels} volumes, expected one of labels"
    try:
        bounded(case.size[1], case.size[2], reading)
    except Unreadable as error:
        yield "large", f"{case.volumes[-1].path}: a slice is too large: {error}"


def _of(kind: str, whats: Sequence[str], data: config.Data) -> Problem:
    more = f"; and {len(whats) - SHOWN} more" if len(whats) > SHOWN else ""
    way_out = "Leave such cases out with --data.on_corrupt skip."
    if kind == "space":
        way_out = (
            "Resample labels to their pictures, or say that both belong together as they are stored: "
            "--data.options.aligned true."
        )
    return of_corrupt(f"{'; '.join(whats[:SHOWN])}{more}.", way_out, whats, data.on_corrupt)


def grouped(
    parts: Sequence[Sequence[Case]], group: str | None, shared: bool
) -> tuple[list[Tensor], tuple[str, ...], list[str], list[Problem]]:
    """Which cases of each part belong together, as numbers, and what these are called; what is to be said of it, and
    what is wrong.

    Args:
        group: a pattern in their names; None: each case is a group.
    """
    names = [[case.name.rpartition("/")[2] if group is None else case.name for case in part] for part in parts]
    how, problems = "a case each", list[Problem]()
    if group is not None:
        flat, how, problems = grouping.by_pattern([name for part in names for name in part], group)
        if problems:
            return [], (), [], problems
        rest = iter(flat)
        names = [[next(rest) for _ in part] for part in names]
    both = grouping.torn(names) if len(names) > 1 else []
    if both:
        what = f"{len(both):,} groups are both trained on and evaluated on, such as '{both[0]}'."
        problems.append(grouping.of_torn(what, both, "move their volumes to one side", shared))
    every = [name for part in names for name in part]
    numbers = torch.split(grouping.numbered(every), [len(part) for part in names])
    return list(numbers), grouping.called(every), [grouping.said(every, how, not both)], problems


def look_through(images: VolumeScenes) -> list[Problem]:
    """Read every slice of labels, and say what is wrong with the first that cannot be."""
    found = []
    for index in range(len(images)):
        try:
            images.read_mask(index)
        except CounterpoiseError as error:
            found.append(str(error))
    return [fault(found[0], f"{len(found) - 1} more slices are like it." if len(found) > 1 else "")] if found else []
