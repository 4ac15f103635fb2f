"""A folder of images and a folder of masks, in which every pixel has a class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.halves import TRAIN, Halves, find, is_split_name
from counterpoise.data.images import CorruptImage
from counterpoise.data.legend import Legend, read_legend
from counterpoise.data.mask_file import UnfitMask, mask_size, read_mask, resized
from counterpoise.data.sources.base import FileSet, Splits, split_by_fraction
from counterpoise.data.sources.masks import MaskedSet
from counterpoise.data.sources.masks_pairing import Side, check_apart, listed, matching
from counterpoise.data.sources.registry import register
from counterpoise.data.walking import subfolders
from counterpoise.errors import DataError, nearest


class MaskFiles(FileSet, MaskedSet):
    """Image files with a mask file each, read when asked.

    Args:
        root, files: folder of the images, and their paths relative to it.
        mask_root, mask_files: the same for the masks.
        legend: what their values mean.
        resize: bring masks of another size to that of their image, by the nearest pixel.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        mask_root: Path,
        mask_files: Sequence[str],
        legend: Legend,
        resize: bool = False,
    ) -> None:
        super().__init__(root, files, torch.zeros(len(files), dtype=torch.int64), legend.classes)
        self.mask_root = mask_root
        self.mask_files = tuple(mask_files)
        self.legend = legend
        self.resize = resize

    def mask_path(self, index: int) -> Path:
        """The file of a mask."""
        return self.mask_root / self.mask_files[index]

    def read_mask(self, index: int) -> Tensor:
        path = self.mask_path(index)
        size = self.extent(index)
        mask = read_mask(path, self.legend)
        found = mask.shape[0], mask.shape[1]
        if found != size and not (self.resize and _of_one_shape(found, size)):
            raise UnfitMask(os.fspath(path), f"{self._misfit(index, found, size)}. {_WAYS_OUT}")
        return resized(mask, size)

    def misfits(self) -> tuple[list[str], int]:
        """By headers: what is wrong with each mask that does not fit its image, and how many are resized."""
        wrong, moved = [], 0
        for index in range(len(self)):
            try:
                size, found = self.extent(index), mask_size(self.mask_path(index))
            except CorruptImage:  # said, or left out, when it is read
                continue
            if found != size and self.resize and _of_one_shape(found, size):
                moved += 1
            elif found != size:
                wrong.append(f"{self.mask_path(index)} {self._misfit(index, found, size)}")
        return wrong, moved

    def _misfit(self, index: int, mask: tuple[int, int], image: tuple[int, int]) -> str:
        turned = ", after the turn that its EXIF data asks for" if mask == image[::-1] else ""
        other = ", which is another shape" if self.resize and not _of_one_shape(mask, image) else ""
        sizes = [f"{width} x {height}" for height, width in (mask, image)]
        return f"is {sizes[0]} pixels{other}, and its image {self.name(index)} is {sizes[1]}{turned}"

    def identity(self, index: int) -> bytes:
        path = self.mask_root / self.mask_files[index]
        size = path.stat().st_size if path.is_file() else -1
        return super().identity(index) + os.fsencode(f" {self.mask_files[index]} {size} {self._meaning}")

    @cached_property
    def _meaning(self) -> str:
        legend = self.legend
        later = [("given", legend.given), ("lossy", legend.lossy), ("resize", self.resize)]
        marks = [mark for mark in later if mark[1]]  # sets that have none of them keep their fingerprint
        return repr((legend.names, legend.colors, sorted(legend.void), legend.ignore, *marks))


