"""A folder of bounded size for parts of shards that lie elsewhere; any number of processes share it.

Each block of a shard that was fetched is a file, which gets its name when it is whole: what a killed process leaves is
no block. What a crash of the machine leaves is found by its size, or by the checksum of the image.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from counterpoise.data.packs.claims import Claims
from counterpoise.data.packs.format import Shard

BLOCK = 2**18
"""Bytes that are fetched and kept together."""
FULLEST = 7 / 8
"""How much of its limit is in use where room was made."""
_FULL = 15 / 16
"""How much of its limit is in use where room is made for what nobody has planned."""
_LOOK = 64
"""The folder is measured whenever this part of its limit was written."""
_TOUCH = 60.0
"""Seconds after which a block that is read counts as used again."""
_LEFT = 600.0
"""Seconds after which a block that is still being written is what a killed process left."""
_BLOCKS = "blocks"


class Kept(NamedTuple):
    """A block in the cache.

    Attributes:
        path: of its file.
        bytes: that it takes.
        used: when it was last read, in ns.
    """

    path: str
    bytes: int
    used: int


Rank = Callable[[list[Kept]], list[Kept]]
"""Sorts blocks: what goes first comes first."""


class Cache:
    """Blocks of shards, in a folder of one pack below `root`.

    Args:
        root: the limit is for all of it.
        pack: what tells this pack from others.
        limit: bytes; blocks that were used longest ago go first, where nobody knows which are read next.

    Attributes:
        claims: which blocks are being fetched, and by whom.
        planned: whether some process makes room by the order in which they are read, so that others do at the limit
            alone.
    """

    def __init__(self, root: Path, pack: str, limit: int) -> None:
        self.root, self.folder, self.limit = root, root / pack, limit
        self.claims = Claims(self.folder / ".claims")
        self.planned = False
        self._written = 0

    def missing(self, shard: Shard, blocks: Iterable[int]) -> list[int]:
        """Which of these blocks are not there."""
        folder, found = self.folder_of(shard), []
        for block in blocks:
            try:
                if os.stat(f"{folder}/{block}").st_size == size_of(shard, block):  # noqa: PTH116 - for many
                    continue
            except OSError:
                pass
            found.append(block)
        return found

    def read(self, shard: Shard, offset: int, length: int) -> bytes:
        """Bytes of blocks that are there; fewer where they are not."""
        folder, pieces = self.folder_of(shard), []
        for block in blocks_of(offset, length):
            begin, end = max(offset - block * BLOCK, 0), min(offset + length - block * BLOCK, size_of(shard, block))
            piece = _read(f"{folder}/{block}", begin, end - begin)
            pieces.append(piece)
            if len(piece) < end - begin:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, shard: Shard, block: int, content: bytes) -> None:
        """Keep a block. Raises OSError."""
        folder = self.folder_of(shard)
        path = f"{folder}/.{block}.{os.getpid()}.{threading.get_ident()}"
        try:
            handle = os.open(path, _NEW, 0o666)
        except FileNotFoundError:
            Path(folder).mkdir(parents=True, exist_ok=True)
            handle = os.open(path, _NEW, 0o666)
        try:
            with open(handle, "wb", buffering=0) as file:  # noqa: PTH123 - of a handle
                file.write(content)
            os.replace(path, f"{folder}/{block}")  # noqa: PTH105
        except OSError:
            remove(path)
            if self.missing(shard, [block]):  # else another process has it open, which Windows does not replace
                raise
        self._written += len(content)
        if self._written * _LOOK > self.limit:
            self._written = 0
            self.make_room()

    def forget(self, shard: Shard, blocks: Iterable[int]) -> None:
        """Have blocks fetched again."""
        for block in blocks:
            remove(f"{self.folder_of(shard)}/{block}")

    def make_room(self, most: float | None = None, rank: Rank | None = None) -> list[Kept] | None:
        """Remove blocks until `FULLEST` of the limit is taken, where more than `most` is.

        Args:
            most: bytes; None: the limit, or a little less where nothing is planned.
            rank: which go first; those that were used longest ago where it is not given.

        Returns:
            What is there now; None where another process is at it.
        """
        room = self.limit * FULLEST
        if most is None:
            most = self.limit * (1 if self.planned else _FULL)
        try:
            with FileLock(self.root / ".lock", timeout=0):
                found = list(self.kept())
                total = sum(each.bytes for each in found)
                if total <= most:
                    return found
                going = iter(sorted(found, key=lambda each: each.used) if rank is None else rank(found))
                gone: set[str] = set()
                while total > room and (each := next(going, None)) is not None:
                    remove(each.path)
                    gone.add(each.path)
                    total -= each.bytes
                return [each for each in found if each.path not in gone]
        except (Timeout, OSError):  # another process is at it
            return None

    def kept(self) -> Iterator[Kept]:
        """All blocks below `root`, of all packs. What killed processes left is removed."""
        old = time.time() - _LEFT
        for shard in _folders(self.root / pack / _BLOCKS for pack in _names(self.root)):
            with contextlib.suppress(OSError), os.scandir(shard) as found:
                for each in found:
                    with contextlib.suppress(OSError):
                        info = each.stat(follow_symlinks=False)
                        if each.name.startswith("."):  # it is being written, and has no name yet
                            if info.st_mtime < old:
                                remove(each.path)
                            continue
                        yield Kept(each.path, _taken(info), info.st_mtime_ns)

    def folder_of(self, shard: Shard) -> str:
        """Where the blocks of a shard lie."""
        # Of a hash, since others' names may be of any length.
        return f"{self.folder}/{_BLOCKS}/{hashed(shard.name)}"


_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)


def blocks_of(offset: int, length: int) -> range:
    """The blocks that hold these bytes; one at least."""
    return range(offset // BLOCK, max(offset // BLOCK + 1, -(-(offset + length) // BLOCK)))


def size_of(shard: Shard, block: int) -> int:
    """Bytes of a block, which is shorter at the end of a shard."""
    return min(BLOCK, shard.bytes - block * BLOCK)


def hashed(name: str) -> str:
    """16 characters for a name of any length."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def remove(path: str) -> None:
    """Remove a file that may have gone already."""
    with contextlib.suppress(OSError):
        os.unlink(path)  # noqa: PTH108 - of many


def _read(path: str, offset: int, length: int) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            file.seek(offset)
            found = file.read(length)
            if time.time() - os.fstat(file.fileno()).st_mtime >= _TOUCH:
                os.utime(path)
            return found
    except OSError:
        return b""


def _taken(info: os.stat_result) -> int:
    return int(getattr(info, "st_blocks", -(-info.st_size // 512)) * 512)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names alone
    except OSError:
        return []


def _folders(above: Iterable[Path]) -> Iterator[str]:
    for folder in above:
        for name in _names(folder):
            yield f"{folder}/{name}"
