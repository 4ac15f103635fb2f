"""Tables that people keep (CSV, TSV, Parquet, JSON lines) as columns by name. What a column means is not known here."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from counterpoise.data.class_names import NANS, plain_text
from counterpoise.errors import ConfigError, DataError, MissingExtraError, damage, nearest
from counterpoise.system import documents
from counterpoise.system.files import regular

TABLE_BYTES = 2**31
MOST_ROWS = 50_000_000
_WHOLE = re.compile(r"([-+]?[0-9]{1,18})(\.0*)?")
_NO_TEXT = (list, dict, tuple, bytes)
_FIRST = 200
_HEAD = 2**17  # bytes that tell what a table is
_LINE = 2**24
_FIELD = 2**27  # letters of one field: masks as lengths of runs are long
_AT_ONCE = 256  # rows: few lists at a time leave the garbage collector alone
_TEXT = (".csv", ".tsv", ".txt")
_LINES = (".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")
ENDINGS = (".csv", ".tsv", *_LINES, *_PARQUET)
"""Of files that are taken for tables by their names."""


class Table:
    """Rows as columns.

    Attributes:
        path: the file.
        names: of the columns, in order.
        rows: how many there are.
        notes: how it was read, where that could be done in two ways.
    """

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        rows: int,
        read: Callable[[str], list[Any]],
        first: Callable[[str], list[Any]] | None = None,
    ) -> None:
        self.path, self.names, self.rows, self._read = path, tuple(names), rows, read
        self._first = first or (lambda name: read(name)[:_FIRST])
        self.notes: list[str] = []
        self._text: dict[str, list[str]] = {}

    def require(self, name: str, option: str) -> str:
        """The name of a column that was asked for by an option. Raises ConfigError where there is none of it."""
        if not name or name not in self.names:
            raise ConfigError(
                f"{option}: {self.path} has no column '{name}'.{nearest(name, self.names)} It has: "
                f"{listed(self.names)}."
            )
        return name

    def values(self, name: str) -> list[Any]:
        """What a column holds, as the file has it: text of CSV; else numbers and lists, too, and None where missing."""
        return list(self._read(name))

    def first(self, name: str) -> list[str]:
        """What the first rows of a column hold, as text, where they hold something; nothing where that is no text."""
        found = [value for value in self._first(name) if value is not None]
        return [] if any(isinstance(value, _NO_TEXT) for value in found) else [t for t in map(plain_text, found) if t]

    def text(self, name: str) -> list[str]:
        """A column as text without spaces around it; "" where a row has nothing, or NaN.

        Numbers that are all whole, such as 3.0 as programs write whole numbers beside missing ones, are 3. Raises
        DataError where a value is a list or the like.
        """
        if name not in self._text:
            values = self._read(name)
            if set(map(type, values)) == {str}:  # of CSV: a million values take a tenth of the time
                values = list(map(str.strip, values))
                distinct = set(values)
                plain = dict.fromkeys(distinct & NANS, "")
            else:
                distinct = self._distinct(name, values)
                plain = {value: plain_text(value) for value in distinct}
            plain |= self._whole(name, [plain.get(value, value) for value in distinct], distinct)
            self._text[name] = [plain.get(value, value) for value in values] if plain else values
        return self._text[name]

    def numbers(self, name: str) -> list[float]:
        """A column as numbers; NaN where a row has nothing. Raises DataError where a value is no number."""
        text = self.text(name)
        known: dict[str, float] = {"": math.nan, "True": 1.0, "False": 0.0, "true": 1.0, "false": 0.0}
        for value in set(text) - known.keys():
            try:
                known[value] = float(value)
            except ValueError:
                row = text.index(value) + 1
                raise DataError(
                    f"Column '{name}' of {self.path} holds '{value[:40]}' in row {row}; expected numbers."
                ) from None
        return [known[value] for value in text]

    def _distinct(self, name: str, values: Sequence[Any]) -> set[Any]:
        """The values that occur. Raises DataError where one is neither text nor number."""
        try:
            distinct = set(values)
            strange = any(isinstance(value, _NO_TEXT) for value in distinct)
        except TypeError:  # a list has no hash
            strange = True
        if strange:
            odd = next(value for value in values if isinstance(value, _NO_TEXT))
            raise DataError(
                f"Column '{name}' of {self.path} holds {type(odd).__name__}s, such as {str(odd)[:40]!r}; expected text "
                "or numbers."
            )
        return distinct

    def _whole(self, name: str, texts: Sequence[str], values: Iterable[Any]) -> dict[Any, str]:
        """How values are spelled of which all are whole numbers, and some have a point; nothing where it is not so."""
        pointed = next((text for text in texts if "." in text), None)
        if pointed is None or not all(_WHOLE.fullmatch(text) for text in texts if text):
            return {}
        self.notes.append(f"column '{name}' holds whole numbers with a point, such as {pointed}: read without it")
        return {value: text.partition(".")[0] for value, text in zip(values, texts, strict=True)}


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name."""
    return path.name.lower().endswith(ENDINGS)


