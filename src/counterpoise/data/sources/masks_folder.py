"""A folder of images and a folder of masks, in which every pixel has a class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterpoise import config
from counterpoise.data.label_map import LabelMap
from counterpoise.data.nifti_file import holds_volumes
from counterpoise.data.problems import Problem, fault, raise_first
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.division import folders_beside, name_parts, not_used, split_by_fraction
from counterpoise.data.sources.grouping import Asked, give_groups
from counterpoise.data.sources.masks_checking import misfits, unfit
from counterpoise.data.sources.masks_files import MaskFiles
from counterpoise.data.sources.masks_layouts import described, is_divided, mask_of_view, meaning_of
from counterpoise.data.sources.masks_pairing import Side, listed, matching, shared
from counterpoise.data.sources.registry import register
from counterpoise.data.split_names import TRAIN, Halves, find, is_split_name
from counterpoise.data.walking import loose_images, subfolders
from counterpoise.errors import CorruptImage, DataError, nearest
from counterpoise.system.files import expanded


@dataclass
class _Survey:
    """What a folder of images and masks holds, by names and headers, and what is wrong with that.

    Fields are the options of the source, see `load`.

    Attributes:
        parts: the training scenes, and those to evaluate on where they are divided.
        problems: errors keep the parts from being used.
    """

    data: config.Data
    ignore: int | None = None
    classes: Path | None = None
    val_split: str | None = None
    images: str = "images"
    masks: str = "masks"
    image_suffix: str = ""
    mask_suffix: str = ""
    lists: str = "."
    resize_masks: bool = False
    lossy: bool = False
    shared: bool = False
    group: str | None = None

    def __post_init__(self) -> None:
        assert self.data.path is not None  # the registry has seen to it
        self.root = expanded(self.data.path)
        self.problems: list[Problem] = []
        self.parts: list[MaskFiles] = []
        self.halves: Halves | None = None
        self.by_folder = False
        self.divided = is_divided(self.root, self.images, self.masks)
        if not self.divided and not self._has_folders():
            return
        self.problems += mask_of_view(self.root, self.masks)
        label_map = meaning_of(self._mask_folder(), self.classes, self.root, self.ignore, self.lossy, self.problems)
        for images, masks, keys in self._pairs():
            if keys and label_map is not None:
                self.parts.append(self._files(images, masks, keys, label_map))
        self.problems += misfits(self.parts, self.data.on_corrupt)
        self._group()
        if self.halves is not None and len(self.parts) == len(self.halves.names):
            self._say_halves(self.halves)

    def _has_folders(self) -> bool:
        for name in (self.images, self.masks):
            if not (self.root / name).is_dir():
                expected = f"expected {self.root / self.images} and {self.root / self.masks}"
                hint = "" if (layout := described(self.root)) else nearest(name, subfolders(self.root))
                self.problems.append(layout or fault(f"{self.root} has no folder '{name}'; {expected}.{hint}"))
                return False
        return True

    def _mask_folder(self) -> Path:
        names = subfolders(self.root) if self.divided else []
        return self.root / names[0] / self.masks if names else self.root / self.masks

    def _sides(self, below: Path) -> tuple[Side, Side]:
        arrays = self.data.reading.arrays
        images = Side(below / self.images, self.image_suffix, self.problems, arrays=arrays)
        return images, Side(below / self.masks, self.mask_suffix, self.problems, masks=True, lossy=self.lossy)

    def _pairs(self) -> Iterator[tuple[Side, Side, list[str]]]:
        """Images and masks of each part, and the keys of those images that have one."""
        if self.divided:
            self.halves = find(subfolders(self.root), str(self.root), val=self.val_split)
            for name in self.halves.names if self.halves else ():
                images, masks = self._sides(self.root / name)
                yield images, masks, matching(images, masks, "", self.problems)
            return
        images, masks = self._sides(self.root)
        yield from ((images, masks, keys) for keys in self._parts_of(images, masks))

    def _parts_of(self, images: Side, masks: Side) -> list[list[str]]:
        """The parts that folders in those of images and masks divide them into, or lists; else all in one."""
        self.halves = _halves(subfolders(images.folder), self.val_split, f"{images.folder}")
        if self.halves is not None:
            self.by_folder = True
            return [matching(images, masks, f"{name}/", self.problems) for name in self.halves.names]
        folder = self.root / self.lists
        by_list = {entry.stem for entry in folder.glob("*.txt")} if folder.is_dir() else set()
        self.halves = _halves(by_list, self.val_split, f"{folder}")
        if self.halves is not None:
            files = [folder / f"{name}.txt" for name in self.halves.names]
            found = [listed(images, masks, file, self.problems) for file in files]
            if len(found) == 2:
                self.problems += shared(found, files, meant=self.shared)
            return found
        if self.val_split is not None:
            raise DataError(
                f"{self.root} has no split '{self.val_split}': neither {self.images}/train nor "
                f"{folder / 'train.txt'} is there."
            )
        return [matching(images, masks, "", self.problems)]

    def _files(self, images: Side, masks: Side, keys: Sequence[str], label_map: LabelMap) -> MaskFiles:
        files = [[side.files[key] for key in keys] for side in (images, masks)]
        part = MaskFiles(images.folder, files[0], masks.folder, files[1], label_map, self.resize_masks)
        part.read_as(self.data.reading)
        return part

    def _say_halves(self, halves: Halves) -> None:
        parts, root = self.parts, self.root
        name_parts(Splits(parts[0], parts[-1]), halves)
        for part, name in zip(parts, halves.names, strict=True):
            part.origin = f"{name} of {root}"
        if halves.why:
            parts[-1].origin += f" ({halves.why})"
        if self.divided:
            parts[0].notes += not_used(folders_beside(halves.names, root, self.images))
        elif self.by_folder:
            folder = root / self.images
            loose = [folder / name for name in loose_images(folder)]
            parts[0].notes += not_used(folders_beside(halves.names, folder), loose)
        else:
            lists = [root / self.lists / f"{name}.txt" for name in halves.unused if is_split_name(name)]
            parts[0].notes += not_used(lists)

    def _group(self) -> None:
        """Give the scenes their groups, where all of them are there."""
        if self.parts and len(self.parts) == len(self.halves.names if self.halves else ("",)):
            below = [list(part.files) for part in self.parts]
            if self.halves is not None and self.by_folder:
                names = self.halves.names
                below = [
                    [file.removeprefix(f"{name}/") for file in files] for name, files in zip(names, below, strict=True)
                ]
            asked = Asked(self.group, self.shared)
            self.problems += give_groups(self.parts, below, asked, self.root, self.halves)

    def look_at_masks(self) -> None:
        """Read every mask, and gather what is wrong with them by kind."""
        self.problems += unfit(self.parts, self.lossy, self._mask_folder(), self.data.on_corrupt)


def _recognizes(path: Path) -> bool:
    both = (path / "images").is_dir() and (path / "masks").is_dir() and not holds_volumes(path / "images")
    return both or is_divided(path, "images", "masks") or described(path) is not None


def _check(data: config.Data, **options: Any) -> list[Problem]:
    survey = _Survey(data, **options)
    survey.look_at_masks()
    return survey.problems


@register(
    "masks_folder",
    summary="PATH/images and PATH/masks, each with train/ and val/ or divided by train.txt and val.txt; classes.txt",
    recognizes=_recognizes,
    check=_check,
)
def load(
    data: config.Data,
    *,
    ignore: int | None = None,
    classes: Path | None = None,
    val_split: str | None = None,
    images: str = "images",
    masks: str = "masks",
    image_suffix: str = "",
    mask_suffix: str = "",
    lists: str = ".",
    resize_masks: bool = False,
    lossy: bool = False,
    shared: bool = False,
    group: str | None = None,
) -> Splits:
    """Images below `data.path`/images with the masks of the same path below `data.path`/masks, but for the ending.

    Divided by folders train/ and val/ in both, or by files train.txt and val.txt, one path or stem a line, or else by
    `data.val_fraction`. Masks hold the index of the class in 8 bits (gray or palette), the value that `classes` has
    behind its name, or its color. Of gray masks whose classes all have gray colors, the values are those colors.

    Args:
        ignore: value in index masks that is void; where a class has this index, it is void and no class.
        classes: file with a name a line, a name and a number (its value in masks), or a name and three numbers (its RGB
            color); a class void, ignore or unlabeled is no class. Below `data.path` or the working folder, where only
            one of them has it; default: classes.txt of `data.path`.
        val_split: name of the split to evaluate on; default: the first of val, valid, validation, dev, test and
            testing that is there.
        images, masks: names of the two folders.
        image_suffix, mask_suffix: what ends the names of images and masks before their extension and is not shared,
            such as _leftImg8bit and _gtFine_labelTrainIds; other files are left out.
        lists: folder of the list files, relative to `data.path`.
        resize_masks: bring masks of another size to that of their image, by the nearest pixel.
        lossy: masks were saved as JPEG or resized with smoothing: each pixel is of the class whose value or color is
            nearest.
        shared: let pictures stand in both lists, and groups on both sides.
        group: what belongs together, such as the scenes of a patient, and is on one side of a division alone: a
            regular expression with what names it in parentheses, such as (patient[0-9]+)_, looked for in paths below
            the folder of images (and below train/, val/); or a table with columns file and group.
    """
    survey = _Survey(
        data, ignore, classes, val_split, images, masks, image_suffix, mask_suffix, lists, resize_masks, lossy, shared,
        group,
    )  # fmt: skip
    raise_first(survey.problems)
    parts = survey.parts
    for part in parts:
        with suppress(CorruptImage) if data.on_corrupt == "skip" else nullcontext():
            part.read_mask(0)  # what is wrong with all masks is said before training begins
    parts[0].notes += [problem.sentence for problem in survey.problems]
    if len(parts) == 1:
        return split_by_fraction(parts[0], data.val_fraction, data.split_seed)
    return Splits(parts[0], parts[1])


def _halves(present: Iterable[str], val_split: str | None, where: str) -> Halves | None:
    """The names of train and the split to evaluate on; None where there is no train."""
    names = sorted(present)
    return find(names, where, val=val_split) if any(name.casefold() in TRAIN for name in names) else None
