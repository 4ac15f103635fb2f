"""Tars that others made, found in a folder or at an address, and which of them are of which part of the data."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from counterpoise.data.packs.foreign import Layout, Tar
from counterpoise.data.split_names import word_in
from counterpoise.data.walking import is_leftover
from counterpoise.errors import ConfigError, DataError
from counterpoise.system.addresses import Files, address_of, cache_folder

_MOST_NAMES = 100_000
_AT_ONCE = 16
_DEPTHS = ("*.tar", "*/*.tar")


def tars_below(root: Path) -> list[str]:
    """The tar files in a folder and in its folders, sorted as text, by their paths from there."""
    found = (path.relative_to(root) for depth in _DEPTHS for path in root.glob(depth) if path.is_file())
    return sorted(path.as_posix() for path in found if not any(map(is_leftover, path.parts)))


def of_folder(root: Path, train: str | None, val: str | None) -> list[Tar]:
    """The tars in a folder. Raises as `in_parts`."""
    tars = []
    for name, part in in_parts(tars_below(root), train, val, str(root)):
        info = (root / name).stat()
        tars.append(Tar(name, part, info.st_size, info.st_mtime_ns))
    return tars


def of_address(files: Files, train: str | None, val: str | None) -> list[Tar]:
    """The tars at an address; it is asked for a list where no names are given. Raises as `in_parts`."""
    names = names_at(files, train, val, ".tar")
    found = in_parts(names, train, val, files.address)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        sizes = threads.map(lambda each: files.size(each[0]), found)
        return [Tar(name, part, *size) for (name, part), size in zip(found, sizes, strict=True)]


def names_at(files: Files, train: str | None, val: str | None, ending: str) -> list[str]:
    """What patterns name without a list, else the files at an address that end so. Raises DataError."""
    patterns = [pattern for pattern in (train, val) if pattern is not None]
    if patterns and not any(re.search(r"[*?\[]", pattern) for pattern in patterns):
        return [name for pattern in patterns for name in expanded(pattern)]
    return files.listed(ending)


def in_parts(names: Sequence[str], train: str | None, val: str | None, where: str) -> list[tuple[str, str]]:
    """Each tar with its part: as patterns say, or as a word in its path does.

    Raises:
        DataError: there are none, or some have no part and others do.
        ConfigError: a pattern fits none.
    """
    if not names:
        unlisted = "" if address_of(where) is None else (
            " Where its server lists no files, name them: --data.options.train 'train-{0000..0146}.tar'."
        )  # fmt: skip
        raise DataError(f"{where} holds neither a pack nor .tar files, which must not be compressed.{unlisted}")
    if train is not None or val is not None:
        found = []
        for part, pattern in (("train", train), ("val", val)):
            if pattern is None:
                continue
            wanted = expanded(pattern)
            fitting = [name for name in names if any(fnmatch.fnmatchcase(name, each) for each in wanted)]
            if not fitting:
                raise ConfigError(f"data.options.{part} is {pattern}, and {where} has no such tar: {some(names)}.")
            found += [(name, part) for name in fitting]
        return found
    parts = {name: word_in(name.removesuffix(".tar")) for name in names}
    if not any(parts.values()):
        return [(name, "train") for name in names]
    without = [name for name, part in parts.items() if not part]
    if without:
        raise DataError(
            f"{where} has tars of a part, such as {next(name for name in parts if parts[name])}, and others of none, "
            f"such as {without[0]}. Say which are which: --data.options.train PATTERN --data.options.val PATTERN."
        )
    return list(parts.items())


def expanded(pattern: str) -> list[str]:
    """The patterns that {0000..0146} and {a,b} in one stand for. Raises ConfigError where they are too many."""
    done, waiting = [], [pattern]
    while waiting:
        one = waiting.pop()
        found = re.search(r"\{(?:(\d{1,9})\.\.(\d{1,9})|([^{}]*,[^{}]*))\}", one)
        if found is None:
            done.append(one)
            continue
        if found[3] is not None:
            inner: Iterable[str] = found[3].split(",")
        else:
            first, last = int(found[1]), int(found[2])
            if last - first > _MOST_NAMES:
                raise ConfigError(f"data.options: {pattern} stands for more than {_MOST_NAMES:,} names.")
            inner = (f"{number:0{len(found[1])}d}" for number in range(first, last + 1))
        waiting += [one[: found.start()] + word + one[found.end() :] for word in inner]
        if len(waiting) + len(done) > _MOST_NAMES:
            raise ConfigError(f"data.options: {pattern} stands for more than {_MOST_NAMES:,} names.")
    return sorted(done)


def require_positive(**options: float) -> None:
    """Raises ConfigError where an option is none of the numbers above 0."""
    for name, value in options.items():
        if not 0 < value < float("inf"):
            raise ConfigError(f"data.options.{name} must be more than 0, got {value:g}.")


def index_beside(root: Path, of: Layout, tars: Sequence[Tar]) -> Path | None:
    """A folder for the index beside the tars; None where nothing can be written there."""
    folder = root / f".counterpoise-{_hash(of, [(tar.name, tar.part) for tar in tars])[:12]}"
    try:
        folder.mkdir(exist_ok=True)
        return folder if os.access(folder, os.W_OK) else None
    except OSError:
        return None


def cached_index(where: str, cache: Path | None, of: Layout, tars: Sequence[Tar], *, state: bool = False) -> Path:
    """A folder for the index in the cache; state: another one as soon as a tar has changed."""
    known: list[tuple[object, ...]] = [(tar.name, tar.part) for tar in tars]
    if state:
        known = [(tar.name, tar.part, tar.bytes, tar.changed) for tar in tars]
    folder = (cache or cache_folder("packs")) / f"tars-{_hash(where, of, known)[:24]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made: {error.strerror}. Another one: --data.options.cache.") from None
    return folder


def _hash(*known: object) -> str:
    return hashlib.sha256(repr(known).encode()).hexdigest()


def some(names: Sequence[str]) -> str:
    """The first of them, in words."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