def _of_one_shape(mask: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether a mask can be resized to its image without stretching, but for rounding."""
    down, across = mask[0] / image[0], mask[1] / image[1]
    return abs(down - across) <= max(down, across) * (0.02 + 1 / min(mask))


def _check_sizes(parts: Sequence[MaskFiles]) -> None:
    """Raises DataError that counts all masks which do not fit their images."""
    wrong = [misfit for part in parts for misfit in part.misfits()[0]]
    if wrong:
        count = sum(map(len, parts))
        more = "" if len(wrong) <= _SHOWN else f"; and {len(wrong) - _SHOWN} more"
        raise DataError(
            f"{len(wrong)} of {count} masks are of another size than their images: {'; '.join(wrong[:_SHOWN])}{more}. "
            f"{_WAYS_OUT}"
        )


_SHOWN = 3
_WAYS_OUT = (
    "Bring masks to the size of their images, by the nearest pixel, with --data.options.resize_masks true, or leave "
    "these pictures out with --data.on_corrupt skip."
)


def _recognizes(path: Path) -> bool:
    return (path / "images").is_dir() and (path / "masks").is_dir()


@register(
    "masks_folder",
    summary="PATH/images and PATH/masks, each with train/ and val/ or divided by train.txt and val.txt; classes.txt",
    recognizes=_recognizes,
)
def load(
    data: config.Data,
    *,
    ignore: int | None = None,
    classes: Path = Path("classes.txt"),
    val_split: str | None = None,
    images: str = "images",
    masks: str = "masks",
    image_suffix: str = "",
    mask_suffix: str = "",
    lists: str = ".",
    resize_masks: bool = False,
    lossy: bool = False,
    shared: bool = False,
) -> Splits:
    """Images below `data.path`/images with the masks of the same path below `data.path`/masks, but for the ending.

    Divided by folders train/ and val/ in both, or by files train.txt and val.txt, one path or stem a line, or else by
    `data.val_fraction`. Masks hold the index of the class in 8 bits (gray or palette), the value that `classes` has
    behind its name, or its color. Of gray masks whose classes all have gray colors, the values are those colors.

    Args:
        ignore: value in index masks that is void; where a class has this index, it is void and no class.
        classes: file with a name a line, a name and a number (its value in masks), or a name and three numbers (its RGB
            color); a class void, ignore or unlabeled is no class. Relative to the working folder or to `data.path`.
        val_split: name of the split to evaluate on; default: the first of val, valid, validation, dev, test and
            testing that is there.
        images, masks: names of the two folders.
        image_suffix, mask_suffix: what ends the names of images and masks before their extension and is not shared,
            such as _leftImg8bit and _gtFine_labelTrainIds; other files are left out.
        lists: folder of the list files, relative to `data.path`.
        resize_masks: bring masks of another size to that of their image, by the nearest pixel.
        lossy: masks were saved as JPEG or resized with smoothing: each pixel is of the class whose value or color is
            nearest.
        shared: let pictures stand in both lists.
    """
    assert data.path is not None  # the registry has seen to it
    root = data.path.expanduser()
    for name in (images, masks):
        if not (root / name).is_dir():
            expected = f"expected {root / images} and {root / masks}"
            raise DataError(f"{root} has no folder '{name}'; {expected}.{nearest(name, subfolders(root))}")
    file = classes.expanduser()
    legend = read_legend(file if file.is_file() else root / file, ignore, lossy)
    sides = Side(root / images, image_suffix), Side(root / masks, mask_suffix, masks=True, lossy=lossy)
    folder = root / lists
    by_list = {entry.stem for entry in folder.glob("*.txt")} if folder.is_dir() else set()
    halves = _halves(subfolders(root / images), val_split, f"{root / images}")
    keys = [matching(*sides, f"{name}/") for name in halves.names] if halves else []
    if halves is None:
        halves = _halves(by_list, val_split, f"{folder}")
        files = [folder / f"{name}.txt" for name in halves.names] if halves else []
        keys = [listed(*sides, file) for file in files]
        if len(keys) == 2 and not shared:
            check_apart(keys, files)
    if not keys:
        if val_split is not None:
            raise DataError(
                f"{root} has no split '{val_split}': neither {images}/train nor {folder / 'train.txt'} is there."
            )
        keys = [matching(*sides, "")]
    parts = [_files(*sides, part, legend, resize_masks) for part in keys]
    if data.on_corrupt == "stop":
        _check_sizes(parts)
    for part in parts:
        with suppress(CorruptImage) if data.on_corrupt == "skip" else nullcontext():
            part.read_mask(0)  # what is wrong with all masks is said before training begins
    if halves is not None:
        _say_halves(parts, halves, root)
    if len(parts) == 1:
        return split_by_fraction(parts[0], data.val_fraction, data.split_seed)
    return Splits(parts[0], parts[1])


def _halves(present: Iterable[str], val_split: str | None, where: str) -> Halves | None:
    """The names of train and the split to evaluate on; None where there is no train."""
    names = sorted(present)
    return find(names, where, val=val_split) if any(name.casefold() in TRAIN for name in names) else None


def _say_halves(parts: Sequence[MaskFiles], halves: Halves, root: Path) -> None:
    for part, name in zip(parts, halves.names, strict=True):
        part.origin = f"{name} of {root}"
    if halves.why:
        parts[-1].origin += f" ({halves.why})"
    if unused := [name for name in halves.unused if is_split_name(name)]:
        parts[0].notes.append(f"not used: {', '.join(unused)} of {root}")


def _files(images: Side, masks: Side, keys: Sequence[str], legend: Legend, resize: bool) -> MaskFiles:
    files = [[side.files[key] for key in keys] for side in (images, masks)]
    return MaskFiles(images.folder, files[0], masks.folder, files[1], legend, resize)
