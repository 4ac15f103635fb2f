"""Scenes as LabelMe has them: beside each picture a JSON with the shapes that were drawn on it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from counterpoise import config
from counterpoise.data.packs.labels import read_classes
from counterpoise.data.problems import Problem, fault, of_corrupt, raise_first
from counterpoise.data.sources import runs
from counterpoise.data.sources.base import IGNORE, Splits
from counterpoise.data.sources.division import folders_beside, not_used
from counterpoise.data.sources.given import file_of
from counterpoise.data.sources.grouping import Asked, give_groups
from counterpoise.data.sources.labelme_file import Drawn, Without, picture_of, read
from counterpoise.data.sources.outlines import (
    BACKGROUND,
    Objects,
    OutlinedScenes,
    finish,
    look_at_sizes,
    of_outside,
    with_background,
)
from counterpoise.data.sources.registry import register
from counterpoise.data.split_names import TRAIN, Halves
from counterpoise.data.split_names import find as find_halves
from counterpoise.data.walking import is_image, is_leftover, loose_images, ordered, subfolders
from counterpoise.errors import CorruptImage, DataError, nearest
from counterpoise.system.files import expanded

_VOID = "__ignore__"
_BACKGROUNDS = ("_background_", BACKGROUND)
_LOOKED_AT = 4096
_TRIED = 8
_HEADERS = 500


class _Survey:
    """What a folder of pictures and their JSON holds, and what is wrong with it."""

    def __init__(
        self,
        data: config.Data,
        classes: Path | None = None,
        val_split: str | None = None,
        without_area: Without = "stop",
        resize_masks: bool = False,
        group: str | None = None,
        shared: bool = False,
    ) -> None:
        assert data.path is not None  # the registry has seen to it
        self.data, self.root, self.resize, self.without_area = data, expanded(data.path), resize_masks, without_area
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        names = subfolders(self.root)
        halves = find_halves(names, str(self.root), val=val_split) if _is_divided(names) else None
        self.halves = halves or Halves("", None, "", ())
        if halves is not None:
            others = folders_beside(halves.names, self.root)
            self.halves = replace(halves, unused=tuple(other.name for other in others))
            self.notes += not_used((), [self.root / name for name in loose_images(self.root)])
        drawn = {name: self._read(self.root / name) for name in self.halves.names}
        self.parts: list[OutlinedScenes] = []
        found = self._classes([each for half in drawn.values() for each, _ in half], classes)
        if found is None:
            return
        for name, files in drawn.items():
            self._draw(name, files, *found)
        if len(self.parts) == len(self.halves.names):
            below = [[os.path.relpath(part.root / file, self.root / half).replace(os.sep, "/") for file in part.files]
                     for half, part in zip(self.halves.names, self.parts, strict=True)]  # fmt: skip
            self.problems += give_groups(self.parts, below, Asked(group, shared), self.root, self.halves)

    def _read(self, folder: Path) -> list[tuple[Drawn, Path]]:
        """The JSON of a folder, each with its picture, in the order of pictures."""
        wrong: list[str] = []
        alone: list[str] = []
        found: dict[Path, Drawn] = {}
        twice: list[str] = []
        bare = 0
        for below, names, files in os.walk(folder):
            names[:] = sorted(name for name in names if not is_leftover(name))
            pictures = [name for name in files if is_image(name) and not is_leftover(name)]
            taken = set()
            for name in sorted(name for name in files if name.lower().endswith(".json") and not is_leftover(name)):
                try:
                    drawn = read(Path(below, name))
                except DataError as error:
                    wrong.append(str(error))
                    continue
                picture = picture_of(drawn, self.root, pictures)
                if picture is None:
                    alone.append(f"{drawn.file} ({drawn.picture or 'no imagePath'})")
                elif picture in found:
                    twice.append(f"{drawn.file} and {found[picture].file}")
                else:
                    found[picture] = drawn
                    taken.add(picture.name)
            bare += len({*pictures} - taken)
        self._say(folder, wrong, alone, twice, bare, len(found))
        return [(found[picture], picture) for picture in sorted(found)]

    def _say(
        self, folder: Path, wrong: Sequence[str], alone: Sequence[str], twice: Sequence[str], bare: int, count: int
    ) -> None:
        if wrong:
            self.problems.append(fault(wrong[0], "" if len(wrong) == 1 else f"{len(wrong) - 1} more like it.", wrong))
        if alone:
            what = f"{len(alone):,} JSON of {folder} have no picture beside them, such as {alone[0]}."
            way_out = "Bring these pictures, or leave them out: --data.on_corrupt skip."
            self.problems.append(of_corrupt(what, way_out, alone, self.data.on_corrupt))
        if twice:
            what = f"{len(twice):,} pictures of {folder} have two JSON, such as {twice[0]}."
            self.problems.append(fault(what, "Take one of them away.", twice))
        if not count and not wrong and not alone:
            self.problems.append(fault(f"{folder} holds no JSON of LabelMe's beside pictures."))
        if bare:
            self.notes.append(f"{bare:,} pictures of {folder} have no JSON and are not used: nobody looked at them")

    def _classes(self, drawn: Sequence[Drawn], file: Path | None) -> tuple[tuple[str, ...], dict[str, int]] | None:
        """The classes, and the number of each label."""
        labels = {str(each.get("label", "")).strip() for one in drawn for each in one.values}
        present = ordered(labels - {"", _VOID, *_BACKGROUNDS})
        names = present
        if file is not None:
            file = file_of(file, self.root, "classes")
            names = [name for name in read_classes(file) if name not in (_VOID, *_BACKGROUNDS)]
            if strange := [name for name in present if name not in names]:
                what = f"Label '{strange[0]}' is none of {file}.{nearest(strange[0], names)}"
                self.problems.append(fault(what, "Name it there.", strange))
                return None
        if not names:
            if not self.problems:
                self.problems.append(fault(f"No shape of {self.root} has a label: all would be background."))
            return None
        classes, numbers = with_background(names, str(file or self.root))
        self.notes.append(f"classes by name, pixels of no shape are '{classes[0]}', class 0")
        self.notes.append(
            "a pixel is of a shape where its center is inside; where shapes overlap the smaller one is on top"
        )
        return classes, {**dict(zip(names, numbers, strict=True)), _VOID: IGNORE, **dict.fromkeys(_BACKGROUNDS, 0)}

    def _draw(
        self, half: str, files: Sequence[tuple[Drawn, Path]], classes: tuple[str, ...], number: dict[str, int]
    ) -> None:
        objects = Objects()
        sizes: list[tuple[int, int]] = []
        paths = [os.path.relpath(picture, self.root).replace(os.sep, "/") for _, picture in files]
        scenes = OutlinedScenes(self.root, paths, classes, objects, runs.fill, sizes, self.resize)
        scenes.read_as(self.data.reading)
        wrong: list[str] = []
        for index, (drawn, _) in enumerate(files):
            sizes.append((1, 1))  # of a picture that cannot be read, which is said, or left out, when that is tried
            with suppress(CorruptImage):
                sizes[index] = drawn.size or scenes.extent(index)
                if not scenes.misfit(index):
                    wrong += self._shapes(drawn, *sizes[index])
            for shape in drawn.shapes:
                objects.add(number[shape.label], shape.rings, shape.runs)
            objects.end_image()
        scenes.origin = f"{half} of {self.root}" if half else str(self.root)
        if wrong:
            self.problems.append(fault(wrong[0], "" if len(wrong) == 1 else f"{len(wrong) - 1} more like it.", wrong))
        self._of_shapes([drawn for drawn, _ in files], scenes)
        self.parts.append(scenes)

    def _of_shapes(self, drawn: Sequence[Drawn], scenes: OutlinedScenes) -> None:
        thin = [each for one in drawn for each in one.thin]
        self.problems += of_outside([each for one in drawn for each in one.outside], scenes.origin)
        if thin and self.without_area == "stop":
            what = f"{len(thin):,} shapes of {scenes.origin} are lines or points, such as {thin[0]}: they have no area."
            way_out = "Leave them out, as background: --data.options.without_area background."
            self.problems.append(fault(what, way_out, thin))
        elif thin:
            self.notes.append(f"{len(thin):,} shapes of {scenes.origin} are lines or points and are left out")
        if clipped := sum(one.clipped for one in drawn):
            self.notes.append(f"{clipped:,} shapes of {scenes.origin} reach out of their pictures and are clipped")
        if bare := sum(not one.values for one in drawn):
            self.notes.append(f"{bare:,} of {len(drawn):,} pictures of {scenes.origin} have no shape: all background")

    def _shapes(self, drawn: Drawn, height: int, width: int) -> list[str]:
        """Read the shapes of a picture of this size; what is wrong with them."""
        if height * width > self.data.max_megapixels * 1e6:
            return [f"{drawn.file} is for {width:,} x {height:,} pixels, more than data.max_megapixels allows."]
        try:
            drawn.draw(height, width)
        except DataError as error:
            return [str(error)]
        return []


def _is_divided(names: Sequence[str]) -> bool:
    return any(name.casefold() in TRAIN for name in names)


def _recognizes(path: Path) -> bool:
    """Whether JSON with shapes lie in a folder, or in its train/."""
    try:
        names = subfolders(path)
    except DataError:
        return False
    folders = [path, *(path / name for name in names if name.casefold() in TRAIN)]
    return any(map(_has_shapes, folders))


def _has_shapes(folder: Path) -> bool:
    try:
        found = sorted(entry for entry in folder.iterdir() if entry.suffix.lower() == ".json" and entry.is_file())
        return bool(found) and any(b'"shapes"' in _head(file) for file in found[:_TRIED])
    except OSError:
        return False


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(_LOOKED_AT)


def _check(data: config.Data, **options: Any) -> Iterable[Problem]:
    survey = _Survey(data, **options)
    return [*survey.problems, *look_at_sizes(survey.parts, data.on_corrupt)]


@register(
    "labelme",
    summary="scenes as LabelMe has them: a JSON with polygons, rectangles, circles and masks beside each picture",
    recognizes=_recognizes,
    check=_check,
)
def load(
    data: config.Data,
    *,
    classes: Path | None = None,
    val_split: str | None = None,
    without_area: Without = "stop",
    resize_masks: bool = False,
    group: str | None = None,
    shared: bool = False,
) -> Splits:
    """Scenes whose classes are the labels of shapes, by name, behind background, which is class 0; __ignore__ is void.

    Below `data.path`, at any depth, or below its train/ and val/. A pixel is of a shape where its center is inside;
    where shapes overlap the smaller one is on top. Pictures without a JSON are not used.

    Args:
        classes: file with a name a line, in the order of the classes; default: the labels, in natural order.
        val_split: folder to evaluate on; default: the first of val, valid, validation, dev, test, testing.
        without_area: what becomes of lines and points: an error, or background.
        resize_masks: bring masks to pictures of another size than the JSON says, by the nearest pixel.
        group, shared: as for masks_folder.
    """
    survey = _Survey(data, classes, val_split, without_area, resize_masks, group, shared)
    problems = [*survey.problems, *look_at_sizes(survey.parts, data.on_corrupt, _HEADERS)]
    raise_first(problems)
    return finish(data, survey.parts, survey.halves, [*survey.notes, *(each.sentence for each in problems)])
