"""Which rows of a table are trained on and which are evaluated on, and which of them name a picture that is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from counterpoise.data.problems import SHOWN, Problem, fault
from counterpoise.data.sources import table_files
from counterpoise.data.split_names import Halves, find, is_split_name, named
from counterpoise.data.table_file import Table, listed
from counterpoise.data.walking import ordered
from counterpoise.errors import DataError


class Parts(NamedTuple):
    """How rows are divided.

    Attributes:
        halves: what the parts are called; nameless where there is one alone.
        of: of each row 0 where it is trained on, 1 where it is evaluated on, -1 where neither.
        said: what is to be known of it.
    """

    halves: Halves
    of: list[int]
    said: list[str]


def divide(table: Table, column: str | None, train_split: str | None, val_split: str | None) -> Parts:
    """The parts that a column says.

    Raises:
        DataError: it has none to train on, or none of the name that was given.
    """
    if column is None:
        for option, name in (("train_split", train_split), ("val_split", val_split)):
            if name is not None:
                raise DataError(
                    f"data.options.{option} names a part, and no column of {table.path} has parts: "
                    f"--data.options.split NAME. It has: {listed(table.names)}."
                )
        return Parts(Halves("", None, "", ()), [0] * table.rows, [])
    words = table.text(column)
    where = f"Column '{column}' of {table.path}"
    present = set(words) - {""}
    halves = find(present, where, train_split, val_split)
    if halves is None and val_split is not None and not any(map(is_split_name, present)):
        return _all_but(words, named(val_split, sorted(present), where), column)
    if halves is None:
        raise DataError(
            f"{where} has no part 'train', only {listed(ordered(present))}: name one, --data.options.train_split "
            "NAME, or the one to evaluate on, --data.options.val_split NAME."
        )
    nowhere = words.count("")
    said = [f"{nowhere:,} rows without a part in column '{column}' are not used"] if nowhere else []
    numbers = {name: halves.names.index(name) for name in halves.names}  # of one that is both: 0
    return Parts(halves, [numbers.get(word, -1) for word in words], said)


def _all_but(words: Sequence[str], val: str, column: str) -> Parts:
    """Of a column that names folds, sites or the like: one of them is evaluated on, all others are trained on."""
    said = f"column '{column}' has no part 'train': all rows but those of '{val}' are it"
    return Parts(
        Halves(f"all but {val}", val, "", ()), [-1 if not word else int(word == val) for word in words], [said]
    )


def there(
    used: Sequence[int], files: table_files.Files, names: Sequence[str], column: str, on_corrupt: str, where: str
) -> tuple[list[int], list[Problem]]:
    """The rows among `used` whose picture is there, in the order of paths, and what is wrong with the others.

    Args:
        names: of pictures, as the column has them.
        where: the table, in words.
    """
    problems = []
    if empty := [row for row in used if not files.paths[row]]:
        which = ", ".join(str(row + 1) for row in empty[:SHOWN])
        what = f"{len(empty):,} rows name no picture in column '{column}', such as row {which}."
        problems.append(fault(what, "Take them out of the table."))
    absent = {*files.missing()}
    missing = absent and absent & {*used}
    if missing:
        problems.append(table_files.of_missing(files, sorted(missing), names, on_corrupt, where))
    return sorted(
        (row for row in used if files.paths[row] and row not in missing), key=files.paths.__getitem__
    ), problems
