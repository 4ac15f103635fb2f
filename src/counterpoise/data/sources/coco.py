"""Scenes as COCO has them: a JSON of outlines (polygons or runs) beside folders of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from counterpoise import config
from counterpoise.data.problems import Problem, fault, of_corrupt, raise_first
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.coco_file import Without, read, without
from counterpoise.data.sources.given import file_of, folder_of
from counterpoise.data.sources.grouping import Asked, give_groups
from counterpoise.data.sources.outlines import OutlinedScenes, finish, look_at_sizes, of_outside
from counterpoise.data.sources.registry import register
from counterpoise.data.split_names import Halves, word_in
from counterpoise.data.split_names import find as find_halves
from counterpoise.errors import ConfigError, DataError, MissingExtraError, shown
from counterpoise.system.files import expanded, is_below, is_file

_LOOKED_AT = 500
_NAMES = (
    "annotations/instances*.json",
    "annotations/*coco*.json",
    "*/_annotations.coco.json",
    "_annotations.coco.json",
)


def _find(root: Path, train: Path | None, val: Path | None, val_split: str | None) -> tuple[Halves, list[Path]]:
    """The JSON of each half, and what they are called."""
    if root.is_file():
        return Halves("", None, "", ()), [root]
    if train is not None:
        given = [file_of(path, root, name) for name, path in (("train", train), ("val", val)) if path is not None]
        return Halves("train", "val" if val is not None else None, "", ()), given
    files = next((found for name in _NAMES if (found := sorted(root.glob(name)))), [])
    if not files:
        raise DataError(
            f"{root} holds no JSON of COCO's, such as annotations/instances_train.json. "
            "Name it, --data.options.train FILE, and --data.options.val FILE where there is one."
        )
    if len(files) == 1:
        return Halves("", None, "", ()), files
    by_word: dict[str, Path] = {}
    for file in files:
        word = word_in(str(file.relative_to(root)))
        if not word or word in by_word:
            raise DataError(
                f"{file} and others of {root}: which is for training is not clear. Name them, --data.options.train "
                "FILE --data.options.val FILE."
            )
        by_word[word] = file
    halves = find_halves(by_word, str(root), val=val_split)
    if halves is None:
        raise DataError(f"{root} has no JSON for training, only {', '.join(map(str, files))}.")
    return halves, [by_word[name] for name in halves.names]


def _folder(root: Path, file: Path, names: Sequence[str], images: Path | None) -> Path:
    """The folder that holds the pictures of a JSON, by its first one."""
    base = file.parent if root.is_file() else root
    stem = file.stem.removeprefix("instances_").removeprefix("instances")
    if images is not None:
        given = folder_of(images, base, "images")
        tried = [given, given / stem]
    else:
        places = [base, *([base.parent] if base.name == "annotations" else [])]
        tried = [file.parent]
        for place in places:
            tried += [place / stem, place / "images" / stem, place / "images", place]
        word = word_in(stem)
        tried += [place / name / word for place in places for name in ("", "images") if word]
    for folder in tried:
        if any(is_below(folder, name) and is_file(folder / name) for name in names[:20]):
            return folder
    looked = ", ".join(dict.fromkeys(map(str, tried)))
    raise DataError(
        f"The pictures of {file}, such as {names[0]}, are in none of {looked}: --data.options.images FOLDER."
    )


@dataclass
class _Survey:
    """What a folder holds, and what is wrong with that; fields are the options of the source, see `load`."""

    data: config.Data
    images: Path | None = None
    train: Path | None = None
    val: Path | None = None
    val_split: str | None = None
    without_outline: Without = "stop"
    group: str | None = None
    shared: bool = False
    resize_masks: bool = False

    def __post_init__(self) -> None:
        assert self.data.path is not None  # the registry has seen to it
        if find_spec("pycocotools") is None:
            raise MissingExtraError("Drawing the outlines of COCO", "coco")
        if self.val is not None and self.train is None:
            raise ConfigError("data.options.val is given, and no data.options.train.")
        self.problems: list[Problem] = []
        self.parts: list[OutlinedScenes] = []
        root = expanded(self.data.path)
        self.halves, files = _find(root, self.train, self.val, self.val_split)
        self.notes: list[str] = []
        for name, file in zip(self.halves.names, files, strict=True):
            self._read(root, name, file)
        if len({part.classes for part in self.parts}) > 1:
            first, second = (list(part.classes) for part in self.parts)
            other = next((name for name in (*first, *second) if (name in first) != (name in second)), "their order")
            self.problems.append(fault(f"The categories of {files[0]} and {files[1]} differ: {other}."))
        if len(self.parts) == len(files):
            below, asked = [part.files for part in self.parts], Asked(self.group, self.shared)
            self.problems += give_groups(self.parts, below, asked, root, self.halves)

    def _read(self, root: Path, name: str, file: Path) -> None:
        part = read(file, self.without_outline)
        if not part.names:
            self.problems.append(fault(f"{file} names no images."))
            return
        folder = _folder(root, file, part.names, self.images)
        if (outside := next((each for each in part.names if not is_below(folder, each)), None)) is not None:
            self.problems.append(fault(f"{file} names the picture {shown(outside)}, which leads out of {folder}."))
            return
        missing = [each for each in part.names if not is_file(folder / each)]
        if missing:
            what = f"{len(missing):,} of {len(part.names):,} pictures that {file} names are not in {folder}."
            way_out = "Bring them, or leave them out: --data.on_corrupt skip."
            self.problems.append(of_corrupt(what, way_out, missing, self.data.on_corrupt))
            part = without(part, set(missing))
        if part.boxed and self.without_outline == "stop":
            every = len(part.objects.classes) + len(part.boxed)
            self.problems.append(
                fault(
                    f"{len(part.boxed):,} of {every:,} objects of {file} have a box and no outline.",
                    "Have their boxes be void, --data.options.without_outline void, or background, likewise.",
                    part.boxed,
                )
            )
        elif part.names and not part.boxed and not len(part.objects.classes):
            self.problems.append(fault(f"No picture of {file} has an outline: all would be background."))
        self.problems += of_outside(part.outside, str(file))
        scenes = part.scenes(folder, self.data.reading, self.resize_masks)
        scenes.origin = f"{name} of {root}" if name else str(file)
        self.parts.append(scenes)
        self.notes += part.notes()

    def look_at_sizes(self, most: int | None) -> None:
        """Headers of some pictures, or all, beside what outlines are for."""
        self.problems += look_at_sizes(self.parts, self.data.on_corrupt, most)


def _recognizes(path: Path) -> bool:
    return any(next(path.glob(name), None) is not None for name in _NAMES)


def _check(data: config.Data, **options: Any) -> Iterable[Problem]:
    survey = _Survey(data, **options)
    survey.look_at_sizes(None)
    return survey.problems


@register(
    "coco",
    summary="scenes with outlines as COCO has them: annotations/instances_train.json and its pictures (extra: coco)",
    recognizes=_recognizes,
    files=lambda path: path.suffix.lower() == ".json",
    check=_check,
)
def load(
    data: config.Data,
    *,
    images: Path | None = None,
    train: Path | None = None,
    val: Path | None = None,
    val_split: str | None = None,
    without_outline: Without = "stop",
    group: str | None = None,
    shared: bool = False,
    resize_masks: bool = False,
) -> Splits:
    """Scenes whose classes are the categories, by their numbers, behind background, which is class 0.

    Outlines are filled as pycocotools does it. Where objects overlap the smaller one is on top.

    Args:
        images: folder of the pictures; default: the one beside the JSON that holds the first of them.
        train, val: JSON of each half; default: those with such a word in their paths; one alone is divided by
            data.val_fraction.
        val_split: part to evaluate on, as it is called there.
        without_outline: what becomes of objects with a box alone: an error, void in their box, or background.
        group, shared: as for masks_folder; the pattern is looked for in the file_name of each picture.
        resize_masks: bring masks to pictures of another size than the JSON says, by the nearest pixel.
    """
    survey = _Survey(data, images, train, val, val_split, without_outline, group, shared, resize_masks)
    survey.look_at_sizes(_LOOKED_AT)
    raise_first(survey.problems)
    return finish(data, survey.parts, survey.halves, [*survey.notes, *(each.sentence for each in survey.problems)])
