"""What is known of the pictures of a table: from the text of a column to classes and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from counterpoise.data.class_names import doubtful, is_number
from counterpoise.data.packs.labels import read_classes
from counterpoise.data.sources.base import UNLABELED
from counterpoise.data.table_file import Table
from counterpoise.data.walking import ordered
from counterpoise.errors import DataError, nearest

Blank: TypeAlias = Literal["unknown", "absent"]
_BETWEEN = "\x1f"
"""What stands between the cells of several columns in one text."""
LISTED = "\x1e"
"""What stands before each label of a list."""
_SAYS = {"1": 1, "true": 1, "0": 0, "false": 0, "-1": UNLABELED}


class Labels(NamedTuple):
    """Labels of pictures, in their order, and the names of the classes. said: how they were read."""

    labels: Tensor
    classes: tuple[str, ...]
    said: list[str]


def cells(table: Table, columns: Sequence[str]) -> list[str]:
    """What each row of a table says in these columns; "" where it says nothing."""
    texts = [table.text(column) for column in columns]
    if len(texts) < 2:
        return texts[0] if texts else [""] * table.rows
    joined = map(_BETWEEN.join, zip(*texts, strict=True))
    return [text if text.strip(_BETWEEN) else "" for text in joined]


def lists(table: Table, column: str) -> list[str] | None:
    """As `cells`, of a column that holds lists of labels, each behind a `LISTED`; None where it holds no list."""
    values = table.values(column)
    if not any(isinstance(value, list | tuple) for value in values):
        return None
    found = []
    for value in values:
        if value is not None and not (
            isinstance(value, list | tuple) and all(type(one) in (str, int) for one in value)
        ):
            raise DataError(f"Column '{column}' holds {value!r:.80} beside lists: expected lists of names.")
        found.append("" if value is None else LISTED + LISTED.join(map(str, value)))
    return found


def by_column(texts: Sequence[str], columns: Sequence[str], classes: Path | None, blank: Blank) -> Labels:
    """Several labels a picture, of each a column that says whether it is there.

    Raises DataError where a cell says something else.
    """
    if classes is not None:
        raise DataError("data.options.classes: with label_columns the columns are the classes: leave the file out.")
    empty = "" if len(columns) == 1 else _BETWEEN * (len(columns) - 1)
    rows = [(text or empty).casefold().split(_BETWEEN) for text in texts]
    blanks = sum(cell == "" for row in rows for cell in row)
    says = {**_SAYS, "": UNLABELED if blank == "unknown" else 0}
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            if cell not in says:
                raise DataError(
                    f"Column '{column}' holds '{cell}': expected 1 where the label is there, 0 where it is not and -1 "
                    "where that is unknown. Another choice of columns: --data.options.label_columns [NAME, NAME]."
                )
    labels = torch.tensor([[says[cell] for cell in row] for row in rows], dtype=torch.int8)
    return Labels(labels, tuple(columns), _of_blanks(blanks, blank, "cells"))


def by_separator(
    texts: Sequence[str], training: Sequence[bool], column: str, separator: str, classes: Path | None, blank: Blank
) -> Labels:
    """Several labels a picture, by name in one column; those that are not named are not there.

    Arguments and errors are those of `one_a_picture`. Raises DataError, too, where no picture has more than one.
    """
    if not separator:
        raise DataError("data.options.separator: expected what stands between labels, such as |, got nothing.")
    named = [[part for given in text.split(separator) if (part := given.strip())] for text in texts]
    if separator != LISTED and all(len(parts) < 2 for parts in named):
        raise DataError(
            f"No picture has two labels in column '{column}' with '{separator}' between them: another separator, or "
            "one label a picture (leave data.options.separator out)."
        )
    flat = [(part, trains) for parts, trains in zip(named, training, strict=True) for part in parts]
    names, flags = [part for part, _ in flat], [trains for _, trains in flat]
    found = one_a_picture(names, flags, column, classes)
    labels = torch.zeros(len(texts), len(found.classes), dtype=torch.int8)
    rows = [row for row, parts in enumerate(named) for _ in parts]
    labels[torch.tensor(rows), found.labels] = 1
    empty = [row for row, text in enumerate(texts) if not text]
    if blank == "unknown":
        labels[empty] = UNLABELED
    return Labels(labels, found.classes, [*found.said, *_of_blanks(len(empty), blank, "rows")])


def _of_blanks(count: int, blank: Blank, what: str) -> list[str]:
    """How cells that hold nothing were read."""
    if not count:
        return []
    other = "unknown" if blank == "absent" else "absent"
    taken = "their labels are unknown" if blank == "unknown" else "their labels are not there"
    return [f"{count:,} {what} of labels are empty: {taken} (--data.options.blank {other} reads them otherwise)"]


def one_a_picture(texts: Sequence[str], training: Sequence[bool], column: str, classes: Path | None) -> Labels:
    """A class a picture, by its name; UNLABELED where there is none.

    Args:
        texts: of the column, a picture each.
        training: whether a picture is trained on. Classes are those of these pictures, in natural order.
        classes: file with a name a line, which are the classes instead, in its order.

    Raises DataError where there is a class that training lacks, or as many classes as pictures.
    """
    present = set(texts) - {""}
    if classes is None:
        names = ordered({text for text, trains in zip(texts, training, strict=True) if trains and text})
        _require_classes(texts, names, column)
        numbers = {name: number for number, name in enumerate(names)}
        said: list[str] = []
    else:
        names = read_classes(classes)
        numbers, said = _by_file(present, names, column, classes)
    if strange := sorted(present - numbers.keys()):
        raise DataError(
            f"Class '{strange[0]}' of column '{column}' is unknown to the training pictures."
            f"{nearest(strange[0], numbers)} Call both alike, or give "
            "the classes in a file, --data.options.classes FILE."
        )
    numbers[""] = UNLABELED
    said = [*said, *doubtful(names, f"column '{column}'", separator=True)]
    return Labels(torch.tensor([numbers[text] for text in texts]), tuple(names), said)


def _require_classes(texts: Sequence[str], names: Sequence[str], column: str) -> None:
    labeled = sum(map(bool, texts))
    if not names:
        raise DataError(
            f"Column '{column}' has a label for no training picture. To distill without labels: "
            "--data.options.labeled false."
        )
    if len(names) == labeled > 2:
        raise DataError(
            f"Column '{column}' has another value for each of the {labeled:,} labeled pictures, such as '{names[0]}': "
            "these are no classes. Another column: --data.options.label NAME."
        )


def _by_file(present: set[str], names: Sequence[str], column: str, file: Path) -> tuple[dict[str, int], list[str]]:
    """The number of each value by a classes file: by its name, or where values are numbers, by its line."""
    if present <= set(names):
        return {name: number for number, name in enumerate(names)}, []
    if all(map(is_number, present)) and not any(map(is_number, names)):
        beyond = sorted((value for value in present if not 0 <= int(value) < len(names)), key=int)
        if beyond:
            raise DataError(
                f"Column '{column}' holds {beyond[-1]}, and {file} names {len(names)} classes: expected 0 to "
                f"{len(names) - 1}."
            )
        said = f"column '{column}' holds numbers: 0 is '{names[0]}', the first line of {file}"
        return {value: int(value) for value in present}, [said]
    strange = sorted(present - set(names))
    raise DataError(
        f"Class '{strange[0]}' of column '{column}' is not among the {len(names)} classes of {file}."
        f"{nearest(strange[0], names)}"
    )
