"""Where the shards of a pack lie, and how bytes of them are read."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from counterpoise.data.packs.format import BLOCK, DESCRIPTION, INDEX, Pack, Part, Shard, parse
from counterpoise.errors import DataError, UnfitFileError
from counterpoise.system.documents import JSON_BYTES
from counterpoise.system.files import named, regular

_OPEN = 64
"""Shards that are held open."""


class Place(ABC):
    """A folder of shards, on this machine or elsewhere.

    Attributes:
        at_once: shards that are best read at once from beginning to end.
    """

    at_once = 1

    @abstractmethod
    def index(self, name: str) -> Path:
        """An index file on this machine. Raises DataError where it cannot be had."""

    @abstractmethod
    def check(self, part: Part) -> None:
        """Raises DataError where shards are missing or of another size, as far as that can be seen at once."""

    @abstractmethod
    def read(self, shard: Shard, offset: int, length: int) -> bytes:
        """Bytes of a shard; fewer where it ends before. Raises DataError where it cannot be read."""

    @abstractmethod
    def called(self, shard: Shard) -> str:
        """The path or address of a shard."""

    @property
    @abstractmethod
    def whole_name(self) -> str:
        """What tells this place from all others."""

    @property
    def room(self) -> float:
        """Bytes of shards that may be kept on this machine."""
        return float("inf")

    @abstractmethod
    def whole(self, shard: Shard) -> Iterator[bytes]:
        """All bytes of a shard as it lies there now, in pieces, up to a few more than it should have."""

    def again(self, shard: Shard, offset: int, length: int) -> bytes | None:
        """The same as `read` from where they lie, and not from what was kept of them; None where nothing is kept."""
        return None

    def expect(self, wanted: Iterable[tuple[Shard, int, int]]) -> None:
        """Told what is read next: shard, offset and length."""
        return


class Folder(Place):
    """Shards in a folder of this machine; for any number of threads and processes.

    Args:
        folder: of the shards.
        index: folder of the index files.
    """

    def __init__(self, folder: Path, index: Path | None = None) -> None:
        self.folder = folder
        self._index = index or folder / INDEX
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()
        self._lock = threading.Lock()

    def index(self, name: str) -> Path:
        try:
            return named(self._index, name)
        except OSError as error:
            raise DataError(f"Index file {self._index / name} cannot be read: {_why(error)}.") from None

    def check(self, part: Part) -> None:
        for shard in part.shards:
            path = self.folder / shard.name
            try:
                info = named(self.folder, shard.name).stat()
            except OSError as error:
                raise DataError(f"Shard {path} cannot be read: {_why(error)}.") from None
            if info.st_size != shard.bytes:
                what = "was cut short" if info.st_size < shard.bytes else "is another file"
                raise DataError(
                    f"Shard {path} {what}: it has {info.st_size:,} bytes, and the index speaks of {shard.bytes:,}."
                )

    def read(self, shard: Shard, offset: int, length: int) -> bytes:
        try:
            if hasattr(os, "pread"):
                return os.pread(self._file(shard).fileno(), length, offset)
            with self._lock:
                file = self._file(shard)
                file.seek(offset)
                return file.read(length)
        except OSError as error:
            raise DataError(f"Shard {self.called(shard)} cannot be read: {_why(error)}.") from None

    def called(self, shard: Shard) -> str:
        return str(self.folder / shard.name)

    @property
    def whole_name(self) -> str:
        return str(self.folder.resolve())

    def whole(self, shard: Shard) -> Iterator[bytes]:
        try:
            with named(self.folder, shard.name).open("rb") as file:
                while block := file.read(BLOCK):
                    yield block
        except OSError as error:
            raise DataError(f"Shard {self.called(shard)} cannot be read: {_why(error)}.") from None

    def _file(self, shard: Shard) -> BinaryIO:
        file = self._files.get(shard.name)
        if file is None:
            # Another thread may still read from the file that falls out: it is closed when nobody holds it.
            file = named(self.folder, shard.name).open("rb")
            self._files[shard.name] = file
            while len(self._files) > _OPEN:
                self._files.popitem(last=False)
        return file

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_index": self._index}  # another process opens its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"], state["_index"])  # type: ignore[misc]


def is_pack(folder: Path) -> bool:
    """Whether a folder holds a finished pack."""
    return (folder / DESCRIPTION).is_file()


def read_pack(folder: Path) -> Pack:
    """The pack in a folder. Raises DataError where there is none, or one of another version."""
    path = folder / DESCRIPTION
    try:
        text = regular(path, limit=JSON_BYTES).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {_why(error)}.") from None
    return parse(text, str(path))


def _why(error: OSError) -> str:
    if isinstance(error, UnfitFileError):
        return f"it {error.strerror}"
    return "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
