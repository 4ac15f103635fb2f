"""A table of labels: a row a picture, a column of paths, one of labels, and perhaps one of parts and one of groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.labels import strata
from counterpoise.data.problems import SHOWN, Problem, fault, raise_first
from counterpoise.data.sources import grouping, table_columns, table_files, table_parts
from counterpoise.data.sources.base import UNLABELED, Splits
from counterpoise.data.sources.division import name_parts, split_by_fraction
from counterpoise.data.sources.files import FileSet
from counterpoise.data.sources.given import file_of
from counterpoise.data.sources.grouping import of_torn
from counterpoise.data.sources.registry import register
from counterpoise.data.sources.table_labels import LISTED, Blank, by_column, by_separator, cells, lists, one_a_picture
from counterpoise.data.table_file import Table, is_table, listed, read_table
from counterpoise.errors import DataError
from counterpoise.system.files import expanded


@dataclass
class _Asked:
    """The options of the source, see `load`."""

    image: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None
    root: Path | None = None
    suffix: str = ""
    classes: Path | None = None
    labeled: bool = True
    train_split: str | None = None
    val_split: str | None = None
    without_label: Literal["keep", "skip"] = "keep"
    shared: bool = False
    columns: list[str] | None = None
    encoding: str = "utf-8"
    label_columns: list[str] | Literal["others"] | None = None
    separator: str | None = None
    blank: Blank = "unknown"


class _Survey:
    """What a table holds, and what is wrong with it; errors are in the way of parts.

    Attributes:
        parts: the pictures to train on, and those to evaluate on where a column says which.
        rows: of the table, those that are used, in the order of their paths.
    """

    def __init__(self, data: config.Data, asked: _Asked) -> None:
        assert data.path is not None  # the registry has seen to it
        self.data, self.asked = data, asked
        self.problems: list[Problem] = []
        self.notes: list[str] = []
        self.parts: list[FileSet] = []
        self.table = _read(expanded(data.path), asked)
        self.classes = None if asked.classes is None else file_of(asked.classes, self.table.path, "classes")
        several = asked.label_columns is not None
        labels = [] if several or not asked.labeled else None if asked.label is None else [asked.label]
        self.columns = table_columns.choose(self.table, asked.image, labels, asked.split, asked.group, asked.suffix)
        if asked.labeled:
            self.columns.take_several(self.table, asked.label_columns, asked.label, asked.separator)
        listed_labels = None
        if len(self.columns.labels) == 1 and not self.columns.several and asked.separator is None:
            listed_labels = lists(self.table, self.columns.labels[0])
        self.separator = asked.separator if listed_labels is None else LISTED
        self.labels = cells(self.table, self.columns.labels) if listed_labels is None else listed_labels
        names = self.table.text(self.columns.image)
        self.files = table_files.find(self.table.path, names, asked.root, asked.suffix)
        divided = table_parts.divide(self.table, self.columns.split, asked.train_split, asked.val_split)
        self.halves, self.part_of = divided.halves, divided.of
        self.notes += divided.said
        self.rows = self._there(names)
        if self.rows:
            self._use()
        else:
            self.problems.append(fault(f"No row of {self.table.path} is of use."))

    def _there(self, names: Sequence[str]) -> list[int]:
        """The rows of the parts that are used whose picture is there, once each."""
        used = [row for row, part in enumerate(self.part_of) if part >= 0]
        if self.asked.without_label == "skip" and self.columns.labels:
            used = self._labeled(used)
        where = f"{self.table.path}"
        rows, problems = table_parts.there(used, self.files, names, self.columns.image, self.data.on_corrupt, where)
        self.problems += problems
        return self._once(rows)

    def _labeled(self, used: Sequence[int]) -> list[int]:
        kept = [row for row in used if self.labels[row]]
        if len(kept) < len(used):
            self.notes.append(f"{len(used) - len(kept):,} rows without a label are left out")
        return kept

    def _once(self, rows: Sequence[int]) -> list[int]:
        """Rows in the order of paths without those that say the same again; a fault where they say something else."""
        if len({self.files.paths[row] for row in rows}) == len(rows):
            return list(rows)
        first: dict[tuple[int, str], int] = {}
        again = 0
        torn: list[str] = []
        paths, parts, labels = self.files.paths, self.part_of, self.labels
        for row in rows:
            if (earlier := first.setdefault((parts[row], paths[row]), row)) == row:
                continue
            if labels[earlier] != labels[row]:
                torn.append(paths[row])
            else:
                again += 1
        between = [path for side, path in first if side and (0, path) in first]
        if torn:
            what = f"{len(torn):,} pictures are in several rows with different labels, such as {torn[0]}."
            self.problems.append(fault(what, "Leave one row for each picture.", torn))
        if between:
            self._shared("pictures", between)
        if again:
            self.notes.append(f"{again:,} rows that name a picture a second time, with the same label, are left out")
        return list(first.values())

    def _shared(self, what: str, names: Sequence[str]) -> None:
        """Things that are on both sides of the user's own division."""
        both = f"{self.halves.train} and {self.halves.val}"
        said = f"{len(names):,} {what} are in both {both} of {self.table.path}, such as '{names[0]}'."
        self.problems.append(of_torn(said, names, f"mend column '{self.columns.split}'", self.asked.shared))

    def _use(self) -> None:
        """Make the parts of the rows that are used."""
        labels, classes = self._read_labels()
        groups = self._groups()
        paths = [self.files.paths[row] for row in self.rows]
        part_of = torch.tensor([self.part_of[row] for row in self.rows])
        for name in self.halves.names:
            where = torch.nonzero(part_of == self.halves.names.index(name)).flatten()
            part = FileSet(self.files.root, [paths[index] for index in where.tolist()], labels[where], classes)
            if groups is not None:
                part.groups, part.group_names = groups.numbers[where], groups.called
            part.origin = f"{name} of {self.table.path}" if name else str(self.table.path)
            self.parts.append(part)
        if len(self.parts) == 2:
            self._look_at_val()
        self.notes = [*self.columns.said, *self.table.notes, *self.files.said, *self.notes]

    def _read_labels(self) -> tuple[Tensor, tuple[str, ...]]:
        if not self.columns.labels:
            return torch.full((len(self.rows),), UNLABELED), ()
        texts, trains = [self.labels[row] for row in self.rows], [self.part_of[row] == 0 for row in self.rows]
        try:
            if self.columns.several:
                found = by_column(texts, self.columns.labels, self.classes, self.asked.blank)
            elif self.separator is not None:
                found = by_separator(
                    texts, trains, self.columns.labels[0], self.separator, self.classes, self.asked.blank
                )
            else:
                found = one_a_picture(texts, trains, self.columns.labels[0], self.classes)
        except DataError as error:
            self.problems.append(fault(str(error)))
            return torch.full((len(self.rows),), UNLABELED), ()
        self.notes += found.said
        if unknown := int((strata(found.labels, len(found.classes))[torch.tensor(trains)] == UNLABELED).sum()):
            none = "no label that is known" if found.labels.ndim == 2 else "no label (empty or NaN)"
            self.notes.append(f"{unknown:,} training pictures have {none}: the teacher's word alone")
        return found.labels, found.classes

    def _groups(self) -> grouping.Column | None:
        """The groups of the rows that are used; a row without one is a group of its own."""
        column = self.columns.group
        if column is None:
            return None
        text = self.table.text(column)
        # Of rows that are left out, too: a picture that is listed again may be of another patient there.
        named = ((self.part_of[row], path, text[row]) for row, path in enumerate(self.files.paths))
        _, several = grouping.by_rows(((part, path), group) for part, path, group in named if path and part >= 0)
        self.problems += grouping.of_several([path for _, path in several], self.table.path)
        found = grouping.of_column(
            column,
            [text[row] for row in self.rows],
            [self.part_of[row] for row in self.rows],
            self.halves,
            self.asked.shared,
        )
        self.notes += found.said
        if found.torn:
            self._shared(f"groups of column '{column}'", found.torn)
        return found

    def _look_at_val(self) -> None:
        val = self.parts[1]
        if not len(val) or not val.classes:
            return
        nothing = strata(val.labels, len(val.classes)) < 0
        if unknown := val.unlabeled:
            self.problems.append(
                fault(
                    f"{unknown:,} of {len(val):,} pictures of {val.origin} have no label, and evaluation needs them.",
                    "Leave rows without a label out: --data.options.without_label skip.",
                    [val.name(index) for index in torch.nonzero(nothing).flatten().tolist()[:SHOWN]],
                )
            )


