"""Scenes with a folder for each picture, and in it a mask for each object: ID/images/ID.png, ID/masks/*.png."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.mask_file import LOSSLESS, mask_size, read_on, resized
from counterpoise.data.problems import Problem, fault, of_corrupt, raise_first
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.grouping import Asked, give_groups
from counterpoise.data.sources.masks_files import WAYS_OUT, of_one_shape
from counterpoise.data.sources.masks_layouts import arrays_unread, is_picture_folder
from counterpoise.data.sources.outlines import BACKGROUND, DrawnScenes, finish
from counterpoise.data.sources.registry import register
from counterpoise.data.split_names import Halves, is_split_name
from counterpoise.data.split_names import find as find_halves
from counterpoise.data.walking import image_files, subfolders
from counterpoise.errors import CorruptImage, DataError, UnfitMask
from counterpoise.system.files import expanded

_TRIED = 8


class InstanceScenes(DrawnScenes):
    """Pictures with the masks of their objects, which become one mask when it is asked for.

    Args:
        files: of pictures, relative to root.
        masks: of each picture the mask files of its objects, relative to root.
        fitted: bring masks of another size to that of their picture, by the nearest pixel.
    """

    def __init__(
        self, root: Path, files: Sequence[str], masks: Sequence[Sequence[str]], name: str, fitted: bool = False
    ) -> None:
        super().__init__(root, files, torch.zeros(len(files), dtype=torch.int64), (BACKGROUND, name))
        self.masks = tuple(map(tuple, masks))
        self._fitted = fitted

    def read_mask(self, index: int) -> Tensor:
        size = self.extent(index)
        merged = np.zeros(size, dtype=np.uint8)
        for file in self.masks[index]:
            on = read_on(self.root / file, self.reading)
            found = on.shape[0], on.shape[1]
            if wrong := self._misfit(index, found):
                raise UnfitMask(str(self.root / file), f"{wrong}. {WAYS_OUT}")
            merged |= resized(torch.from_numpy(on.astype(np.uint8)), size).numpy()
        return torch.from_numpy(merged)

    def misfits(self) -> Iterator[tuple[str, str]]:
        """By headers: the masks that do not fit their picture, and what is wrong with each; "" where it is resized."""
        for index in range(len(self)):
            for file in self.masks[index]:
                try:
                    found = mask_size(self.root / file, self.reading)
                    wrong = self._misfit(index, found)
                    if wrong or found != self.extent(index):
                        yield str(self.root / file), wrong
                except CorruptImage:  # said, or left out, when it is read
                    continue

    def _misfit(self, index: int, found: tuple[int, int]) -> str:
        size = self.extent(index)
        if found == size or (self._fitted and of_one_shape(found, size)):
            return ""
        other = ", which is another shape" if self._fitted else ""
        sizes = [f"{width} x {height}" for height, width in (found, size)]
        return f"is {sizes[0]} pixels{other}, and its image {self.name(index)} is {sizes[1]}"

    def identity(self, index: int) -> bytes:
        digest = hashlib.sha256(repr((self._fitted, self.classes)).encode())
        for file in self.masks[index]:
            path = self.root / file
            digest.update(os.fsencode(f"{file} {path.stat().st_size if path.is_file() else -1}\0"))
        return super().identity(index) + b" " + digest.hexdigest()[:16].encode()


class _Survey:
    """What such folders hold, and what is wrong with it."""

    def __init__(
        self,
        data: config.Data,
        name: str = "object",
        images: str = "images",
        masks: str = "masks",
        val_split: str | None = None,
        resize_masks: bool = False,
        group: str | None = None,
        shared: bool = False,
    ) -> None:
        assert data.path is not None  # the registry has seen to it
        self.data, self.root, self.images, self.masks = data, expanded(data.path), images, masks
        self.problems: list[Problem] = []
        self.parts: list[InstanceScenes] = []
        self.notes = [f"masks of objects are merged: a pixel is '{name}' where any of them is not 0, else background"]
        if name.casefold() == BACKGROUND or not name:
            raise DataError(f"data.options.name is what objects are called, and no background; got '{name}'.")
        names = subfolders(self.root)
        halves = find_halves(names, str(self.root), val=val_split) if _is_divided(names) else None
        self.halves = halves or Halves("", None, "", ())
        for half in self.halves.names:
            self._read(half, name, resize_masks)
        self._look_at_sizes()
        if len(self.parts) == len(self.halves.names):
            below = [[file.removeprefix(f"{half}/") for file in part.files] for half, part in self._named()]
            self.problems += give_groups(self.parts, below, Asked(group, shared), self.root, self.halves)

    def _named(self) -> Iterable[tuple[str, InstanceScenes]]:
        return zip(self.halves.names, self.parts, strict=True)

    def _read(self, half: str, name: str, resize: bool) -> None:
        folder = self.root / half
        files, masks, bare = [], [], 0
        several, without, lossy = [], [], []
        for each in subfolders(folder):
            pictures = folder / each / self.images
            found = image_files(pictures, self.data.reading.arrays) if pictures.is_dir() else []
            if len(found) != 1:
                several.append(f"{pictures} ({len(found)}{arrays_unread(pictures) if not found else ''})")
                continue
            if not (folder / each / self.masks).is_dir():
                without.append(str(folder / each / self.masks))
                continue
            start = f"{half}/{each}" if half else each
            own = [f"{start}/{self.masks}/{file}" for file in image_files(folder / each / self.masks)]
            lossy += [str(self.root / file) for file in own if not file.lower().endswith(LOSSLESS)]
            files.append(f"{start}/{self.images}/{found[0]}")
            masks.append(own)
            bare += not own
        if several:
            what = (
                f"{len(several):,} folders of {folder} hold no picture or several, such as {several[0]}; expected one."
            )
            self.problems.append(fault(what, "Mend or remove them.", several))
        if without:
            what = f"{len(without):,} pictures of {folder} have no folder of masks, such as {without[0]}."
            way_out = "An empty folder says that a picture holds no object; else take these pictures out."
            self.problems.append(fault(what, way_out, without))
        if lossy:
            what = f"{len(lossy):,} masks are of a format that changes values, such as {lossy[0]}; masks are PNG."
            self.problems.append(fault(what, "Make them anew, without loss.", lossy))
        if not files:
            self.problems.append(fault(f"{folder} holds no picture with masks of objects."))
            return
        if bare == len(files):
            self.problems.append(fault(f"No picture of {folder} has a mask of an object: all would be background."))
        elif bare:
            self.notes.append(f"{bare:,} of {len(files):,} pictures of {folder} have no object: all background")
        part = InstanceScenes(self.root, files, masks, name, resize)
        part.read_as(self.data.reading)
        part.origin = f"{half} of {self.root}" if half else str(self.root)
        self.parts.append(part)

    def _look_at_sizes(self) -> None:
        found = [each for part in self.parts for each in part.misfits()]
        wrong = [f"{file} {why}" for file, why in found if why]
        if moved := len(found) - len(wrong):
            self.notes.append(f"{moved:,} masks of objects are resized to their pictures, by the nearest pixel")
        if wrong:
            what = f"{len(wrong):,} masks are of another size than their images: {'; '.join(wrong[:3])}."
            self.problems.append(of_corrupt(what, WAYS_OUT, wrong, self.data.on_corrupt))

    def look_at_masks(self) -> None:
        """Read every mask."""
        bad = []
        for part in self.parts:
            for file in (file for files in part.masks for file in files):
                try:
                    read_on(part.root / file, part.reading)
                except CorruptImage as error:
                    bad.append(str(error))
        if bad:
            what = f"{len(bad):,} masks of objects cannot be read: {bad[0]}"
            self.problems.append(of_corrupt(what, "Mend or remove them.", bad, self.data.on_corrupt))


def _is_divided(names: Sequence[str]) -> bool:
    return bool(names) and all(map(is_split_name, names))


def _recognizes(path: Path) -> bool:
    try:
        names = subfolders(path)
        folders = [path / name for name in names] if _is_divided(names) else [path]
        tried = [folder / name for folder in folders for name in subfolders(folder)[:_TRIED]]
    except DataError:
        return False
    return bool(tried) and all(map(is_picture_folder, tried))


def _check(data: config.Data, **options: Any) -> Iterable[Problem]:
    survey = _Survey(data, **options)
    survey.look_at_masks()
    return survey.problems


@register(
    "instance_folders",
    summary="a folder a picture, with a mask for each object: PATH/ID/images/ID.png and PATH/ID/masks/*.png",
    recognizes=_recognizes,
    check=_check,
)
def load(
    data: config.Data,
    *,
    name: str = "object",
    images: str = "images",
    masks: str = "masks",
    val_split: str | None = None,
    resize_masks: bool = False,
    group: str | None = None,
    shared: bool = False,
) -> Splits:
    """Scenes of two classes, background and objects: a pixel is of an object where any of its picture's masks is not 0.

    Divided by folders train/ and val/, or else by `data.val_fraction`. A picture whose folder of masks is empty is all
    background.

    Args:
        name: what objects are called.
        images, masks: names of the two folders in that of a picture.
        val_split: folder to evaluate on; default: the first of val, valid, validation, dev, test, testing.
        resize_masks: bring masks of another size to that of their image, by the nearest pixel.
        group, shared: as for masks_folder; the pattern is looked for in paths such as ID/images/ID.png.
    """
    survey = _Survey(data, name, images, masks, val_split, resize_masks, group, shared)
    raise_first(survey.problems)
    return finish(data, survey.parts, survey.halves, [*survey.notes, *(each.sentence for each in survey.problems)])
