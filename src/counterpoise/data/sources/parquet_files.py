"""The parquet files of a Hugging Face data set, in a folder or at an address, and which split each is of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from counterpoise.data.packs.finding import expanded, names_at, some
from counterpoise.data.packs.format import DESCRIPTION
from counterpoise.errors import ConfigError, CounterpoiseError, DataError
from counterpoise.system.addresses import TIMEOUT, Files, address_of

ENDING = ".parquet"


class Tables(NamedTuple):
    """The files of each split, by their paths below the folder or the address, in their order.

    Attributes:
        train, val: names of the splits that patterns were given for.
    """

    splits: dict[str, list[str]]
    train: str | None
    val: str | None


def below(root: Path) -> list[str]:
    """The parquet files in a folder, by their paths from there.

    train-00000-of-00002.parquet, or train/0000.parquet, here or in `data`.
    """
    found = {*root.glob("*.parquet"), *root.glob("*/*.parquet"), *root.glob("data/*/*.parquet")}
    return [path.relative_to(root).as_posix() for path in found]


def of_address(files: Files, train: str | None, val: str | None) -> Tables:
    """Those at an address; it is asked for a list where no names are given. Raises as `in_splits`."""
    folder, _, name = files.address.rpartition("/")
    if name.endswith(ENDING):
        raise DataError(f"{files.address} is a file: give its folder, --data {folder} --data.options.train {name}.")
    return in_splits(names_at(files, train, val, ENDING), train, val, files.address)


def in_splits(names: Sequence[str], train: str | None, val: str | None, where: str) -> Tables:
    """Each file in its split: as patterns say, or as it is called.

    Raises:
        DataError: there are none; files of one split lie in several folders.
        ConfigError: a pattern fits none.
    """
    names = sorted(names, key=lambda name: PurePosixPath(name).parts)
    if not names:
        unlisted = "" if address_of(where) is None else (
            f" Where its server lists no files, name them: --data.options.train 'train-{{0000..0146}}{ENDING}'."
        )  # fmt: skip
        raise DataError(f"{where} holds no {ENDING} files.{unlisted}")
    if train is None and val is None:
        return Tables(_as_called(names, where), None, None)
    splits: dict[str, list[str]] = {}
    named: dict[str, str] = {}
    for word, pattern in (("train", train), ("val", val)):
        if pattern is None:
            continue
        wanted = expanded(pattern)
        fitting = [name for name in names if any(fnmatchcase(name, each) for each in wanted)]
        if not fitting:
            raise ConfigError(f"data.options.{word} is {pattern}, and {where} has no such parquet file: {some(names)}.")
        called = {split_of(name) for name in fitting}
        split = called.pop() if len(called) == 1 else word
        named[word] = word if split in splits else split
        splits[named[word]] = fitting
    return Tables(splits, named.get("train"), named.get("val"))


def split_of(name: str) -> str:
    """The split that a file is of, by its path."""
    path = PurePosixPath(name)
    split = re.sub(r"-\d+-of-\d+(-[0-9a-f]{16})?$", "", path.stem)  # older ones end in a hash
    if split.isdigit():
        split = path.parent.name
    return "train" if split == "all" else split  # a word that the library keeps for itself


def recognizes_address(address: str, options: Mapping[str, Any]) -> bool:
    """Whether parquet files, and neither a pack nor tars, are at an address. Raises DataError where nobody can say."""
    if address.endswith(ENDING):
        return True
    given = [pattern for pattern in (options.get("train"), options.get("val")) if pattern is not None]
    if given:
        return str(given[0]).endswith(ENDING)
    timeout = options.get("timeout")
    files = Files(address, timeout if isinstance(timeout, int | float) and 0 < timeout < float("inf") else TIMEOUT)
    if files.read_or_none(DESCRIPTION, 1) is not None:
        return False
    try:
        found = files.listed(ENDING, ".tar")
    except CounterpoiseError:  # said by who reads it
        return False
    return bool(found) and all(name.endswith(ENDING) for name in found)


def _as_called(names: Sequence[str], where: str) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for name in names:
        splits.setdefault(split_of(name), []).append(name)
    for split, found in splits.items():
        folders = list(dict.fromkeys(str(PurePosixPath(name).parent) for name in found))
        if len(folders) > 1:
            raise DataError(
                f"{where} has files of split '{split}' in several folders ({some(folders)}), which may be several data "
                f"sets: say which are meant, --data.options.train '{folders[0]}/*{ENDING}', and --data.options.val."
            )
    return splits
