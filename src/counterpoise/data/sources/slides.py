"""Whole-slide images with masks, at one of their levels, of which no more is read than is looked at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.label_map import LabelMap, read_label_map
from counterpoise.data.problems import Problem, raise_first
from counterpoise.data.slide_file import ENDINGS, At, Slide, SlideMask
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.division import folders_beside, name_parts, not_used, split_by_fraction
from counterpoise.data.sources.files import FileSet
from counterpoise.data.sources.given import classes_file
from counterpoise.data.sources.grouping import Asked, give_groups
from counterpoise.data.sources.masks_files import meaning
from counterpoise.data.sources.masks_pairing import by_key
from counterpoise.data.sources.registry import register
from counterpoise.data.split_names import Halves, find
from counterpoise.data.walking import entries, subfolders
from counterpoise.errors import ConfigError, DataError
from counterpoise.system.files import expanded

MASKS = (".tif", ".tiff", ".png")
_KNOWN = 64


class Slides(FileSet):
    """Slides at a level with their masks, by parts.

    Args:
        masks: folder and files of the masks.
        at: which level.
    """

    masked = True

    def __init__(
        self, root: Path, files: Sequence[str], masks: tuple[Path, Sequence[str]], label_map: LabelMap, at: At
    ) -> None:
        super().__init__(root, files, torch.zeros(len(files), dtype=torch.int64), label_map.classes)
        self.mask_root, self.mask_files = masks[0], tuple(masks[1])
        self.label_map, self.at = label_map, at

    def slide(self, index: int) -> Slide:
        """One of them. Raises CorruptImage."""
        return _slide(self.root / self.files[index], self.at)

    def in_parts(self, index: int) -> tuple[Slide, SlideMask]:
        slide = self.slide(index)
        return slide, SlideMask(self.mask_root / self.mask_files[index], self.label_map, slide.size, self.reading)

    def file(self, index: int) -> None:  # type: ignore[override]
        return None

    def read(self, index: int) -> Tensor:
        return self.slide(index).whole(self.reading)

    def read_mask(self, index: int) -> Tensor:
        return self.in_parts(index)[1].whole()

    def mask_counts(self, index: int) -> Tensor:
        return self.in_parts(index)[1].counts()

    def extent(self, index: int) -> tuple[int, int]:
        return self.slide(index).size

    def spacing(self, index: int) -> tuple[float, float] | None:
        mpp = self.slide(index).mpp
        return None if mpp is None else (mpp[0] / 1000, mpp[1] / 1000)

    def identity(self, index: int) -> bytes:
        path = self.mask_root / self.mask_files[index]
        size = path.stat().st_size if path.is_file() else -1
        said = f" {self.mask_files[index]} {size} {self.at} {meaning(self.label_map, False)}"
        return super().identity(index) + os.fsencode(said)


@lru_cache(_KNOWN)
def _slide(path: Path, at: At) -> Slide:
    return Slide(path, at)


def _files(folder: Path, endings: Sequence[str], problems: list[Problem]) -> dict[str, str]:
    """The files of these endings in a folder, by their stems."""
    names = sorted(entry.name for entry in entries(folder) if entry.is_file())
    files = ((Path(name).stem, name) for name in names if name.lower().endswith(tuple(endings)))
    return by_key(folder, files, problems)


def _slides(folder: Path) -> list[str]:
    return sorted(entry.name for entry in entries(folder) if entry.is_file() and entry.name.lower().endswith(ENDINGS))


def _part(images: Path, masks: Path, label_map: LabelMap, at: At, data: config.Data, below: str) -> Slides:
    problems: list[Problem] = []
    slides, answers = _files(images / below, ENDINGS, problems), _files(masks / below, MASKS, problems)
    raise_first(problems)
    if not slides:
        raise DataError(f"{images / below} holds no slides ({', '.join(ENDINGS)}).")
    if missing := [name for name in slides if name not in answers]:
        raise DataError(
            f"{len(missing)} of {len(slides)} slides in {images / below} have no mask in {masks / below}, such as "
            f"{slides[missing[0]]}: masks are called as their slides, {missing[0]}.tif or {missing[0]}.png."
        )
    files = [[str(Path(below, names[stem])) for stem in slides] for names in (slides, answers)]
    part = Slides(images, files[0], (masks, files[1]), label_map, at)
    part.read_as(data.reading)
    return part


@register(
    "slides",
    summary="whole-slide images at a level: PATH/images and PATH/masks, classes.txt (extra: slides)",
)
def load(
    data: config.Data,
    *,
    level: int | None = None,
    mpp: float | None = None,
    ignore: int | None = None,
    classes: Path | None = None,
    images: str = "images",
    masks: str = "masks",
    val_split: str | None = None,
    shared: bool = False,
    group: str | None = None,
) -> Splits:
    """Slides that OpenSlide reads in `data.path`/images, with masks of the same names in `data.path`/masks.

    Masks are TIFFs of 8 bits, a level of which is as large as the slide at the level that is read, or PNGs of that
    size. Both folders are divided by train/ and val/, or else by `data.val_fraction`.

    Args:
        level: which level is read, 0 being the largest.
        mpp: in place of it, its microns per pixel; levels within 20% count.
        ignore, classes: as for masks_folder.
        images, masks: names of the two folders.
        val_split, shared, group: as for masks_folder.
    """
    at = At(level, mpp)
    at.check()
    if data.channels != 3 or data.intensity is not None or data.white_level is not None:
        raise ConfigError("Slides are read as colors of 8 bits: leave out data.channels, intensity and white_level.")
    assert data.path is not None
    root = expanded(data.path)
    sides = root / images, root / masks
    for side in sides:
        if not side.is_dir():
            raise DataError(f"{root} has no folder '{side.name}'; expected {sides[0]} and {sides[1]}.")
    label_map = read_label_map(classes_file(classes, root), ignore)
    halves: Halves | None = find(subfolders(sides[0]), str(sides[0]), val=val_split)
    names = [""] if halves is None else list(halves.names)
    others = folders_beside(names, sides[0], found=_slides)
    loose = [] if halves is None else [sides[0] / name for name in _slides(sides[0])]
    parts = [_part(*sides, label_map, at, data, name) for name in names]
    below = [[Path(one).name for one in part.files] for part in parts]
    raise_first(give_groups(parts, below, Asked(group, shared), root, halves))
    parts[0].notes += not_used(others, loose)
    for part in parts:
        shown = part.slide(0)
        told = "" if shown.mpp is None else f", {shown.mpp[1]:.3g} microns per pixel"
        part.notes.append(f"slides at level {shown.level}, of the first {shown.size[1]:,} x {shown.size[0]:,}{told}")
        part.origin = str(root)
    if halves is None or len(parts) == 1:
        return split_by_fraction(parts[0], data.val_fraction, data.split_seed)
    name_parts(Splits(parts[0], parts[1]), halves)
    for part, name in zip(parts, halves.names, strict=True):
        part.origin = f"{name} of {root}" + (f" ({halves.why})" if halves.why and part is parts[-1] else "")
    return Splits(parts[0], parts[1])