def _read(path: Path, asked: _Asked) -> Table:
    if path.is_dir():
        tables = sorted(entry.name for entry in path.iterdir() if is_table(entry))
        there = f"; it has {listed(tables)}" if tables else ""
        file = path / (tables or ["labels.csv"])[0]
        raise DataError(f"Source 'table' takes the table itself, --data {file}, and {path} is a folder{there}.")
    return read_table(path, asked.columns, asked.encoding)


def _check(
    data: config.Data,
    **options: object,
) -> Iterable[Problem]:
    return _Survey(data, _Asked(**options)).problems  # type: ignore[arg-type]


@register(
    "table",
    summary="a table with a column of pictures and one of labels: .csv, .tsv, .jsonl, .parquet (extra: hf)",
    files=is_table,
    check=_check,
)
def load(
    data: config.Data,
    *,
    image: str | None = None,
    label: str | None = None,
    split: str | None = None,
    group: str | None = None,
    root: Path | None = None,
    suffix: str = "",
    classes: Path | None = None,
    labeled: bool = True,
    train_split: str | None = None,
    val_split: str | None = None,
    without_label: Literal["keep", "skip"] = "keep",
    shared: bool = False,
    columns: list[str] | None = None,
    encoding: str = "utf-8",
    label_columns: list[str] | Literal["others"] | None = None,
    separator: str | None = None,
    blank: Blank = "unknown",
) -> Splits:
    """Pictures that a table names, with the label that it gives each, or several; rows may lie in any order.

    Divided by the column `split`, or else by `data.val_fraction`.

    Args:
        image, label: columns of paths and of labels; default: the only one that each can be.
        split: column that says which part a row is of; default: the only one that holds such words as train and val.
        group: column of what belongs together, such as patient: none of it is on both sides of a division.
        root: folder that paths are relative to; default: that of the table.
        suffix: what names of pictures lack at their end, such as .jpg.
        classes: file with a name a line, in the order of the classes; default: the labels, in natural order.
        labeled: false leaves labels alone, for distill.
        train_split, val_split: parts to train and to evaluate on, as the column calls them.
        without_label: keep has rows without a label teach by the teacher's word alone; skip leaves them out.
        shared: let pictures and groups be on both sides of a division by `split`.
        columns: names of the columns, of a table without them.
        encoding: of .csv and .tsv.
        label_columns: of several labels a picture: columns of 1, 0 and -1 (unknown), which are the classes; "others":
            all that are nothing else.
        separator: of several labels a picture: what stands between them in the column `label`.
        blank: what a cell without anything in it says of several labels: unknown, or absent.
    """
    survey = _Survey(
        data,
        _Asked(
            image, label, split, group, root, suffix, classes, labeled, train_split, val_split, without_label, shared,
            columns, encoding, label_columns, separator, blank,
        ),
    )  # fmt: skip
    raise_first(survey.problems)
    parts = survey.parts
    parts[0].notes = [*survey.notes, *(problem.sentence for problem in survey.problems)]
    if len(parts) == 1:
        splits = split_by_fraction(parts[0], data.val_fraction, data.split_seed)
    else:
        splits = Splits(parts[0], parts[1])
        if survey.halves.why:
            parts[1].origin += f" ({survey.halves.why})"
    if survey.columns.split is not None:
        name_parts(splits, survey.halves)
        if survey.halves.unused:
            splits.train.notes.append(f"not used: {listed(survey.halves.unused)} of {survey.table.path}")
    return splits