def read_table(path: Path, columns: Sequence[str] | None = None, encoding: str = "utf-8") -> Table:
    """The table in a file.

    Args:
        columns: names of the columns of a file that has none in its first line.
        encoding: of CSV and TSV.

    Raises:
        DataError: it cannot be read, has no columns, no rows, or rows of another length than its first.
        ConfigError: there is no such encoding.
    """
    ending = path.suffix.lower()
    try:
        regular(path, limit=TABLE_BYTES)
        if ending in _PARQUET:
            return _parquet(path)
        if ending in _LINES:
            return _json_lines(path)
        if ending in _TEXT:
            return _separated(path, columns, encoding)
    except OSError as error:
        why = documents.why_unread(error)
        raise DataError(f"Table {path} cannot be read: {why}.") from None
    raise DataError(f"{path} is no table that is known here: expected {', '.join(ENDINGS)}.")


def read_head(path: Path) -> Table:
    """The first rows of a table, to see what it is. Raises as `read_table`, and where the first row is very long."""
    ending = path.suffix.lower()
    regular(path, limit=TABLE_BYTES)
    if ending in _PARQUET:
        return _parquet(path)
    with path.open("rb") as file:
        content = file.read(_HEAD)
    if len(content) == _HEAD:
        content = content[: content.rfind(b"\n") + 1]
    return _json_lines(path, content) if ending in _LINES else _separated(path, None, "utf-8", content)


def names_of(path: Path) -> list[str]:
    """The names of the columns, by the first line alone. Raises as `read_table`."""
    ending = path.suffix.lower()
    regular(path, limit=TABLE_BYTES)
    if ending in _PARQUET:
        return list(_parquet(path).names)
    with path.open("rb") as file:
        line = file.readline(_LINE)
        if ending in _LINES:
            return list(_json_lines(path, line).names)
        text = _decoded(path, "utf-8", line).rstrip("\r\n")
        if (told := _TOLD.fullmatch(text)) is not None:
            text = _decoded(path, "utf-8", file.readline(_LINE)).rstrip("\r\n")
    separator = told[1] if told is not None else _separator(path, text)[0]
    try:
        return [name.strip() for name in next(csv.reader([text], delimiter=separator), [])]
    except csv.Error as error:
        raise DataError(f"{path}, line 1: {error}.") from None


def _separated(path: Path, columns: Sequence[str] | None, encoding: str, content: bytes | None = None) -> Table:
    text = _decoded(path, encoding, path.read_bytes() if content is None else content)
    first, _, rest = text.partition("\n")
    told = _TOLD.fullmatch(first)
    if told is not None:
        text = rest
    separator, note = (told[1], "") if told is not None else _separator(path, first)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names, held = [name.strip() for name in columns or ()], 0
    found: list[list[str]] = []
    usual = csv.field_size_limit(_FIELD)
    try:
        if columns is None:
            names = [name.strip() for name in next(reader, [])]
            _refuse_data_as_names(path, names)
        found = [[] for _ in names]
        while rows := list(itertools.islice(reader, _AT_ONCE)):
            if any(len(row) != len(names) for row in rows):
                rows = _even(path, rows, len(names), held + 1 + (columns is None))
            for column, values in zip(found, zip(*rows, strict=True), strict=False):
                column += values
            held += len(rows)
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}. A quote that is opened must be closed, too."
        ) from None
    finally:
        csv.field_size_limit(usual)
    by_name = dict(zip(_distinct(path, names), found, strict=True))
    table = Table(path, names, held, lambda name: by_name.get(name, []))
    table.notes += [note] if note else []
    return _checked(table)


def _even(path: Path, rows: list[list[str]], width: int, first: int) -> list[list[str]]:
    """Rows without the empty lines among them. Raises DataError for one of another length."""
    for number, row in enumerate(rows, first):
        if row and len(row) != width:
            raise DataError(
                f"{path}, row {number} has {len(row)} fields and the first {width}: {', '.join(row)[:80]!r}. A field "
                "that holds the separator stands in quotes."
            )
    return [row for row in rows if row]


