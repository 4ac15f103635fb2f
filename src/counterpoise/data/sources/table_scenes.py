"""What tables of scenes have in common: columns, pictures, parts and groups, whatever a row says of the mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from counterpoise import config
from counterpoise.data.problems import Problem, fault
from counterpoise.data.sources import grouping, table_columns, table_files, table_parts
from counterpoise.data.sources.base import Splits
from counterpoise.data.sources.division import name_parts, split_by_fraction
from counterpoise.data.sources.files import FileSet
from counterpoise.data.split_names import Halves
from counterpoise.data.table_file import Table, is_table, listed, read_table
from counterpoise.data.walking import is_image
from counterpoise.errors import DataError
from counterpoise.system.files import expanded


@dataclass
class Asked:
    """The options that these sources have in common."""

    image: str | None = None
    split: str | None = None
    group: str | None = None
    root: Path | None = None
    suffix: str = ""
    train_split: str | None = None
    val_split: str | None = None
    shared: bool = False
    columns: list[str] | None = None
    encoding: str = "utf-8"


@dataclass
class SceneRows:
    """A table whose rows say something of the masks of pictures.

    Attributes:
        rows: of each picture that is used, by its side (0 or 1) and its path, the numbers of its rows, in the order of
            paths.
    """

    data: config.Data
    asked: Asked
    table: Table
    taken: Sequence[str]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rows: dict[tuple[int, str], list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        asked, table = self.asked, self.table
        image = asked.image or only(table, pictures(table, self.taken), "the pictures", "image", asked.suffix)
        self.columns = table_columns.choose(table, image, self.taken, asked.split, asked.group, asked.suffix)
        self.names = table.text(image)
        self.notes = [f"pictures: column '{image}'", *self.columns.said] if asked.image is None else self.columns.said
        used = {image, *self.taken, self.columns.split, self.columns.group}
        others = [name for name in table.names if name and name not in used]
        said = " ".join(self.notes)  # of some it is said already that they are not used, and what they may be
        if unused := [name for name in others if f"column '{name}' is not used" not in said]:
            self.notes.append(f"columns that are not used: {listed(unused)}")
        parts = table_parts.divide(table, self.columns.split, asked.train_split, asked.val_split)
        self.halves: Halves = parts.halves
        self._of = parts.of
        self.notes += parts.said

    def find(self, names: Sequence[str] | None = None) -> None:
        """Look for the pictures of the rows. names: what they are called where the column says more."""
        names = self.names if names is None else names
        asked, table = self.asked, self.table
        self.files = table_files.find(table.path, names, asked.root, asked.suffix)
        self.notes += [*table.notes, *self.files.said]
        used = [row for row, part in enumerate(self._of) if part >= 0]
        found, problems = table_parts.there(
            used, self.files, names, self.columns.image, self.data.on_corrupt, f"{table.path}"
        )
        self.problems += problems
        for row in found:
            self.rows.setdefault((self._of[row], self.files.paths[row]), []).append(row)
        if not self.rows and not self.problems:
            self.problems.append(fault(f"No row of {table.path} is of use."))
        if both := sorted({path for side, path in self.rows if side} & {path for side, path in self.rows if not side}):
            self._shared("pictures", both)

    def _shared(self, what: str, names: Sequence[str]) -> None:
        both = f"{self.halves.train} and {self.halves.val}"
        said = f"{len(names):,} {what} are in both {both} of {self.table.path}, such as '{names[0]}'."
        mend = f"mend column '{self.columns.split}'"
        self.problems.append(grouping.of_torn(said, names, mend, self.asked.shared))

    def group(self, parts: Sequence[FileSet]) -> None:
        """Give the parts their groups, their names and where they come from.

        Args:
            parts: of the pictures in the order of `rows`, those that are trained on, and those that are not.
        """
        for part, name in zip(parts, self.halves.names, strict=True):
            part.origin = f"{name} of {self.table.path}" if name else str(self.table.path)
        column = self.columns.group
        if column is None:
            return
        text = self.table.text(column)
        known, several = grouping.by_rows((which, text[row]) for which, rows in self.rows.items() for row in rows)
        if several:
            self.problems += grouping.of_several([path for _, path in several], self.table.path)
            return
        names = list(known.values())
        part_of = [side for side, _ in self.rows]
        found = grouping.of_column(column, names, part_of, self.halves, self.asked.shared)
        self.notes += found.said
        if found.torn:
            self._shared(f"groups of column '{column}'", found.torn)
        for side, part in enumerate(parts):
            part.groups, part.group_names = found.numbers[torch.tensor(part_of) == side], found.called

    def sides(self) -> list[dict[str, list[int]]]:
        """Of each part the pictures, by path, with the numbers of their rows."""
        return [
            {path: rows for (of, path), rows in self.rows.items() if of == side}
            for side in range(len(self.halves.names))
        ]

    def finish(self, parts: Sequence[FileSet]) -> Splits:
        """Both halves, one of them alone divided."""
        parts[0].notes = list(dict.fromkeys([*self.notes, *parts[0].notes, *(each.sentence for each in self.problems)]))
        if len(parts) == 1:
            splits = split_by_fraction(parts[0], self.data.val_fraction, self.data.split_seed)
        else:
            splits = Splits(parts[0], parts[1])
            if self.halves.why:
                splits.val.origin += f" ({self.halves.why})"
        if self.columns.split is not None:
            name_parts(splits, self.halves)
            if self.halves.unused:
                splits.train.notes.append(f"not used: {listed(self.halves.unused)} of {self.table.path}")
        return splits


def read(data: config.Data, asked: Asked, source: str) -> Table:
    """The table that data.path names. Raises DataError where that is a folder."""
    assert data.path is not None  # the registry has seen to it
    path = expanded(data.path)
    if path.is_dir():
        tables = sorted(entry.name for entry in path.iterdir() if is_table(entry))
        there = f"; it has {listed(tables)}" if tables else ""
        raise DataError(f"Source '{source}' takes the table itself, --data FILE, and {path} is a folder{there}.")
    return read_table(path, asked.columns, asked.encoding)


def pictures(table: Table, taken: Sequence[str] = ()) -> list[str]:
    """The columns whose values are names of image files."""
    others = [name for name in table.names if name and name not in taken]
    return [name for name in others if (values := table.first(name)) and all(map(is_image, values))]


def only(table: Table, found: Sequence[str], what: str, option: str, suffix: str = "") -> str:
    """The one column that can be meant. Raises DataError where that is not clear."""
    if len(found) == 1:
        return found[0]
    several = f"columns {listed(found)} may be" if found else "no column is called so, or holds such names"
    ending = " Names without their ending: --data.options.suffix .png, too." if not (found or suffix) else ""
    raise DataError(
        f"Which column of {table.path} has {what} is not clear: {several}. It has: {listed(table.names)}. Say which: "
        f"--data.options.{option} NAME.{ending}"
    )
