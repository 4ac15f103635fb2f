"""Scenes as YOLO has them: data.yaml, and beside each image a text with the outline of each object, in shares of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise import config
from counterpoise.data.problems import Problem, fault, raise_first
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.grouping import Asked, give_groups
from counterpoise.data.sources.outlines import (
    Objects,
    OutlinedScenes,
    centers_inside,
    finish,
    of_outside,
    position,
    with_background,
)
from counterpoise.data.sources.registry import register
from counterpoise.data.split_names import find as find_halves
from counterpoise.data.split_names import is_split_name
from counterpoise.data.walking import image_files, of_links
from counterpoise.errors import DataError, UnfitFileError
from counterpoise.system import documents
from counterpoise.system.files import expanded, is_folder

_BESIDE = 0.02  # how far outside its picture a corner may lie, as a share: rounding of other programs
_YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_LINES = 100_000


class _Survey:
    """What a folder holds, and what is wrong with it."""

    def __init__(
        self,
        data: config.Data,
        file: str | None = None,
        val_split: str | None = None,
        group: str | None = None,
        shared: bool = False,
    ) -> None:
        assert data.path is not None  # the registry has seen to it
        self.data, self.root = data, expanded(data.path)
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.parts: list[OutlinedScenes] = []
        self.outside: list[str] = []
        self.file = _file(self.root, file)
        values = _values(self.file)
        names = _names(values, self.file)
        if "kpt_shape" in values:
            raise DataError(f"{self.file} is of key points (kpt_shape), with boxes around them; expected outlines.")
        self.classes, self.labels = with_background(names, str(self.file))
        given = {key: value for key, value in values.items() if is_split_name(str(key)) and value}
        halves = find_halves(map(str, given), str(self.file), val=val_split)
        if halves is None:
            raise DataError(f"{self.file} says no 'train': expected the folder of its images.")
        self.halves = halves
        self.base = _base(values, self.file)
        for name in halves.names:
            self._read(name, given[name])
        self.problems += of_outside(self.outside, str(self.root))
        below = [part.files for part in self.parts]
        self.problems += give_groups(self.parts, below, Asked(group, shared), self.root, halves)
        self.notes = [
            f"pixels of no object are '{self.classes[0]}', class 0; '{names[0]}' is class {self.labels[0]}",
            "a pixel is of an object where its center is inside the outline; where objects overlap the smaller one is "
            "on top",
            *self.notes,
        ]

    def _read(self, name: str, said: Any) -> None:
        folder = self._folder(name, said)
        labels = _beside(folder)
        twice: list[str] = []
        files = image_files(folder, self.data.reading.arrays, twice)
        self.notes += of_links(folder, twice)
        if not files:
            raise DataError(f"{folder} ({name} of {self.file}) holds no images.")
        objects = Objects()
        boxes: list[str] = []
        bare = 0
        for each in files:
            text = labels / Path(each).with_suffix(".txt")
            before = len(objects.classes)
            for number, line in enumerate(_lines(text), 1):
                self._add(objects, line.split(), f"{text}, line {number}", boxes)
            bare += len(objects.classes) == before
            objects.end_image()
        if boxes:
            what = f"{len(boxes):,} objects of {labels} are boxes (5 numbers a line), such as {boxes[0]}."
            way_out = "No mask is known of them. Outlines are CLASS X Y X Y X Y ..., with 3 points or more."
            self.problems.append(fault(what, way_out, boxes))
        elif bare == len(files):
            what = f"No image of {folder} has an outline in {labels}: expected NAME.txt for NAME.jpg."
            self.problems.append(fault(what))
        elif bare:
            self.notes.append(f"{bare:,} of {len(files):,} images of {folder} have no object: all background")
        part = OutlinedScenes(folder, files, self.classes, objects, centers_inside)
        part.read_as(self.data.reading)
        part.origin = f"{name} of {self.root}"
        self.parts.append(part)

    def _folder(self, name: str, said: Any) -> Path:
        if not isinstance(said, str):
            raise DataError(f"{name} of {self.file} is {said!r:.60}; expected one folder of images.")
        # Some programs write paths as seen from another folder.
        plain = said.replace("\\", "/")
        inner = plain
        while inner.startswith("../"):
            inner = inner[3:]
        tried = [self.base / plain, self.file.parent / plain, self.file.parent / inner]
        for folder in dict.fromkeys(tried):
            if is_folder(folder):
                return folder / "images" if is_folder(folder / "images") else folder
        listed = ", ".join(map(str, dict.fromkeys(tried)))
        more = " Lists of images are not read: give a folder." if plain.endswith(".txt") else ""
        raise DataError(f"{name} of {self.file} is '{said}', and there is no such folder: {listed}.{more}")

    def _add(self, objects: Objects, words: Sequence[str], where: str, boxes: list[str]) -> None:
        try:
            label, numbers = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            raise DataError(f"{where} is no outline: {' '.join(words)[:60]!r}.") from None
        if not 0 <= label < len(self.labels):
            raise DataError(f"{where} is of class {label}, and {self.file} names {len(self.labels)}.")
        if len(numbers) == 4:
            boxes.append(where)
            return
        if len(numbers) < 6 or len(numbers) % 2:
            raise DataError(f"{where} has {len(numbers)} coordinates; expected an even number, 6 or more.")
        if not all(-_BESIDE <= number <= 1 + _BESIDE for number in numbers):
            strange = next(number for number in numbers if not -_BESIDE <= number <= 1 + _BESIDE)
            raise DataError(f"{where} holds {strange:g}; expected shares of width and height, 0 to 1.")
        if position(numbers, (1, 1)) == "outside":
            self.outside.append(where)
        objects.add(self.labels[label], [numbers])


def _file(root: Path, given: str | None) -> Path:
    if given is not None:
        return root / given
    found = next((root / name for name in _YAML if (root / name).is_file()), None)
    if found is None:
        raise DataError(f"{root} has no {_YAML[0]}; name the file, --data.options.file NAME.yaml.")
    return found


def _values(file: Path) -> Mapping[str, Any]:
    try:
        values = documents.read_yaml(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {documents.why_unread(error)}.") from None
    if not isinstance(values, dict) or "names" not in values:
        raise DataError(f"{file} names no classes: expected 'names', and 'train' and 'val' with folders of images.")
    return {str(key): value for key, value in values.items()}


def _names(values: Mapping[str, Any], file: Path) -> list[str]:
    names = values["names"]
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise DataError(f"{file}: the numbers of 'names' are not 0 to {len(names) - 1}.")
        by_text = {str(number): name for number, name in names.items()}
        names = [by_text[str(number)] for number in range(len(names))]
    if not isinstance(names, list):
        raise DataError(f"{file}: 'names' is neither a list nor numbers with names.")
    return [str(name) for name in names]


def _base(values: Mapping[str, Any], file: Path) -> Path:
    said = values.get("path")
    try:
        return file.parent if not isinstance(said, str) else file.parent / expanded(Path(said))
    except UnfitFileError as error:
        raise DataError(f"path of {file}: {error}.") from None


def _beside(folder: Path) -> Path:
    """The folder of labels: the last 'images' in the path of images is 'labels'."""
    parts = list(folder.parts)
    for place in reversed(range(len(parts))):
        if parts[place] == "images":
            return Path(*parts[:place], "labels", *parts[place + 1 :])
    raise DataError(f"{folder} has no folder 'images' in its path, of which 'labels' would be beside it.")


def _lines(text: Path) -> list[str]:
    """The lines of a text of labels; none where there is no such file, as of an image without an object."""
    if not text.exists():
        return []
    try:
        lines = [line for line in documents.read_text(text).splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{text} cannot be read: {documents.why_unread(error)}.") from None
    if len(lines) > _LINES:
        raise DataError(f"{text} has {len(lines):,} objects; up to {_LINES:,} are read.")
    return lines


def _recognizes(path: Path) -> bool:
    try:
        file = _file(path, None)
        return "names" in (values := _values(file)) and any(map(is_split_name, values))
    except DataError:
        return False


def _check(data: config.Data, **options: Any) -> Iterable[Problem]:
    return _Survey(data, **options).problems


@register(
    "yolo",
    summary="scenes with outlines as YOLO has them: data.yaml, images/ and labels/ with CLASS X Y X Y ... a line",
    recognizes=_recognizes,
    check=_check,
)
def load(
    data: config.Data,
    *,
    file: str | None = None,
    val_split: str | None = None,
    group: str | None = None,
    shared: bool = False,
) -> Splits:
    """Scenes whose classes are those of data.yaml, in its order, behind background, which is class 0.

    A pixel is of an object where its center is inside the outline; where objects overlap the smaller one is on top. An
    image without a text of labels is all background. Boxes are refused.

    Args:
        file: YAML with names, train and val, in the folder; default: data.yaml or dataset.yaml.
        val_split: part to evaluate on, as the YAML calls it.
        group, shared: as for masks_folder.
    """
    survey = _Survey(data, file, val_split, group, shared)
    raise_first(survey.problems)
    return finish(data, survey.parts, survey.halves, [*survey.notes, *(each.sentence for each in survey.problems)])
