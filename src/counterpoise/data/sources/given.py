"""A file or folder of a data set that an option names, or that is called as usual."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable
from pathlib import Path

from counterpoise.errors import DataError
from counterpoise.system.files import expanded, is_file, is_folder

CLASSES = "classes.txt"
"""What a classes file is usually called."""


def file_of(name: Path, data: Path, option: str) -> Path:
    """The file that `data.options.OPTION` names: below `data`, or below the working folder.

    Args:
        data: folder of the data, or its one file, beside which others lie.

    Raises:
        DataError: both have one, and these hold something else.
    """
    return _one(name, data, option, is_file, _alike)


def folder_of(name: Path, data: Path, option: str) -> Path:
    """The folder that an option names, likewise; `.`, `..` and the like are as seen from the working folder.

    Raises DataError where both have one.
    """
    return _one(name, data, option, is_folder, lambda one, other: False)


def classes_file(name: Path | None, data: Path) -> Path:
    """The classes file that `data.options.classes` names; by default classes.txt of the data and of no other folder.

    Raises DataError as `file_of`, and where the working folder alone has a classes.txt, which nobody has named.
    """
    if name is not None:
        return file_of(name, data, "classes")
    file, other = _beside(data) / CLASSES, Path(CLASSES)
    if not file.exists() and is_file(other):
        raise DataError(
            f"{file} is not there. That of the working folder may be of other data; to take it, name it: "
            f"--data.options.classes {other.absolute()}."
        )
    return file


def _one(
    name: Path, data: Path, option: str, there: Callable[[Path], bool], alike: Callable[[Path, Path], bool]
) -> Path:
    here, beside = expanded(name), _beside(data) / expanded(name)
    if not {*here.parts} - {".."}:  # these are there in every folder
        return here
    if not there(here):
        return beside
    if not there(beside) or os.path.samefile(here, beside):  # noqa: PTH121 - as what is asked above
        return here
    if alike(here, beside):
        return beside
    raise DataError(
        f"data.options.{option}: {name} may be {beside}, of the data, or {here.absolute()}, of the working folder, and "
        f"they differ. Give the whole path of the one that is meant: --data.options.{option} {beside.absolute()}."
    )


def _beside(data: Path) -> Path:
    return data.parent if is_file(data) else data


def _alike(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:  # one cannot be read, so that nobody knows
        return False
