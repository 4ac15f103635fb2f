"""Row groups of parquet files at an address: each is a shard, which holds its pictures one behind the other.

Pictures in parquet lie compressed among others, so that none can be asked for by itself: a row group is read and
decoded as a whole, and its pictures are kept in the cache as they are.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from counterpoise.data.packs import cache as kept
from counterpoise.data.packs.cache import Cache
from counterpoise.data.packs.format import INDEX, Shard
from counterpoise.data.packs.remote import Ranges
from counterpoise.errors import CounterpoiseError, DataError, damage
from counterpoise.system.addresses import Files

_PIECE = 2**23
"""Bytes of one request, and of pictures that are decoded at once, where these are small."""
_MOST_ROWS = 64
"""That are decoded at once."""
_AT_ONCE, _MOST_AT_ONCE = 2**29, 16
"""Bytes of row groups that a process reads at once, and how many: a page may be nearly all of its row group."""
_MOST_READ = 2**31
"""Bytes that a file may want read at once."""


class Remote(io.RawIOBase):
    """A file at an address, as pyarrow reads it. Raises DataError where it ends before `size`, or cannot be read."""

    def __init__(self, files: Files, name: str, size: int) -> None:
        self._files, self._name, self._size, self._at = files, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._at + size, self._size)
        if end - self._at > _MOST_READ:
            raise DataError(f"{self._files.address}/{self._name} is damaged: it speaks of {end - self._at:,} bytes.")
        begins = range(self._at, end, _PIECE)
        content = b"".join(self._files.read(self._name, begin, min(begin + _PIECE, end)) for begin in begins)
        if len(content) < end - self._at:
            raise DataError(
                f"{self._files.address}/{self._name} has another length than it had: it ends at byte "
                f"{self._at + len(content):,}, expected {self._size:,}."
            )
        self._at = max(self._at, end)
        return content


class RowGroups(Ranges):
    """The row groups of parquet files at an address, which are called by the file and their number there.

    Args:
        folder: of the index and of the footers on this machine.
        sizes: bytes of each file, by its name.
        image: the column of pictures.
    """

    by_shard = True

    def __init__(self, files: Files, cache: Cache, folder: Path, sizes: Mapping[str, int], image: str) -> None:
        super().__init__(files, cache, folder / INDEX)
        self._folder, self._sizes, self._image = folder, dict(sizes), image
        self._turns: tuple[int, threading.BoundedSemaphore] | None = None
        self._few = 1

    def limit(self, largest: int) -> None:
        """Read as few row groups at once as memory wants; largest: bytes of one."""
        self._few = max(1, min(_MOST_AT_ONCE, _AT_ONCE // max(1, largest)))

    def rows(self, shard: Shard, *columns: str) -> Iterator[Any]:
        """The rows of a row group as record batches of pictures and of `columns`, some at once. Raises DataError."""
        import pyarrow
        from pyarrow import parquet

        name, _, number = shard.name.rpartition("#")
        try:
            footer = parquet.read_metadata(footer_path(self._folder, name))
            source = Remote(self.files, name, self._sizes[name])
            file = parquet.ParquetFile(source, metadata=footer, pre_buffer=False, buffer_size=_PIECE)
            size = self.decoded(footer, int(number)) // max(1, footer.row_group(int(number)).num_rows)
            at_once = min(max(1, _PIECE // max(1, size)), _MOST_ROWS)
            wanted = [f"{self._image}.bytes", *columns]
            yield from file.iter_batches(at_once, [int(number)], wanted, use_threads=False)
        except CounterpoiseError:
            raise
        except (pyarrow.ArrowException, OSError, ValueError, IndexError) as error:
            raise unreadable(self.files, name, error) from None

    def turn(self) -> threading.BoundedSemaphore:
        """What is held while a row group is read, so that not too many are at once."""
        if self._turns is None or self._turns[0] != os.getpid():  # what a thread holds is not let go in a child
            self._turns = os.getpid(), threading.BoundedSemaphore(self._few)
        return self._turns[1]

    def pictures(self, batch: Any) -> list[bytes | None]:
        """The pictures of a record batch."""
        import pyarrow.compute as compute

        found: list[bytes | None] = compute.struct_field(batch.column(self._image), "bytes").to_pylist()
        return found

    def decoded(self, footer: Any, number: int) -> int:
        """Bytes of the pictures of a row group, nearly, as its footer says."""
        group = footer.row_group(number)
        columns = (group.column(index) for index in range(group.num_columns))
        return sum(each.total_uncompressed_size for each in columns if each.path_in_schema == f"{self._image}.bytes")

    def read(self, shard: Shard, offset: int, length: int) -> bytes:
        return super().read(shard, offset, length) if length else b""

    def expect(self, wanted: Iterable[tuple[Shard, int, int]]) -> None:
        needed: dict[str, tuple[Shard, set[int]]] = {}
        for shard, offset, length in wanted:
            if length:
                needed.setdefault(shard.name, (shard, set()))[1].update(kept.blocks_of(offset, length))
        fetching = [(shard, sorted(blocks)) for shard, blocks in needed.values() if self.cache.missing(shard, blocks)]
        if fetching:
            list(self._pool().map(lambda each: self.fetch(*each), fetching))

    def fetch(self, shard: Shard, blocks: Iterable[int]) -> dict[int, bytes]:
        if not self.cache.claims.take(shard.name, [0]):  # one stands for all
            return {}
        try:
            missing = self.cache.missing(shard, blocks)
            return self._fetch(shard, missing[0], missing[-1] + 1) if missing else {}
        finally:
            self.cache.claims.drop(shard.name, [0])

    def keep(self, shard: Shard, pictures: Iterable[bytes | None], blocks: range) -> tuple[int, dict[int, bytes]]:
        """Write the pictures of a row group into the cache as they come. Raises DataError.

        Returns:
            Their bytes in all; those of `blocks`.
        """
        found, held, block = dict[int, bytes](), bytearray(), 0
        for picture in pictures:
            held += picture or b""
            while len(held) >= kept.BLOCK:
                found |= self._kept(shard, block, bytes(held[: kept.BLOCK]), blocks)
                del held[: kept.BLOCK]
                block += 1
        if held:
            found |= self._kept(shard, block, bytes(held), blocks)
        return block * kept.BLOCK + len(held), found

    def _fetch(self, shard: Shard, first: int, last: int) -> dict[int, bytes]:
        """Blocks first, ..., last - 1; all of the row group is in the cache then."""
        pictures = (picture for batch in self.rows(shard) for picture in self.pictures(batch))
        with self.turn():
            total, found = self.keep(shard, pictures, range(first, last))
        if total != shard.bytes:
            raise DataError(
                f"{self.called(shard)} has another length than the index speaks of: {total:,} bytes of pictures, "
                f"expected {shard.bytes:,}."
            )
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_turns": None}

    def _kept(self, shard: Shard, block: int, piece: bytes, blocks: range) -> dict[int, bytes]:
        self._write(shard, block, piece)
        return {block: piece} if block in blocks else {}


def footer_path(folder: Path, name: str) -> Path:
    """Where the footer of a parquet file is kept."""
    return folder / "footers" / hashlib.sha256(name.encode()).hexdigest()[:16]


def unreadable(files: Files, name: str, error: Exception) -> DataError:
    """What is said of a file that is no parquet, or damaged."""
    return DataError(f"{files.address}/{name} cannot be read as parquet: {damage(error)}.")