def _decoded(path: Path, encoding: str, content: bytes) -> str:
    """The text of a file; a mark at its beginning says more than the encoding that was given."""
    try:
        " ".encode(encoding)  # base64 and the like are codecs, and not of text
    except (LookupError, ValueError):
        raise ConfigError(
            f"data.options.encoding: there is no encoding '{encoding}'; usual are utf-8, cp1252."
        ) from None
    marked = next(
        (name for mark, name in ((codecs.BOM_UTF8, "utf-8-sig"), *_MARKS_16) if content.startswith(mark)), encoding
    )
    try:
        return content.decode(marked)
    except UnicodeError as error:
        at = error.start if isinstance(error, UnicodeDecodeError) else 0
        line = content.count(b"\n", 0, at) + 1
        raise DataError(
            f"{path}, line {line} is no {marked}: {content[at : at + 4]!r}. Save it as UTF-8, or say what it is: "
            "--data.options.encoding cp1252 is usual where Excel wrote it."
        ) from None


_TOLD = re.compile(r"sep=([,;|\t])\r?")
"""A first line that tells Excel what stands between fields."""
_MARKS_16 = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def _separator(path: Path, first: str) -> tuple[str, str]:
    """What stands between fields, by the ending and the first line; a note where it is not as the ending says."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    if usual in first:
        return usual, ""
    for other, name in ((";", "semicolons"), ("\t", "tabs"), (",", "commas")):
        if other in first:
            return other, f"{path.name} has {name} between its fields"
    return usual, ""


def _refuse_data_as_names(path: Path, names: Sequence[str]) -> None:
    from counterpoise.data.walking import is_image

    found = next((name for name in names if is_image(name)), None)
    if found is not None:
        raise DataError(
            f"The first line of {path} holds no names of columns but a picture, '{found}'. Say what its {len(names)} "
            "columns are: --data.options.columns '[image, label]'."
        )


def _json_lines(path: Path, content: bytes | None = None) -> Table:
    rows: list[dict[str, Any]] = []
    opened = path.open("rb") if content is None else io.BytesIO(content)
    with io.TextIOWrapper(opened, encoding="utf-8-sig", errors="strict") as file:
        number = 0
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = documents.parse_json(line)
                    if not isinstance(row, dict):
                        raise DataError(f"{path}, line {number} is no object in braces, {{...}}, but {line[:40]!r}.")
                    rows.append(row)
        except ValueError as error:
            line_number = number + isinstance(error, UnicodeError)
            raise DataError(f"{path}, line {line_number} is no JSON: {damage(error)}.") from None
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _checked(Table(path, names, len(rows), lambda name: [row.get(name) for row in rows]))


def _parquet(path: Path) -> Table:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("Reading a Parquet table", "hf") from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names, rows = list(file.schema_arrow.names), file.metadata.num_rows
    except Exception as error:  # damaged in any way
        raise DataError(f"Table {path} cannot be read: {damage(error)}.") from None
    if rows > MOST_ROWS:
        raise DataError(f"Table {path} says that it has {rows:,} rows; up to {MOST_ROWS:,} are read.")

    def read(name: str, count: int | None = None) -> list[Any]:
        try:
            if count is None:
                found: list[Any] = file.read(columns=[name]).column(0).to_pylist()
            else:
                found = next(file.iter_batches(count, columns=[name])).column(0).to_pylist()
        except Exception as error:  # as above
            raise DataError(f"Column '{name}' of {path} cannot be read: {damage(error)}.") from None
        return found

    return _checked(Table(path, _distinct(path, names), rows, read, lambda name: read(name, _FIRST)))


def _distinct(path: Path, names: Sequence[str]) -> Sequence[str]:
    seen: set[str] = set()
    for name in names:
        if name and name in seen:
            raise DataError(f"{path} has two columns '{name}': rename one.")
        seen.add(name)
    return names


def _checked(table: Table) -> Table:
    if not table.names:
        raise DataError(f"{table.path} is empty: expected a line of column names, and a line for each picture.")
    if not table.rows:
        raise DataError(f"{table.path} has columns ({listed(table.names)}) and no rows.")
    return table


def listed(names: Iterable[str]) -> str:
    """Names of columns as messages have them."""
    names = [name[:40] or "(without a name)" for name in names]
    return ", ".join(names[:30]) + (f", ... ({len(names)} in all)" if len(names) > 30 else "")
