"""A folder of images and a folder of masks, in which every pixel has a class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.images import CorruptImage
from counterpoise.data.legend import Legend, read_legend, read_mask
from counterpoise.data.sources.base import FileSet, Splits, split_by_fraction
from counterpoise.data.sources.image_folder import VAL_NAMES, image_files, subfolders
from counterpoise.data.sources.masks import MaskedSet
from counterpoise.data.sources.registry import register
from counterpoise.errors import DataError, nearest

_LOSSLESS = (".png", ".bmp", ".gif", ".tif", ".tiff")


class MaskFiles(FileSet, MaskedSet):
    """Image files with a mask file each, read when asked.

    Args:
        root, files: folder of the images, and their paths relative to it.
        mask_root, mask_files: the same for the masks.
        legend: what their values mean.
    """

    def __init__(
        self, root: Path, files: Sequence[str], mask_root: Path, mask_files: Sequence[str], legend: Legend
    ) -> None:
        super().__init__(root, files, torch.zeros(len(files), dtype=torch.int64), legend.classes)
        self.mask_root = mask_root
        self.mask_files = tuple(mask_files)
        self.legend = legend

    def read_mask(self, index: int) -> Tensor:
        path = self.mask_root / self.mask_files[index]
        mask = read_mask(path, self.legend)
        height, width = self.extent(index)
        if mask.shape != (height, width):
            raise DataError(
                f"Mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels, and its image {self.name(index)} is "
                f"{width} x {height}. They must be of one size."
            )
        return mask

    def identity(self, index: int) -> bytes:
        path = self.mask_root / self.mask_files[index]
        size = path.stat().st_size if path.is_file() else -1
        return super().identity(index) + os.fsencode(f" {self.mask_files[index]} {size} {self._meaning}")

    @cached_property
    def _meaning(self) -> str:
        return repr((self.legend.names, self.legend.colors, sorted(self.legend.void), self.legend.ignore))


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
) -> Splits:
    """Images below `data.path`/images with the masks of the same path below `data.path`/masks, but for the ending.

    Divided by folders train/ and val/ in both, or by files train.txt and val.txt, one path or stem a line, or else by
    `data.val_fraction`. Masks hold the index of the class in 8 bits (gray or palette), or colors. Of gray masks whose
    classes all have gray colors, the values are those colors (0 and 255, say).

    Args:
        ignore: value in index masks that is void; where a class has this index, it is void and no class.
        classes: file with a name a line, or a name and three numbers (its RGB color); a class void, ignore or unlabeled
            is no class. Relative to the working folder or to `data.path`.
        val_split: name of the split to evaluate on; default: the first of val, valid, validation, test that is there.
        images, masks: names of the two folders.
        image_suffix, mask_suffix: what ends the names of images and masks before their extension and is not shared,
            such as _leftImg8bit and _gtFine_labelTrainIds; other files are left out.
        lists: folder of the list files, relative to `data.path`.
    """
    assert data.path is not None  # the registry has seen to it
    root = data.path.expanduser()
    for name in (images, masks):
        if not (root / name).is_dir():
            expected = f"expected {root / images} and {root / masks}"
            raise DataError(f"{root} has no folder '{name}'; {expected}.{nearest(name, subfolders(root))}")
    file = classes.expanduser()
    legend = read_legend(file if file.is_file() else root / file, ignore)
    sides = _Side(root / images, image_suffix), _Side(root / masks, mask_suffix, lossless=True)
    folder = root / lists
    by_list = {entry.stem for entry in folder.glob("*.txt")} if folder.is_dir() else set()
    parts = [
        _matching(*sides, f"{name}/", legend)
        for name in _split_names(set(subfolders(root / images)), val_split, f"{root / images}")
    ] or [_listed(*sides, folder / f"{name}.txt", legend) for name in _split_names(by_list, val_split, f"{folder}")]
    if not parts:
        if val_split is not None:
            raise DataError(
                f"{root} has no split '{val_split}': neither {images}/train nor {folder / 'train.txt'} is there."
            )
        parts = [_matching(*sides, "", legend)]
    for part in parts:
        with suppress(CorruptImage) if data.on_corrupt == "skip" else nullcontext():
            part.read_mask(0)  # what is wrong with all masks is said before training begins
    if len(parts) == 1:
        return split_by_fraction(parts[0], data.val_fraction, data.split_seed)
    return Splits(parts[0], parts[1])


class _Side:
    """The images, or the masks: files below a folder by what they share with the other side, their key."""

    def __init__(self, folder: Path, suffix: str, lossless: bool = False) -> None:
        self.folder = folder
        self.files: dict[str, str] = {}
        for file in image_files(folder):
            stem, extension = os.path.splitext(file)  # noqa: PTH122 - many files, no Path for each
            if not stem.endswith(suffix):
                continue
            if lossless and extension.lower() not in _LOSSLESS:
                raise DataError(
                    f"Mask {folder / file} is of a format that may change values; masks are PNG (or BMP, GIF, TIFF)."
                )
            key = stem.removesuffix(suffix)
            if key in self.files:
                raise DataError(f"{folder / self.files[key]} and {folder / file} differ in nothing but their ending.")
            self.files[key] = file
        if not self.files:
            ending = f" whose name ends in '{suffix}'" if suffix else ""
            raise DataError(f"{folder} holds no images{ending}.")


def _split_names(present: set[str], val_split: str | None, where: str) -> list[str]:
    """The names of train and, where there is one, the split to evaluate on; nothing where there is no train."""
    if "train" not in present:
        return []
    if val_split is not None:
        if val_split not in present:
            raise DataError(f"{where} has no split '{val_split}'.{nearest(val_split, present)}")
        return ["train", val_split]
    return ["train", *[name for name in VAL_NAMES if name in present][:1]]


def _pair(images: _Side, masks: _Side, keys: Sequence[str], legend: Legend) -> MaskFiles:
    """Images with their masks. Raises DataError where masks are missing."""
    missing = [key for key in keys if key not in masks.files]
    if missing:
        first = images.folder / images.files[missing[0]]
        raise DataError(
            f"{len(missing)} of {len(keys)} images have no mask below {masks.folder}; the first is {first}."
            f"{nearest(missing[0], masks.files)}"
        )
    return MaskFiles(
        images.folder, [images.files[key] for key in keys], masks.folder, [masks.files[key] for key in keys], legend
    )


def _matching(images: _Side, masks: _Side, start: str, legend: Legend) -> MaskFiles:
    """All images whose path begins with `start`; masks must be as many."""
    keys, others = ([key for key in side.files if key.startswith(start)] for side in (images, masks))
    if not keys:
        raise DataError(f"{images.folder / start} holds no images.")
    paired = _pair(images, masks, keys, legend)
    left = sorted(set(others) - set(keys))
    if left:
        raise DataError(
            f"{masks.folder / start} holds {len(others)} masks and {images.folder / start} {len(keys)} images; "
            f"{masks.files[left[0]]} belongs to none.{nearest(left[0], keys)}"
        )
    return paired


def _listed(images: _Side, masks: _Side, file: Path, legend: Legend) -> MaskFiles:
    """The images that a list file names, a line each: path or stem, with or without extension and suffix."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"List {file} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}."
        ) from None
    known = {path: key for key, path in images.files.items()}
    known |= {os.path.splitext(path)[0]: key for key, path in images.files.items()}  # noqa: PTH122
    known |= {key: key for key in images.files}
    prefix = f"{images.folder.name}/"
    keys = []
    for line in lines:
        name = line.replace("\\", "/").removeprefix("./").removeprefix(prefix)
        if name not in known:
            raise DataError(f"{file} names '{line}', which is not in {images.folder}.{nearest(name, known)}")
        keys.append(known[name])
    if not keys:
        raise DataError(f"List {file} is empty.")
    twice = next((key for key in keys if keys.count(key) > 1), None) if len(set(keys)) < len(keys) else None
    if twice is not None:
        raise DataError(f"{file} names '{twice}' twice.")
    return _pair(images, masks, keys, legend)
