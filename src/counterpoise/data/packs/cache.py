"""A folder of bounded size for parts of shards that lie elsewhere; any number of processes share it.

Of each shard there is a sparse file with the blocks that were fetched, and a map with a byte for each block. A block is
written before it is marked. What a crash may have marked without its bytes is found by the checksum of the image.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

BLOCK = 2**18
"""Bytes that are fetched and marked together."""
FULLEST = 7 / 8
"""How much of its limit is left in use where room is made."""
_LOOK = 64
"""The folder is measured whenever this part of its limit was written."""
_TOUCH = 60.0
"""Seconds after which a shard that is read counts as used again."""


class Cache:
    """Blocks of shards, in a folder of one pack below `root`.

    Args:
        root: the limit is for all of it.
        pack: what tells this pack from others.
        limit: bytes; the shards that were used longest ago go first.
    """

    def __init__(self, root: Path, pack: str, limit: int) -> None:
        self.root, self.folder, self.limit = root, root / pack, limit
        self._written = 0
        self._touched: dict[str, float] = {}

    def has(self, shard: str, blocks: range) -> list[int]:
        """Which of these blocks are not there."""
        marks = _read(self._path(shard, "map"), blocks.start, len(blocks))
        marks += bytes(len(blocks) - len(marks))
        return [block for block, mark in zip(blocks, marks, strict=True) if not mark]

    def read(self, shard: str, offset: int, length: int) -> bytes:
        """Bytes of blocks that are there; fewer where the shard has gone meanwhile."""
        path, now = self._path(shard, "data"), time.monotonic()
        if now - self._touched.get(shard, -_TOUCH) >= _TOUCH:
            self._touched[shard] = now
            with contextlib.suppress(OSError):
                os.utime(path)
        return _read(path, offset, length)

    def write(self, shard: str, block: int, content: bytes) -> None:
        """Keep a block. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _opened(self._path(shard, "data")) as file:
            file.seek(block * BLOCK)
            file.write(content)
            _mark(self._path(shard, "map"), block, b"\1")
            if os.fstat(file.fileno()).st_nlink == 0:  # room was made meanwhile
                _mark(self._path(shard, "map"), block, b"\0")
        self._written += len(content)
        if self._written * _LOOK > self.limit:
            self._written = 0
            self._make_room()

    def forget(self, shard: str, blocks: range) -> None:
        """Have blocks fetched again."""
        with contextlib.suppress(OSError):
            _mark(self._path(shard, "map"), blocks.start, bytes(len(blocks)))

    def _make_room(self) -> None:
        """Remove the shards that were used longest ago until less than the limit is taken."""
        try:
            with FileLock(self.root / ".lock", timeout=0):
                found = []
                for path in self.root.glob("*/*.data"):
                    with contextlib.suppress(OSError):
                        info = path.stat()
                        taken = getattr(info, "st_blocks", info.st_size // 512) * 512
                        found.append((info.st_mtime_ns, taken, path))
                total = sum(taken for _, taken, _ in found)
                for _, taken, path in sorted(found):
                    if total <= self.limit * FULLEST:
                        return
                    # The map before and after: no block stays marked whose bytes are gone.
                    for gone in (path.with_suffix(".map"), path, path.with_suffix(".map")):
                        gone.unlink(missing_ok=True)
                    total -= taken
        except (Timeout, OSError):  # another process is at it
            return

    def _path(self, shard: str, kind: str) -> Path:
        # Of a hash, since others' names may be of any length.
        return self.folder / f"{hashlib.sha256(os.fsencode(shard)).hexdigest()[:16]}.{kind}"


def _read(path: Path, offset: int, length: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            return file.read(length)
    except OSError:
        return b""


def _opened(path: Path) -> BinaryIO:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    return open(handle, "wb", buffering=0)  # noqa: PTH123 - of a handle


def _mark(path: Path, first: int, marks: bytes) -> None:
    with _opened(path) as file:
        file.seek(first)
        file.write(marks)
