"""Shards at an address: read by ranges, some at once, and kept in a cache of bounded size."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from filelock import FileLock

from counterpoise.data.packs.cache import BLOCK, FULLEST, Cache, blocks_of, size_of
from counterpoise.data.packs.format import DESCRIPTION, INDEX, File, Pack, Part, Shard, file_checksum, parse
from counterpoise.data.packs.places import Place
from counterpoise.errors import DataError
from counterpoise.system.addresses import Files, cache_folder
from counterpoise.system.documents import JSON_BYTES
from counterpoise.system.files import named, reason, replacing

_AT_ONCE = 16
"""Requests of one process."""
_LONGEST = 2**23
"""Bytes of one request."""


class Ranges(Place):
    """Shards at an address, whatever their index.

    Args:
        cache: for what was fetched of them.
        index: folder of the index on this machine.

    Attributes:
        by_shard: whether a shard can be fetched as a whole alone.
    """

    at_once = 8
    by_shard = False

    def __init__(self, files: Files, cache: Cache, index: Path) -> None:
        self.files, self.cache, self._index = files, cache, index
        self._threads: tuple[int, ThreadPoolExecutor] | None = None

    def index(self, name: str) -> Path:
        try:
            return named(self._index, name)
        except OSError as error:
            raise DataError(f"Index file {self._index / name} cannot be read: {error}.") from None

    def check(self, part: Part) -> None:
        """What cannot be seen at once is seen when it is read."""

    def called(self, shard: Shard) -> str:
        return f"{self.files.address}/{shard.name}"

    @property
    def whole_name(self) -> str:
        return self.files.address

    @property
    def room(self) -> float:
        return self.cache.limit * FULLEST

    def whole(self, shard: Shard) -> Iterator[bytes]:
        for begin in range(0, shard.bytes + 1, _LONGEST):
            yield self.files.read(shard.name, begin, min(begin + _LONGEST, shard.bytes + 1))

    def read(self, shard: Shard, offset: int, length: int) -> bytes:
        found = self.cache.read(shard, offset, length)
        if len(found) == length:
            return found
        wanted = blocks_of(offset, length)
        blocks = self._had(shard, wanted)
        begin = offset - wanted.start * BLOCK
        return b"".join(blocks[block] for block in wanted)[begin : begin + length]

    def again(self, shard: Shard, offset: int, length: int) -> bytes:
        self.cache.forget(shard, blocks_of(offset, length))
        return self.read(shard, offset, length)

    def expect(self, wanted: Iterable[tuple[Shard, int, int]]) -> None:
        blocks: dict[str, set[int]] = {}
        shards: dict[str, Shard] = {}
        for shard, offset, length in wanted:
            shards[shard.name] = shard
            blocks.setdefault(shard.name, set()).update(blocks_of(offset, length))
        fetching = []
        for name, needed in blocks.items():
            missing = self.cache.missing(shards[name], sorted(needed))
            fetching += [(shards[name], range(*run)) for run in runs(missing, _LONGEST)]
        if fetching:
            list(self._pool().map(lambda each: self.fetch(*each), fetching))

    def fetch(self, shard: Shard, blocks: Iterable[int]) -> dict[int, bytes]:
        """Rising blocks, which are in the cache then; without those that are there, or that others are fetching.

        Raises DataError.
        """
        found: dict[int, bytes] = {}
        ours = self.cache.claims.take(shard.name, blocks)
        try:
            for first, end in runs(self.cache.missing(shard, ours), _LONGEST):
                found |= self._fetch(shard, first, end)
        finally:
            self.cache.claims.drop(shard.name, ours)
        return found

    def _had(self, shard: Shard, blocks: Iterable[int]) -> dict[int, bytes]:
        """Blocks, from the cache or from where they lie.

        Those that others are fetching are waited for, unless they take longer than a request may.
        """
        found: dict[int, bytes] = {}
        left, pause, waited = list(blocks), 0.001, 0.0
        while left:
            found |= self.fetch(shard, left)
            if waited > self.files.timeout:
                for first, end in runs(self.cache.missing(shard, left), _LONGEST):
                    found |= self._fetch(shard, first, end)
            for block in left:
                if block not in found:
                    content = self.cache.read(shard, block * BLOCK, size_of(shard, block))
                    if len(content) == size_of(shard, block):
                        found[block] = content
            left = [block for block in left if block not in found]
            if left:
                time.sleep(pause)
                waited += pause
                pause = min(2 * pause, 0.02)
        return found

    def _fetch(self, shard: Shard, first: int, last: int) -> dict[int, bytes]:
        """Blocks first, ..., last - 1, which are then in the cache."""
        begin, end = first * BLOCK, min(last * BLOCK, shard.bytes)
        content = self.files.read(shard.name, begin, end)
        if len(content) != end - begin:
            raise DataError(
                f"{self.called(shard)} has another length than the index speaks of: it ends at byte "
                f"{begin + len(content):,}, expected {shard.bytes:,}."
            )
        blocks = {first + at // BLOCK: content[at : at + BLOCK] for at in range(0, len(content), BLOCK)}
        for block, piece in blocks.items():
            self._write(shard, block, piece)
        return blocks

    def _write(self, shard: Shard, block: int, piece: bytes) -> None:
        """Keep a block. Raises DataError."""
        try:
            self.cache.write(shard, block, piece)
        except OSError as error:
            raise DataError(
                f"The cache {self.cache.root} cannot be written: {reason(error)}. Another folder: "
                "--data.options.cache FOLDER; a smaller one: --data.options.cache_gb."
            ) from None

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None or self._threads[0] != os.getpid():  # threads do not come along into a child
            self._threads = os.getpid(), ThreadPoolExecutor(_AT_ONCE)
        return self._threads[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_threads": None}


class Address(Ranges):
    """The shards of a pack at an address.

    Args:
        text: its pack.json.
        root: folder of the cache, for all packs.
        limit: bytes that shards may take there.

    Attributes:
        pack: what is there.

    Raises:
        DataError: that is no pack, or of another version.
    """

    def __init__(self, files: Files, text: bytes, root: Path, limit: int) -> None:
        # The same pack at two addresses is kept once; one that has changed, anew.
        cache = Cache(root, hashlib.sha256(text).hexdigest()[:32], limit)
        super().__init__(files, cache, cache.folder / INDEX)
        self.pack: Pack = parse(text, f"{files.address}/{DESCRIPTION}")
        self._sums = {name: file for part in self.pack.parts.values() for name, file in part.index.items()}

    @classmethod
    def of(cls, files: Files, root: Path | None, limit: int) -> Address | None:
        """The pack at an address; None where there is none. Raises DataError where nobody can say."""
        text = files.read_or_none(DESCRIPTION, JSON_BYTES + 1)
        if text is None:
            return None
        if len(text) > JSON_BYTES:
            raise DataError(f"{files.address}/{DESCRIPTION} is larger than {JSON_BYTES:,} bytes.")
        return cls(files, text, root or cache_folder("packs"), limit)

    def index(self, name: str) -> Path:
        path = self._index / name
        expected = self._sums.get(name)
        if expected is None:
            raise DataError(f"{self.files.address}/{DESCRIPTION} lists no index file {name}.")
        if path.is_file() and path.stat().st_size == expected.bytes:
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f".{name}.lock")):
                if not path.is_file() or path.stat().st_size != expected.bytes:
                    self._download(name, path, expected)
        except OSError as error:
            raise DataError(f"Index file {path} could not be kept: {reason(error)}.") from None
        return path

    def _download(self, name: str, path: Path, expected: File) -> None:
        with replacing(path) as temporary:
            with temporary.open("wb") as file:
                for begin in range(0, expected.bytes, _LONGEST):
                    end = min(begin + _LONGEST, expected.bytes)
                    file.write(self.files.read(f"{INDEX}/{name}", begin, end))
            if file_checksum(temporary) != expected.checksum:
                temporary.unlink()
                raise DataError(f"{self.files.address}/{INDEX}/{name} is damaged there, or on its way.")


def runs(blocks: Iterable[int], longest: int) -> Iterator[tuple[int, int]]:
    """Rising blocks as first and end of those that follow one another, none of them of more bytes than `longest`."""
    first = last = -1
    for block in blocks:
        if block == last and (last - first + 1) * BLOCK <= longest:
            last += 1
            continue
        if last > first:
            yield first, last
        first, last = block, block + 1
    if last > first:
        yield first, last
