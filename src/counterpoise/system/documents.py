"""YAML, JSON and CSV that others wrote: read where they are of a size, a depth and an expansion in reason."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from counterpoise.errors import DocumentError, UnfitFileError, damage, shown
from counterpoise.system.files import regular

RUN_FILE_BYTES = 2**20
"""Of a run file, a compare file and the like at most."""
JSON_BYTES = 2**26
"""Of a description such as student.json or a store's index."""
LIST_BYTES = 2**28
"""Of a list of images or of classes, a line each."""
DEPTH = 64
VALUES = 100_000
"""Most values of a run file, aliases counted as often as they are referred to."""
Row = dict[str, str]
_UNHASHABLE, _NO_KEY = "found unhashable key", "found a list or a mapping as a key"
_STREAM = re.compile(r"/dev/(fd/\d+|stdin)")  # a shell's <(...), which the user typed


def read_text(path: Path, *, within: Path | None = None, limit: int = RUN_FILE_BYTES, errors: str = "strict") -> str:
    """The text of a regular file of at most `limit` bytes, inside the folder `within`.

    Raises OSError where it cannot be read, is something else, or is no text in UTF-8.

    errors: as for bytes.decode: what becomes of bytes that are no UTF-8.
    """
    stream = _STREAM.fullmatch(str(path)) is not None
    if not stream:
        regular(path, within=within, limit=limit)
    with path.open("rb") as file:
        # Python sets aside as much as it is asked for, however little there is.
        content = file.read(1 + (limit if stream else min(limit, os.fstat(file.fileno()).st_size)))
    if len(content) > limit:
        raise UnfitFileError(path, f"is larger than {limit:,} bytes")
    try:
        return content.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise UnfitFileError(path, f"is no text in UTF-8: {_undecoded(error)}") from None


def _undecoded(error: UnicodeDecodeError) -> str:
    line = error.object.count(b"\n", 0, error.start) + 1
    return f"line {line:,} holds the byte 0x{error.object[error.start]:02x} where a letter is expected"


def read_lines(path: Path) -> list[str]:
    """The lines of a list in UTF-8, empty ones at its end left out. Raises OSError."""
    return read_text(path, limit=LIST_BYTES).removeprefix("\ufeff").rstrip().splitlines()


def why_unread(error: OSError | ValueError) -> str:
    """Why a file was not read, where its path has been said."""
    if isinstance(error, UnfitFileError):
        return f"it {error.strerror}"
    return (isinstance(error, OSError) and error.strerror) or str(error)


def read_yaml(path: Path, *, within: Path | None = None, limit: int = RUN_FILE_BYTES) -> Any:
    """The values of a YAML file. Raises OSError, or ValueError for what is no such text."""
    return parse_yaml(read_text(path, within=within, limit=limit))


def read_json(path: Path, *, within: Path | None = None, limit: int = JSON_BYTES) -> Any:
    """The values of a JSON file. Raises OSError, or ValueError for what is no such text."""
    return parse_json(read_text(path, within=within, limit=limit))


def read_csv(path: Path, *, within: Path | None = None, limit: int = JSON_BYTES, rows: int | None = None) -> list[Row]:
    """The rows of a CSV file by the names of its columns, "" where one has none. Raises OSError, or ValueError for what
    is no such text."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path, within=within, limit=limit), newline=""), strict=True)
        found = list(itertools.islice(reader, rows))
    except csv.Error as error:
        raise DocumentError(f"line {reader.reader.line_num}: {error}") from None
    return [{name: value or "" for name, value in row.items() if name} for row in found]


def parse_yaml(text: str) -> Any:
    """The values of a YAML text.

    Raises DocumentError where it is none, has a key twice in one mapping, or is too deep or too large as it expands.

    YAML 1.1, in which 1e-3 is text, as a class may be called; keys that are numbers take it as one.
    """
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where libyaml is there
    try:
        _check(text, loader)
        return yaml.load(text, loader)
    except DocumentError:
        raise
    except RecursionError as error:
        raise DocumentError(damage(error)) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise DocumentError(" ".join(str(error).split()).replace(_UNHASHABLE, _NO_KEY)) from None


def parse_json(text: str | bytes) -> Any:
    """The values of a JSON text. Raises DocumentError where it is none, has a key twice, or is nested too deeply."""
    try:
        return json.loads(text, object_pairs_hook=_mapping, parse_int=_number)
    except UnicodeDecodeError as error:
        raise DocumentError(f"it is no text in UTF-8: {_undecoded(error)}") from None
    except (DocumentError, json.JSONDecodeError) as error:
        raise DocumentError(str(error)) from None
    except ValueError:
        raise DocumentError("it holds a number of hundreds of digits") from None
    except RecursionError as error:
        raise DocumentError(damage(error)) from None


def _number(digits: str) -> int:
    if len(digits) > 300:  # no float holds it, and much that reads a number takes it for one
        raise ValueError
    return int(digits)


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise DocumentError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} comes twice")
    return found


def _check(text: str, loader: Any) -> None:
    """Count what the text expands to, without expanding it, and look for keys that come twice."""
    sizes: dict[str, int] = {}
    open_: list[_Open] = [_Open(None, False)]

    def add(count: int, key: tuple[str | None, str] | None = None) -> None:
        above = open_[-1]
        above.size += count
        if above.size > VALUES:
            raise DocumentError(f"it holds more than {VALUES:,} values, references counted as often as they are used")
        above.count += 1
        if above.mapping and above.count % 2 and key is not None and key[1] != "<<":
            if key in above.keys:
                line = 1 + (event.start_mark.line if event.start_mark is not None else 0)
                raise DocumentError(f"line {line}: the key {shown(key[1])} comes twice")
            above.keys.add(key)

    for event in yaml.parse(text, loader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append(_Open(event.anchor, isinstance(event, yaml.MappingStartEvent)))
            if len(open_) > DEPTH:
                raise DocumentError(f"it is nested more than {DEPTH - 1} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = open_.pop()
            if ended.anchor is not None:
                sizes[ended.anchor] = ended.size
            add(ended.size)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise DocumentError(f"*{event.anchor} refers to something that is not whole before it")
            add(sizes[event.anchor])
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor is not None:
                sizes[event.anchor] = 1
            add(1, (event.tag, event.value))


@dataclass
class _Open:
    """A mapping or list that has begun: how many values are in it, how many with all below, and its keys."""

    anchor: str | None
    mapping: bool
    count: int = 0
    size: int = 1
    keys: set[tuple[str | None, str]] = field(default_factory=set)
