"""A table of scenes: a row a picture, with a column of pictures and one of mask files."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from counterpoise import config
from counterpoise.data.label_map import LabelMap
from counterpoise.data.mask_file import LOSSLESS, SAVED_WITH_LOSS
from counterpoise.data.problems import Problem, fault, raise_first
from counterpoise.data.sources import table_columns, table_files, table_scenes
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.masks_checking import misfits, unfit
from counterpoise.data.sources.masks_files import MaskFiles
from counterpoise.data.sources.masks_layouts import meaning_of
from counterpoise.data.sources.registry import register
from counterpoise.data.sources.table_scenes import Asked, SceneRows
from counterpoise.data.split_names import is_split_name
from counterpoise.data.table_file import Table, is_table, read_head
from counterpoise.errors import CorruptImage, CounterpoiseError

_WORDS = {"mask", "masks", "segmentation", "annotation", "manual", "gt", "groundtruth", "seg"}


class _Survey:
    """What a table of pictures and masks holds, and what is wrong with it."""

    def __init__(
        self,
        data: config.Data,
        asked: Asked,
        mask: str | None = None,
        classes: Path | None = None,
        ignore: int | None = None,
        mask_root: Path | None = None,
        mask_suffix: str = "",
        resize_masks: bool = False,
        lossy: bool = False,
    ) -> None:
        self.data, self.asked, self.resize, self.lossy = data, asked, resize_masks, lossy
        table = table_scenes.read(data, asked, "masks_table")
        if mask is not None:
            table.require(mask, "data.options.mask")
        self.mask = mask or table_scenes.only(table, columns_of_masks(table), "the masks", "mask")
        self.rows = SceneRows(data, asked, table, [self.mask])
        if mask is None:
            self.rows.notes.insert(0, f"masks: column '{self.mask}'")
        self.rows.find()
        self.problems = self.rows.problems
        root = ("root", asked.root) if mask_root is None else ("mask_root", mask_root)
        self.masks = table_files.find(table.path, table.text(self.mask), root[1], mask_suffix, root[0])
        self.parts: list[MaskFiles] = []
        label_map = meaning_of(self.masks.root, classes, table.path, ignore, lossy, self.problems)
        if label_map is not None and self.rows.rows:
            self._use(label_map)

    def _use(self, label_map: LabelMap) -> None:
        paths = self.masks.paths
        torn = [path for (_, path), rows in self.rows.rows.items() if len({paths[row] for row in rows}) > 1]
        if torn:
            what = f"{len(torn):,} pictures are in several rows with different masks, such as {torn[0]}."
            self.problems.append(fault(what, "Leave one row for each picture.", torn))
        missing = {*self.masks.missing()}
        used = [rows[0] for rows in self.rows.rows.values()]
        without = [row for row in used if row in missing or not paths[row]]
        if without:
            files = [str(self.masks.root / paths[row]) if paths[row] else f"row {row + 1}" for row in without]
            of = f"of {len(used):,} masks that column '{self.mask}' of {self.rows.table.path} names"
            what = f"{len(without):,} {of} are not there, such as {files[0]}."
            self.problems.append(fault(what, "Bring these masks, or take the rows away.", files))
        self._of_format([paths[row] for row in used])
        if torn or without:
            return
        for side in self.rows.sides():
            files = [paths[rows[0]] for rows in side.values()]
            part = MaskFiles(self.rows.files.root, list(side), self.masks.root, files, label_map, self.resize)
            part.read_as(self.data.reading)
            self.parts.append(part)
        self.problems += misfits(self.parts, self.data.on_corrupt)
        self.rows.group(self.parts)

    def _of_format(self, masks: list[str]) -> None:
        lossy = [path for path in masks if path and not self.lossy and not path.lower().endswith(LOSSLESS)]
        if lossy:
            what = f"{len(lossy):,} masks are of a format that may change values, such as {lossy[0]}; masks are PNG."
            way_out = f"A JPEG mask holds values that are no class, along every edge: {SAVED_WITH_LOSS}."
            self.problems.append(fault(what, way_out, lossy))

    def look_at_masks(self) -> None:
        """Read every mask, and gather what is wrong with them by kind."""
        self.problems += unfit(self.parts, self.lossy, self.masks.root, self.data.on_corrupt)


def columns_of_masks(table: Table) -> list[str]:
    """The columns that hold names of image files and are called so."""
    return [name for name in table_scenes.pictures(table) if _WORDS & {*table_columns.words(name)}]


def _is_of_masks(path: Path) -> bool:
    """Whether a table has pictures, masks, and nothing that may be a label."""
    if not is_table(path):
        return False
    try:
        table = read_head(path)
        found = columns_of_masks(table)
        pictures = table_scenes.pictures(table)
    except (CounterpoiseError, OSError):  # said by source 'table'
        return False
    others = [name for name in table.names if name and name not in pictures]
    plain = all(table_columns.is_group(name) or table_columns.is_part(name) or _divides(table, name) for name in others)
    return len(pictures) == 2 and len(found) == 1 and plain


def _divides(table: Table, name: str) -> bool:
    values = table.first(name)
    return bool(values) and all(map(is_split_name, values))


def _check(data: config.Data, **options: Any) -> Iterable[Problem]:
    survey = _survey(data, **options)
    survey.look_at_masks()
    return survey.problems


def _survey(data: config.Data, **options: Any) -> _Survey:
    common = {name: options.pop(name) for name in [*options] if name in Asked.__dataclass_fields__}
    return _Survey(data, Asked(**common), **options)


@register(
    "masks_table",
    summary="a table with a column of pictures and one of mask files: .csv, .tsv, .jsonl, .parquet; classes.txt",
    files=_is_of_masks,
    check=_check,
)
def load(
    data: config.Data,
    *,
    image: str | None = None,
    mask: str | None = None,
    split: str | None = None,
    group: str | None = None,
    root: Path | None = None,
    mask_root: Path | None = None,
    suffix: str = "",
    mask_suffix: str = "",
    classes: Path | None = None,
    ignore: int | None = None,
    train_split: str | None = None,
    val_split: str | None = None,
    resize_masks: bool = False,
    lossy: bool = False,
    shared: bool = False,
    columns: list[str] | None = None,
    encoding: str = "utf-8",
) -> Splits:
    """Pictures that a table names, with the mask file that it gives each; rows may lie in any order.

    Divided by the column `split`, or else by `data.val_fraction`. Masks are as for masks_folder.

    Args:
        image, mask: columns of paths; default: the only ones that can be meant, that of masks by its name.
        split: column that says which part a row is of; default: the only one that holds such words as train and val.
        group: column of what belongs together, such as patient: none of it is on both sides of a division.
        root: folder that paths are relative to, in that of the table or in the working folder; default: that of the
            table.
        mask_root: the same for masks; default: root.
        suffix, mask_suffix: what names of pictures and of masks lack at their end, such as .png.
        classes: file with a name a line, as for masks_folder; default: classes.txt in the folder of the table.
        ignore, lossy, resize_masks: as for masks_folder.
        train_split, val_split: parts to train and to evaluate on, as the column calls them.
        shared: let pictures and groups be on both sides of a division by `split`.
        columns: names of the columns, of a table without them.
        encoding: of .csv and .tsv.
    """
    survey = _Survey(
        data,
        Asked(image, split, group, root, suffix, train_split, val_split, shared, columns, encoding),
        mask, classes, ignore, mask_root, mask_suffix, resize_masks, lossy,
    )  # fmt: skip
    raise_first(survey.problems)
    for part in survey.parts:
        with suppress(CorruptImage) if data.on_corrupt == "skip" else nullcontext():
            part.read_mask(0)  # what is wrong with all masks is said before training begins
    return survey.rows.finish(survey.parts)
