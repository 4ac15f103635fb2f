"""YAML and JSON that others wrote: read where they are of a size, a depth and an expansion in reason."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from counterpoise.errors import DocumentError, UnfitFileError
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
_STREAM = re.compile(r"/dev/(fd/\d+|stdin)")  # a shell's <(...), which the user typed


def read_text(path: Path, *, within: Path | None = None, limit: int = RUN_FILE_BYTES, errors: str = "strict") -> str:
    """The text of a regular file of at most `limit` bytes, inside the folder `within`. Raises OSError, ValueError.

    errors: as for bytes.decode: what becomes of bytes that are no UTF-8.
    """
    if _STREAM.fullmatch(str(path)) is None:
        regular(path, within=within, limit=limit)
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UnfitFileError(path, f"is larger than {limit:,} bytes")
    return content.decode("utf-8", errors)


def read_lines(path: Path) -> list[str]:
    """The lines of a list in UTF-8, empty ones at its end left out. Raises OSError, UnicodeDecodeError."""
    return read_text(path, limit=LIST_BYTES).removeprefix("\ufeff").rstrip().splitlines()


def why_no_text(error: OSError | UnicodeDecodeError) -> str:
    """Why `read_lines` did not read a file."""
    if isinstance(error, UnfitFileError):
        return f"it {error.strerror}"
    return (isinstance(error, OSError) and error.strerror) or "it is not text"


def read_yaml(path: Path, *, within: Path | None = None, limit: int = RUN_FILE_BYTES) -> Any:
    """The values of a YAML file. Raises OSError, or ValueError for what is no such text."""
    return parse_yaml(read_text(path, within=within, limit=limit))


def read_json(path: Path, *, within: Path | None = None, limit: int = JSON_BYTES) -> Any:
    """The values of a JSON file. Raises OSError, or ValueError for what is no such text."""
    return parse_json(read_text(path, within=within, limit=limit))


def parse_yaml(text: str) -> Any:
    """The values of a YAML text. Raises DocumentError where it is none, or is too deep or too large as it expands.

    YAML 1.1, in which 1e-3 is text, as a class may be called; keys that are numbers take it as one.
    """
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where libyaml is there
    try:
        _check(text, loader)
        return yaml.load(text, loader)
    except DocumentError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        raise DocumentError(" ".join(str(error).split())) from None


def parse_json(text: str | bytes) -> Any:
    """The values of a JSON text. Raises DocumentError where it is none, or is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise DocumentError("it is nested too deeply") from None
    except ValueError as error:
        raise DocumentError(str(error)) from None


def _check(text: str, loader: Any) -> None:
    """Count what the text expands to, without expanding it."""
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = [(None, 0)]

    def add(count: int) -> None:
        anchor, sum_ = open_[-1]
        open_[-1] = anchor, sum_ + count
        if sum_ + count > VALUES:
            raise DocumentError(f"it holds more than {VALUES:,} values, references counted as often as they are used")

    for event in yaml.parse(text, loader):
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, 1))
            if len(open_) > DEPTH:
                raise DocumentError(f"it is nested more than {DEPTH - 1} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, count = open_.pop()
            if anchor is not None:
                sizes[anchor] = count
            add(count)
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise DocumentError(f"*{event.anchor} refers to something that is not whole before it")
            add(sizes[event.anchor])
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor is not None:
                sizes[event.anchor] = 1
            add(1)
