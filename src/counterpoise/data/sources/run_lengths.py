"""A table of scenes whose masks are lengths of runs: START LENGTH ... as Kaggle has them, or as COCO has them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from counterpoise import config
from counterpoise.data.packs.labels import read_classes
from counterpoise.data.problems import Problem, fault, raise_first
from counterpoise.data.sources import runs, table_scenes
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.given import file_of
from counterpoise.data.sources.outlines import Objects, OutlinedScenes, Runs, look_at_sizes, with_background
from counterpoise.data.sources.registry import register
from counterpoise.data.sources.table_scenes import Asked, SceneRows
from counterpoise.data.table_file import Table, is_table, listed, names_of
from counterpoise.data.walking import is_image, ordered
from counterpoise.errors import ConfigError, CorruptImage, CounterpoiseError, DataError, nearest

OBJECT = "object"
"""The class of what is there, where a table has no column of classes."""
_NAMES = {"encodedpixels", "encoded_pixels", "rle", "rle_mask", "mask_rle", "run_lengths"}
_IMAGES = ("imageid", "image_id", "image", "id", "filename", "file")
_CLASSES = {
    *("class", "classes", "classid", "classname", "label", "labels", "labelid", "labelname", "target"),
    *("category", "categoryid", "categoryname", "defect", "defectid", "defectclass", "defecttype"),
}
_NOTHING = ("", "-1", "nan")
_FLAGS = {"0", "1", "-1", "0.0", "1.0", "false", "true"}
Order = Literal["columns", "rows"]


class _Survey:
    """What a table of runs holds, and what is wrong with it."""

    def __init__(
        self,
        data: config.Data,
        asked: Asked,
        encoded: str | None = None,
        label: str | None = None,
        classes: Path | None = None,
        order: Order = "columns",
        first: Literal[0, 1] = 1,
        encoded_size: tuple[int, int] | None = None,
        resize_masks: bool = False,
        one_class: bool = False,
    ) -> None:
        self.data, self.asked, self.by_rows, self.first = data, asked, order == "rows", first
        self.size, self.resize = encoded_size, resize_masks
        if encoded_size is not None and not self._fits(encoded_size):
            raise ConfigError(f"data.options.encoded_size is height and width in pixels, got {list(encoded_size)}.")
        table = table_scenes.read(data, asked, "run_lengths")
        for option, name in (("image", asked.image), ("encoded", encoded), ("label", label)):
            if name is not None:
                table.require(name, f"data.options.{option}")
        found = [name for name in table.names if name.casefold() in _NAMES]
        self.column = encoded or table_scenes.only(table, found, "the runs", "encoded")
        guessed = _column_of_images(table, asked) if asked.image is None else None
        asked.image = asked.image or guessed
        self.values = table.values(self.column)
        joined = asked.image is not None and _are_joined(table.text(asked.image))
        if one_class and label is not None:
            raise ConfigError(
                "data.options.label names a column of classes, and one_class wants none: give one of them."
            )
        column = label if one_class or joined or label is not None else self._column_of_classes(table)
        self.rows = SceneRows(data, asked, table, [self.column, *filter(None, [column])])
        if label is None and column is not None:
            self.rows.notes.insert(0, f"classes: column '{column}'; all of one class: --data.options.one_class true")
        if guessed is not None:
            self.rows.notes.insert(0, f"pictures: column '{guessed}'")
        if encoded is None:
            self.rows.notes.insert(0, f"runs: column '{self.column}'")
        names, self.labels = self.rows.names, None if column is None else table.text(column)
        if joined and column is None:
            names, self.labels = self._apart(names, not one_class)
        self.rows.find(names)
        self.problems = self.rows.problems
        self.parts: list[OutlinedScenes] = []
        self.used = [row for rows in self.rows.rows.values() for row in rows]
        found_classes = self._classes(table, None if classes is None else file_of(classes, table.path, "classes"))
        if found_classes is not None and self.rows.rows:
            self._use(*found_classes)

    def _column_of_classes(self, table: Table) -> str | None:
        """The one column that is called as classes are. Raises DataError where it is not clear that it has them."""
        others = {self.column, self.asked.image, self.asked.split, self.asked.group}
        found = [
            name for name in table.names if name not in others and re.sub("[-_ ]", "", name.casefold()) in _CLASSES
        ]
        if not found:
            return None
        each = list(zip(table.text(found[0]), map(_text, self.values), strict=True))
        of_runs = [label for label, text in each if text]
        of_none = {label for label, text in each if not text}
        if len(found) > 1:
            why = f"columns {listed(found)} may be"
        elif "" in of_runs:
            why = f"column '{found[0]}' is called so, and is empty in {of_runs.count(''):,} rows that have runs"
        elif len({*of_runs}) == len(of_runs) > 2:
            why = f"column '{found[0]}' is called so, and has another value in each row"
        elif of_none and not of_none & {*of_runs} and {label.casefold() for label, _ in each} <= _FLAGS:
            why = f"column '{found[0]}' is called so, and says where there is a run"
        else:
            return found[0]
        raise DataError(
            f"Which column of {table.path} has the classes is not clear: {why}. Say which: --data.options.label NAME; "
            f"or that all runs are of one class, '{OBJECT}': --data.options.one_class true."
        )

    def _apart(self, names: Sequence[str], classes: bool) -> tuple[list[str], list[str] | None]:
        """The pictures of rows, and their classes where these are wanted, of PICTURE.jpg_CLASS."""
        self.rows.notes.append(f"column '{self.rows.columns.image}' holds PICTURE_CLASS, such as {names[0]}")
        ends = [name.rpartition("_") for name in names]
        return [start for start, _, _ in ends], [end for _, _, end in ends] if classes else None

    def _classes(self, table: Table, file: Path | None) -> tuple[tuple[str, ...], Mapping[str, int]] | None:
        """The classes and the number of each label."""
        if self.labels is None:
            if file is not None:
                raise ConfigError(
                    "data.options.classes names classes, and no column has them: --data.options.label NAME."
                )
            self.rows.notes.append(f"pixels of a run are of the class '{OBJECT}', all others background, class 0")
            return ("background", OBJECT), {"": 1}
        present = ordered({self.labels[row] for row in self.used} - {""})
        names = present if file is None else list(read_classes(file))
        if strange := [name for name in present if name not in names]:
            what = f"Class '{strange[0]}' of {table.path} is none of {file}.{nearest(strange[0], names)}"
            self.problems.append(fault(what, "Name it there.", strange))
            return None
        classes, numbers = with_background(names, str(file or table.path))
        self.rows.notes.append(f"classes by name: pixels of no run are '{classes[0]}', class 0")
        return classes, dict(zip(names, numbers, strict=True))

    def _use(self, classes: tuple[str, ...], number: Mapping[str, int]) -> None:
        wrong: list[str] = []
        bare = objects_in_all = 0
        for side in self.rows.sides():
            objects = Objects()
            sizes: list[tuple[int, int]] = []
            scenes = OutlinedScenes(self.rows.files.root, list(side), classes, objects, runs.fill, sizes, self.resize)
            scenes.read_as(self.data.reading)
            for index, rows in enumerate(side.values()):
                before = len(objects.classes)
                size = self._size(scenes, index, rows)
                sizes.append(size or (1, 1))  # of a picture that cannot be read, which is said when that is tried
                for row in rows if size is not None else ():
                    label = "" if self.labels is None else self.labels[row]
                    try:
                        found = self._runs(self.values[row], size)
                    except ValueError as error:
                        wrong.append(f"row {row + 1} ({scenes.files[index]}): {error}")
                        continue
                    if found is not None and label not in number:
                        wrong.append(f"row {row + 1} ({scenes.files[index]}): runs without a class")
                    elif found is not None:
                        objects.add(number[label], [], found)
                objects.end_image()
                bare += len(objects.classes) == before
            objects_in_all += len(objects.classes)
            self.parts.append(scenes)
        self._say(wrong, bare, objects_in_all)
        self.problems += look_at_sizes(self.parts, self.data.on_corrupt)
        self.rows.group(self.parts)

    def _size(self, scenes: OutlinedScenes, index: int, rows: Sequence[int]) -> tuple[int, int] | None:
        """For which the runs of a picture are; None where its header cannot be read."""
        try:
            extent = scenes.extent(index)
        except CorruptImage:
            return None
        said = self.size
        for row in rows if said is None and self.resize else ():
            said = said or runs.size_of(self.values[row])
        return said if said is not None and self._fits(said) else extent

    def _fits(self, size: tuple[int, int]) -> bool:
        return min(size) > 0 and math.prod(size) <= self.data.max_megapixels * 1e6

    def _runs(self, value: Any, size: tuple[int, int] | None) -> Runs | None:
        """The runs of a cell; None where it says that nothing is there. Raises ValueError."""
        assert size is not None
        if isinstance(value, Mapping):
            return runs.of_coco(value, *size)
        if not (text := _text(value)):
            return None
        if text.startswith("{"):
            return runs.of_coco(text, *size)
        return runs.of_pairs(text, *size, self.first, self.by_rows)

    def _say(self, wrong: list[str], bare: int, objects: int) -> None:
        where = f"column '{self.column}' of {self.rows.table.path}"
        if wrong:
            shown = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
            way_out = (
                "Starts count from 1, down the first column, then the next: --data.options.first 0 or "
                "--data.options.order rows say otherwise."
            )
            self.problems.append(fault(f"{len(wrong):,} cells of {where} hold no runs: {shown}.", way_out, wrong))
        elif not objects:
            self.problems.append(fault(f"No row of {where} holds a run: all would be background."))
        if bare:
            every = sum(map(len, self.parts))
            self.rows.notes.append(f"{bare:,} of {every:,} pictures have no run: all background")
        along = "along the first row, then the next" if self.by_rows else "down the first column, then the next"
        self.rows.notes.append(
            f"runs of pairs count from {self.first} {along}; where runs overlap the smaller object is on top"
        )


def _text(value: Any) -> str:
    """What a cell says of runs; "" where it says that nothing is there."""
    text = "" if value is None or value != value else str(value).strip()
    return "" if text.casefold() in _NOTHING else text


def _are_joined(names: Sequence[str]) -> bool:
    """Whether all names are PICTURE.jpg_CLASS."""
    ends = [name.rpartition("_") for name in names]
    return all(is_image(start) and end for start, _, end in ends) and not any(map(is_image, names))


def _column_of_images(table: Table, asked: Asked) -> str | None:
    """A column that is called so, where names have no ending, or have a class behind it."""
    if table_scenes.pictures(table, [asked.group or ""]):
        return None
    found = [name for name in table.names if name.casefold() in _IMAGES or name.casefold().startswith("image")]
    return found[0] if len(found) == 1 else None


def _is_of_runs(path: Path) -> bool:
    if not is_table(path):
        return False
    try:
        return any(name.casefold() in _NAMES for name in names_of(path))
    except (CounterpoiseError, OSError):  # said by source 'table'
        return False


def _check(data: config.Data, **options: Any) -> Iterable[Problem]:
    common = {name: options.pop(name) for name in [*options] if name in Asked.__dataclass_fields__}
    return _Survey(data, Asked(**common), **options).problems


@register(
    "run_lengths",
    summary="a table of pictures and of masks as runs (EncodedPixels), several rows a picture, perhaps with a class",
    files=_is_of_runs,
    check=_check,
)
def load(
    data: config.Data,
    *,
    image: str | None = None,
    encoded: str | None = None,
    label: str | None = None,
    split: str | None = None,
    group: str | None = None,
    root: Path | None = None,
    suffix: str = "",
    classes: Path | None = None,
    order: Order = "columns",
    first: Literal[0, 1] = 1,
    train_split: str | None = None,
    val_split: str | None = None,
    shared: bool = False,
    columns: list[str] | None = None,
    encoding: str = "utf-8",
    encoded_size: tuple[int, int] | None = None,
    resize_masks: bool = False,
    one_class: bool = False,
) -> Splits:
    """Pictures that a table names, each with its objects as runs, START LENGTH START LENGTH ..., a row an object.

    A cell may also hold size and counts as COCO has them, as JSON. An empty cell, or -1, says that nothing is there.
    Where objects overlap the smaller one is on top. Pixels of no run are of class 0, background. Runs that lead out of
    their picture are refused.

    Args:
        image: column of paths; default: the only one of names of image files, or one called image, ImageId or the like.
        encoded: column of the runs; default: one called EncodedPixels, rle or the like.
        label: column of classes; default: the only one called ClassId, label or the like, or names are
            PICTURE.jpg_CLASS; without either all are of the class "object".
        split, group, root, train_split, val_split, shared, columns, encoding: as for masks_table.
        suffix: what names of pictures lack at their end, such as .png.
        classes: file with a name a line, in the order of the classes; default: the labels, in natural order.
        order: whether pixels are counted down columns, as Kaggle does, or along rows.
        first: the number of the first pixel.
        encoded_size: height and width that pairs are for, where those are not the picture's.
        resize_masks: bring masks of another size to their picture, by the nearest pixel.
        one_class: all are of the class "object", whatever other columns hold.
    """
    asked = Asked(image, split, group, root, suffix, train_split, val_split, shared, columns, encoding)
    survey = _Survey(data, asked, encoded, label, classes, order, first, encoded_size, resize_masks, one_class)
    raise_first(survey.problems)
    return survey.rows.finish(survey.parts)
