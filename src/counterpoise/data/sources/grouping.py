"""Which pictures belong together, such as those of one patient: by a pattern in their paths, or by a table."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from counterpoise.data.problems import SHOWN, Problem, fault, warning
from counterpoise.data.sources.files import FileSet
from counterpoise.data.sources.given import file_of
from counterpoise.data.split_names import Halves
from counterpoise.data.table_file import Table, is_table, listed, read_table
from counterpoise.data.walking import is_image
from counterpoise.errors import ConfigError, DataError
from counterpoise.system.files import expanded

_FILE_NAMES = ("file", "filename", "file_name", "image", "picture", "path", "name")
_GROUP_NAMES = ("group", "patient", "patient_id", "case", "subject")

Picture = TypeVar("Picture", bound=Hashable)


class Asked(NamedTuple):
    """What the options of a source say of groups.

    Attributes:
        group: a pattern or the path of a table; None where nothing belongs together.
        shared: let groups be on both sides of the user's own division.
    """

    group: str | None = None
    shared: bool = False


def numbered(names: Sequence[str]) -> Tensor:
    """int64 [N], a number for each name, in the order of text; each "" is a group of its own, behind the others."""
    numbers = {name: number for number, name in enumerate(called(names))}
    found = torch.tensor([numbers.get(name, -1) for name in names], dtype=torch.int64)
    alone = found < 0
    found[alone] = len(numbers) + torch.arange(int(alone.sum()))
    return found


def called(names: Sequence[str]) -> tuple[str, ...]:
    """What the groups of these names are called, by their numbers."""
    return tuple(sorted({*names} - {""}))


def said(names: Sequence[str], how: str, whole: bool) -> str:
    """What there is of groups, as a note. whole: none is on both sides."""
    return f"groups: {how}, {len({*names} - {''}):,} of them{', each on one side alone' if whole else ''}"


def torn(sides: Sequence[Iterable[str]]) -> list[str]:
    """The groups that are on both of two sides."""
    return sorted({*sides[0]} & {*sides[1]} - {""})


class Column(NamedTuple):
    """Groups of pictures by a column of their table.

    Attributes:
        numbers: int64 [N].
        called: what the groups are called.
        torn: those that are on both sides of the table's own division.
        said: what there is of them.
    """

    numbers: Tensor
    called: tuple[str, ...]
    torn: list[str]
    said: list[str]


def of_column(column: str, names: Sequence[str], part_of: Sequence[int], halves: Halves, shared: bool) -> Column:
    """The groups that a column names, "" of a picture that is one of its own.

    Args:
        part_of: of each picture 0 where it is trained on, 1 where it is evaluated on.
    """
    notes = []
    if single := names.count(""):
        notes.append(f"{single:,} rows without a group in column '{column}' are groups of their own")
    divided = len(halves.names) == 2
    notes.append(said(names, f"column '{column}'", not (shared and divided)))
    sides: tuple[set[str], set[str]] = (set(), set())
    for name, part in zip(names, part_of, strict=True):
        sides[part].add(name)
    return Column(numbered(names), called(names), torn(sides) if divided else [], notes)


def by_rows(rows: Iterable[tuple[Picture, str]]) -> tuple[dict[Picture, str], list[Picture]]:
    """The group of each picture as its first row names it, and the pictures of which another row names another one."""
    known: dict[Picture, str] = {}
    several = [picture for picture, name in rows if known.setdefault(picture, name) != name]
    return known, list(dict.fromkeys(several))


def of_several(pictures: Sequence[str], table: Path) -> list[Problem]:
    """What is wrong where a table names several groups for pictures: to keep one of them would tear the others."""
    if not pictures:
        return []
    what = f"{len(pictures):,} pictures of {table} are in several rows with different groups, such as {pictures[0]}."
    return [fault(what, "Leave one group for each picture.", pictures)]


def of_torn(what: str, names: Sequence[str], mend: str, shared: bool) -> Problem:
    """Things that are on both sides of the user's own division: an error, unless they were said to be shared.

    Args:
        what: what there is, a sentence.
        mend: how it is mended, as words behind a colon.
    """
    worse = "Scores are better than they should be"
    if shared:
        return warning(what, f"{worse}.", names)
    return fault(what, f"{worse}: {mend}, or accept it, --data.options.shared true.", names)


def give_groups(
    parts: Sequence[FileSet], below: Sequence[Sequence[str]], asked: Asked, root: Path, halves: Halves | None
) -> list[Problem]:
    """Give the parts of a data set their groups, with a note, and say what is wrong with these.

    Args:
        below: of each part the paths that a pattern is looked for in: below the folder of its pictures, and below those
            of parts and classes, with which nobody's pictures belong together.
        root: folder of the data; a table lies there, or in the working folder.
        halves: what the parts are called; None where there is one of them alone.

    Raises:
        ConfigError: neither a pattern nor a table.
    """
    if asked.group is None:
        return []
    every = [path for paths in below for path in paths]
    if is_table(Path(asked.group)):
        names, how, problems = _by_table(parts, below, asked.group, root)
    else:
        names, how, problems = by_pattern(every, asked.group)
    if problems:
        return problems
    numbers, first = numbered(names), 0
    sides: list[list[str]] = []
    for part in parts:
        sides.append(names[first : first + len(part)])
        part.groups, part.group_names = numbers[first : first + len(part)], called(names)
        first += len(part)
    divided = len(parts) == 2 and halves is not None and halves.train != halves.val
    shown = next((f", such as '{name}' of {path}" for name, path in zip(names, every, strict=True) if name), "")
    parts[0].notes.append(said(names, how, not (divided and asked.shared)) + shown)
    if single := names.count(""):
        parts[0].notes.append(f"{single:,} pictures without a group are groups of their own")
    if len({*names}) == len(names) > 1:
        problems.append(
            warning(
                "Every picture is a group of its own, so that nothing belongs together.",
                "See whether data.options.group takes more than what pictures of one case have in common.",
            )
        )
    if divided and halves is not None and (both := torn(sides)):
        what = f"{len(both):,} groups are in both {halves.train} and {halves.val} of {root}, such as '{both[0]}'."
        problems.append(of_torn(what, both, "move their pictures to one side", asked.shared))
    return problems


def by_pattern(paths: Sequence[str], pattern: str) -> tuple[list[str], str, list[Problem]]:
    """The group of each path, how it was found, and what is wrong."""
    expression = _compiled(pattern)
    which: int | str = "group" if "group" in expression.groupindex else 1
    names = [(found[which] or "") if (found := expression.search(path)) else "" for path in paths]
    how = f"pattern {pattern}"
    without = [path for path, name in zip(paths, names, strict=True) if not name]
    if not without:
        return names, how, []
    shown = ", ".join(without[:SHOWN]) + (", ..." if len(without) > SHOWN else "")
    what = f"data.options.group, {pattern}, finds no group in {len(without):,} of {len(paths):,} paths: {shown}."
    way_out = (
        "It is a regular expression, looked for in each path below the folder of pictures (and of its part or class), "
        "with what names the group in parentheses: (patient[0-9]+)_. A table says it of any names: "
        "--data.options.group groups.csv, with columns file and group."
    )
    return names, how, [fault(what, way_out, without)]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"data.options.group: {pattern} is no regular expression: {error}.") from None
    if expression.groups != 1 and "group" not in expression.groupindex:
        raise ConfigError(
            f"data.options.group: {pattern} has {expression.groups} parts in parentheses; expected one, what names the "
            "group, as in (patient[0-9]+)_. Others are written (?:...), or the one that counts (?P<group>...). The "
            "path of a table may stand there, too: groups.csv, with columns file and group."
        )
    return expression


def _by_table(
    parts: Sequence[FileSet], below: Sequence[Sequence[str]], file: str, root: Path
) -> tuple[list[str], str, list[Problem]]:
    """As `by_pattern`, by a table of files and groups."""
    path = file_of(Path(file), root, "group")
    if not path.is_file():
        raise ConfigError(f"data.options.group: there is no table {expanded(Path(file))}, nor {path}.")
    table = read_table(path)
    column, group = _columns(table)
    how = f"column '{group}' of {path}"
    known, several = _known(table, column, group)
    problems = of_several(several, path)
    names: list[str] = []
    without: list[str] = []
    taken: dict[str, Path] = {}
    other_names: dict[str, str] = {}
    for part, paths in zip(parts, below, strict=True):
        for inner, relative in zip(part.files, paths, strict=True):
            keys = [key for key in _keys(part.root / inner, root, inner, relative) if key in known]
            key = keys[0] if keys else None
            names.append("" if key is None else known[key])
            other_names |= {other: inner for other in keys[1:] if known[other] != names[-1]}
            if key is None:
                without.append(inner)
            elif (other := taken.setdefault(key, part.root / inner)) != part.root / inner:
                what = f"'{key}' of {path} may be {other} or {part.root / inner}."
                return names, how, [*problems, fault(what, f"Name them by their paths below {root}.", [str(other)])]
    # A row that is no other picture's names this one a second time, by less of its path.
    problems += of_several(list(dict.fromkeys(inner for key, inner in other_names.items() if key not in taken)), path)
    if without:
        shown = ", ".join(without[:SHOWN]) + (", ..." if len(without) > SHOWN else "")
        what = f"{path} names no group for {len(without):,} of {len(names):,} pictures: {shown}."
        way_out = (
            f"Column '{column}' holds their paths, relative to {root} or to the folder of pictures, or their names, "
            "with or without what ends them. A picture that stands alone has a row without a group."
        )
        problems.append(fault(what, way_out, without))
    return names, how, problems


def _columns(table: Table) -> tuple[str, str]:
    """The columns of files and of groups. Raises DataError where that is not clear."""
    files = [name for name in table.names if name.casefold() in _FILE_NAMES]
    pictures = [name for name in table.names if name and (values := table.first(name)) and all(map(is_image, values))]
    groups = [name for name in table.names if name.casefold() in _GROUP_NAMES]
    for candidates in (files, pictures):
        others = [name for name in table.names if name and name not in candidates]
        named = [name for name in groups if name not in candidates]
        for choice in (named, others):
            if len(candidates) == 1 and len(choice) == 1:
                return candidates[0], choice[0]
    raise DataError(
        f"Which columns of {table.path} have the pictures and their groups is not clear: expected 'file' and 'group', "
        f"got {listed(table.names)}."
    )


def _known(table: Table, column: str, group: str) -> tuple[dict[str, str], list[str]]:
    """As `by_rows`, of pictures as they are named."""
    files = [raw.replace("\\", "/").removeprefix("./") for raw in table.text(column)]
    return by_rows((file, name) for file, name in zip(files, table.text(group), strict=True) if file)


def _keys(path: Path, root: Path, inner: str, relative: str) -> list[str]:
    """What a table may call a picture, the longest first."""
    whole = os.path.relpath(path, root).replace(os.sep, "/")
    found = [whole, inner, relative, relative.rpartition("/")[2]]
    return list(dict.fromkeys(key for each in found for key in (each, os.path.splitext(each)[0])))  # noqa: PTH122
