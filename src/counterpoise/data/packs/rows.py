"""What the index has of the samples of one shard, kept beside it until the rows of all shards are put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterpoise.data.packs import format as layout
from counterpoise.errors import DataError, damage
from counterpoise.system.documents import parse_json
from counterpoise.system.files import make_folder, replacing


class Rows:
    """The rows of the samples of a shard, in order."""

    def __init__(self) -> None:
        self._labels: list[int] = []
        self._records: dict[str, list[tuple[int, ...]]] = {}
        self._names: dict[str, bytearray] = {}

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self._labels)

    def add(self, label: int) -> None:
        """Begin a sample."""
        self._labels.append(label)

    def file(
        self, table: str, name: bytes, offset: int, length: int | None, checksum: int, extent: tuple[int, int]
    ) -> None:
        """Say where a file of it lies, of length None where there is none; table: images or masks."""
        names = self._names.setdefault(table, bytearray())
        names += name + f" {length}\0".encode()
        self._records.setdefault(table, []).append((offset, len(names), length or 0, checksum, *extent))

    @property
    def uneven(self) -> bool:
        """Whether some samples have masks and others do not."""
        return len({len(rows) for rows in self._records.values()}) > 1

    def write(self, folder: Path, shard: layout.Shard, **further: NDArray[Any]) -> None:
        """Keep them on disk, whole: the shard counts as done from then on."""
        arrays: dict[str, Any] = {"labels": np.array(self._labels, dtype=np.int64), **further}
        for table, rows in self._records.items():
            arrays[table] = np.array(rows, dtype=layout.RECORD)
            arrays[f"{table}.names"] = np.frombuffer(bytes(self._names[table]), dtype=np.uint8)
        arrays["shard"] = np.frombuffer(shard.model_dump_json().encode(), dtype=np.uint8)
        with replacing(_path(folder, shard.name)) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)


def rows_of(folder: Path, shard: str, name: str) -> Any:
    """The array that was written for a shard under a name; None where there is none. Raises DataError."""
    path = _path(folder, shard)
    try:
        with np.load(path, allow_pickle=False) as found:
            return found.get(name)
    except Exception as error:  # whatever zip files and arrays may be damaged by
        raise DataError(f"{path} is damaged: {damage(error)}. Remove it: it is made anew.") from None


def texts_of(folder: Path, shard: str) -> list[str]:
    """The labels of a shard in words, by their numbers. Raises DataError."""
    try:
        held = rows_of(folder, shard, "texts")
        found = None if held is None else parse_json(held.tobytes())
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise DataError(f"{_path(folder, shard)} is damaged: it holds no labels. Remove it: it is made anew.")
    return found


def read_done(folder: Path, shard: str) -> layout.Shard | None:
    """A shard whose rows are there, whole."""
    if not _path(folder, shard).exists():
        return None
    try:
        held = rows_of(folder, shard, "shard")
        return None if held is None else layout.Shard.model_validate_json(held.tobytes())
    except (DataError, ValueError):  # not whole
        return None


def merge(
    folder: Path,
    file: str,
    shards: Sequence[layout.Shard],
    masked: bool,
    relabeled: Callable[[str, NDArray[np.int64]], NDArray[np.int64]] = lambda shard, labels: labels,
) -> dict[str, layout.File]:
    """Put the rows of all shards of a part together: the index files of that part.

    Args:
        file: how their names begin.
        relabeled: makes the labels of a shard, by its name, those of the whole.
    """
    count = sum(shard.samples for shard in shards)
    index = folder / layout.INDEX
    make_folder(index)
    found = {}
    for name in layout.index_files(file, masked):
        key = name.removeprefix(f"{file}.").removesuffix(".npy")
        with replacing(index / name) as temporary, temporary.open("wb") as written:
            end = 0
            for number, shard in enumerate(shards):
                piece = rows_of(folder, shard.name, key)
                if piece is None:
                    raise DataError(f"{_path(folder, shard.name)} holds no {key}. Remove it: it is made anew.")
                if name.endswith(".npy") and number == 0:
                    header = {"descr": np.lib.format.dtype_to_descr(piece.dtype), "fortran_order": False}
                    np.lib.format.write_array_header_1_0(written, {**header, "shape": (count,)})
                if key == "labels":
                    piece = relabeled(shard.name, piece)
                if piece.dtype == layout.RECORD:
                    piece["name_end"] += np.uint64(end)
                    end = int(piece["name_end"][-1])
                written.write(piece.tobytes())
        path = index / name
        found[name] = layout.File(bytes=path.stat().st_size, checksum=layout.file_checksum(path))
    return found


def tidy(folder: Path) -> None:
    """Remove the rows of single shards, which are together now, and what a crash has left."""
    for pattern in (".*.rows.npz", ".*.partial", f"{layout.INDEX}/.*.partial"):
        for done in folder.glob(pattern):
            done.unlink(missing_ok=True)


def _path(folder: Path, shard: str) -> Path:
    return folder / f".{shard.replace('/', '__')}.rows.npz"
