"""Parquet files at an address as a set: their footers, and an index of all pictures, made once by one pass."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from counterpoise.data.packs import format as layout
from counterpoise.data.packs.cache import Cache
from counterpoise.data.packs.foreign import extent_of
from counterpoise.data.packs.places import is_pack, read_pack
from counterpoise.data.packs.row_groups import Remote, RowGroups, footer_path, unreadable
from counterpoise.data.packs.rows import Rows, merge, read_done, texts_of, tidy
from counterpoise.data.sources.base import UNLABELED
from counterpoise.errors import ConfigError, DataError
from counterpoise.system.addresses import Files, cache_folder
from counterpoise.system.documents import read_json
from counterpoise.system.files import replacing, write_text

_AT_ONCE = 16
COLUMN_BYTES = 2**31
"""Of what is kept of a column at most."""
Text = Callable[[Any], str | None]
"""The class that the value of a label stands for, in words; None where it is withheld."""


class Split(NamedTuple):
    """One split of a set of parquet files.

    Attributes:
        sizes: bytes of each file, by its path below the address, in their order.
        folder: for the index and the footers, in the cache.
        footers: of each file.
    """

    name: str
    files: Files
    sizes: dict[str, int]
    folder: Path
    footers: dict[str, Any]


class Wanted(NamedTuple):
    """Columns of pictures and labels, and what labels stand for.

    Attributes:
        classes: in their order, from the classes that are met.
    """

    image: str
    label: str
    text: Text
    classes: Callable[[set[str]], list[str]]


def opened(files: Files, name: str, tables: Sequence[str], cache: Path | None, asked: object) -> Split:
    """A split, with the footers of its files, which are fetched where they are not there or a file has changed.

    Args:
        cache: folder for it all; None: in that of the user.
        asked: what else tells its index from others.

    Raises:
        DataError: a file is not there, or no parquet.
    """
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        states = list(threads.map(files.size, tables))
    known = (files.address, name, list(zip(tables, states, strict=True)), asked)
    folder = (cache or cache_folder("packs")) / f"parquet-{hashlib.sha256(repr(known).encode()).hexdigest()[:24]}"
    sizes = {table: size for table, (size, _) in zip(tables, states, strict=True)}
    try:
        (folder / "footers").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made: {error.strerror}. Another one: --data.options.cache.") from None
    threads = ThreadPoolExecutor(_AT_ONCE)
    try:
        found = list(threads.map(lambda table: _footer(files, table, sizes[table], folder), tables))
    finally:
        threads.shutdown(cancel_futures=True)
    return Split(name, files, sizes, folder, dict(zip(tables, found, strict=True)))


def index(split: Split, wanted: Wanted, limit: int) -> tuple[RowGroups, layout.Pack]:
    """Where the pictures of a split lie, and their index, as that of a pack of one part.

    What one sitting has looked through, the next need not.

    Args:
        limit: bytes of the cache.

    Raises:
        DataError: a file is damaged, or holds no pictures.
        ConfigError: the cache is smaller than a row group.
    """
    cache = Cache(split.folder.parent, split.folder.name, limit)
    place = RowGroups(split.files, cache, split.folder, split.sizes, wanted.image)
    groups = _groups(split)
    sizes = [place.decoded(split.footers[group.file], group.number) for group in groups.values()]
    if sizes and max(sizes) > place.room:
        raise ConfigError(
            f"data.options.cache_gb is {limit / 1e9:g}, and a row group of {split.files.address}, which is fetched as "
            f"a whole, holds up to {max(sizes) / 1e9:.2g} GB of pictures. The cache must hold one at least, and best "
            "the row groups of a window."
        )
    place.limit(max(sizes, default=0))
    if is_pack(split.folder):
        return place, read_pack(split.folder)
    done = {name: shard for name in groups if (shard := read_done(split.folder, name)) is not None}
    if len(done) < len(groups):
        left = f"{len(groups) - len(done):,} row groups of {split.name}"
        print(f"{split.files.address}: {left} are looked through once, for an index", file=sys.stderr)
    missing = [name for name in groups if name not in done]
    keep = sum(sizes) <= place.room

    def look(name: str) -> layout.Shard:
        return _look_through(place, layout.Shard(name=name, samples=0, bytes=0), split, groups[name], wanted, keep)

    threads = ThreadPoolExecutor(place.at_once)
    try:
        done |= dict(zip(missing, threads.map(look, missing), strict=True))
    finally:
        threads.shutdown(cancel_futures=True)
    return place, _together(split, [done[name] for name in groups], wanted)


def column(split: Split, name: str) -> list[Any]:
    """The values of a column of all rows; it is read once, and kept with the index. Raises DataError."""
    import pyarrow
    from pyarrow import parquet

    def read(file: str) -> list[Any]:
        try:
            source = Remote(split.files, file, split.sizes[file])
            table = parquet.read_table(source, columns=[name], use_threads=False)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise unreadable(split.files, file, error) from None
        values: list[Any] = table.column(0).to_pylist()
        return values

    kept = split.folder / f"column-{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
    if kept.is_file():
        with contextlib.suppress(OSError, ValueError):  # damaged, it is read anew
            known: list[Any] = read_json(kept, limit=COLUMN_BYTES)
            return known
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = [value for values in threads.map(read, split.sizes) for value in values]
    write_text(kept, json.dumps(found))
    return found


class _Group(NamedTuple):
    """A row group: its number in its file, and how many rows of the split come before it."""

    file: str
    number: int
    first: int


def _footer(files: Files, name: str, size: int, folder: Path) -> Any:
    """The footer of a file, from where it is kept, or from the address."""
    import pyarrow
    from pyarrow import parquet

    path = footer_path(folder, name)
    try:
        if path.is_file():
            return parquet.read_metadata(path)
        found = parquet.read_metadata(Remote(files, name, size))
        with replacing(path) as temporary:
            found.write_metadata_file(str(temporary))
        return found
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise unreadable(files, name, error) from None


def _groups(split: Split) -> dict[str, _Group]:
    """The row groups of a split by what their shards are called, in their order, without those that have no rows."""
    found, first = {}, 0
    for name, footer in split.footers.items():
        for number in range(footer.num_row_groups):
            rows = footer.row_group(number).num_rows
            if rows:
                found[f"{name}#{number}"] = _Group(name, number, first)
            first += rows
    return found


def _look_through(
    place: RowGroups, shard: layout.Shard, split: Split, group: _Group, wanted: Wanted, keep: bool
) -> layout.Shard:
    """Note each picture of a row group, in one pass, and keep them where that is asked for."""
    rows, texts, end = Rows(), dict[str, int](), 0

    def noted() -> Iterator[bytes | None]:
        nonlocal end
        for batch in place.rows(shard, wanted.label):
            labels = batch.column(wanted.label).to_pylist()
            for picture, label in zip(place.pictures(batch), labels, strict=True):
                content = picture or b""
                name = f"{split.name} #{group.first + rows.count}".encode()
                if len(content) > layout.MOST:
                    raise DataError(f"{place.called(shard)}: {name.decode()} is larger than {layout.MOST:,} bytes.")
                length = None if picture is None else len(picture)
                rows.file("images", name, end, length, zlib.crc32(content), extent_of(content))
                text = wanted.text(label)
                rows.add(UNLABELED if text is None else texts.setdefault(text, len(texts)))
                end += len(content)
                yield picture

    with place.turn():
        if keep:
            place.keep(shard, noted(), range(0))
        else:
            for _ in noted():
                pass
    if rows.count != split.footers[group.file].row_group(group.number).num_rows:
        raise DataError(
            f"{place.called(shard)} is damaged: it holds {rows.count:,} rows, and its footer speaks of others."
        )
    shard = shard.model_copy(update={"samples": rows.count, "bytes": end})
    named = np.frombuffer(json.dumps(list(texts)).encode(), dtype=np.uint8)
    rows.write(split.folder, shard, texts=named)
    return shard


def _together(split: Split, shards: list[layout.Shard], wanted: Wanted) -> layout.Pack:
    """The index of all row groups."""
    if not sum(shard.bytes for shard in shards):
        raise DataError(f"Split '{split.name}' of {split.files.address} holds no pictures.")
    met = {shard.name: texts_of(split.folder, shard.name) for shard in shards}
    classes = wanted.classes({text for texts in met.values() for text in texts})
    numbers = {name: number for number, name in enumerate(classes)}

    def relabeled(shard: str, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        own = [numbers[text] for text in met[shard]]
        return np.array([*own, UNLABELED], dtype=np.int64)[labels]

    file = layout.stem(split.name, ())
    merged = merge(split.folder, file, shards, False, relabeled)
    part = layout.Part(file=file, shards=shards, index=merged)
    pack = layout.Pack(classes=classes, divided_as=classes, parts={split.name: part})
    layout.write(pack, split.folder)
    tidy(split.folder)
    return pack
