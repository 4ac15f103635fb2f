"""Stores at an address that fsspec knows: the index is read at once, a chunk when it is needed, and kept."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from counterpoise.errors import StoreError
from counterpoise.system import addresses
from counterpoise.system.files import sha256_of
from counterpoise.teachers.store.format import CHUNKS, INDEX, INDEX_BYTES, RECORDING, Chunk, parse

ATTEMPTS = 3
_BLOCK = 2**20


def is_address(address: str | os.PathLike[str]) -> bool:
    """Whether it is such as s3://bucket/store, and not a path."""
    return isinstance(address, str) and "://" in address


# fsspec's own file caches download straight to a file's last name, so that simplecache takes half a download for whole,
# and two processes write into one another; and a file may be of any size.
class Cache:
    """The chunks of one remote store, in a folder of their own below `root`.

    The folder's name is a hash of the index, checksums included: a store that has changed gets another one, and the
    same store at two addresses shares one.

    Attributes:
        index: of the store.
        folder: of its chunks.

    Raises:
        StoreError: the address cannot be read or holds no finished store.
        MissingExtraError: a package that this kind of address needs is missing.
    """

    def __init__(self, address: str, root: Path | None = None) -> None:
        self.address = address.rstrip("/")
        self._connect()
        try:
            text = b"".join(self._blocks(INDEX, INDEX_BYTES))
        except StoreError:
            raise
        except Exception as error:
            if self._exists(RECORDING):
                raise StoreError(f"The recording at {self.address} is not finished.") from None
            raise StoreError(f"{self.address}/{INDEX} cannot be read: {addresses.why(error)}.") from None
        self.index = parse(text.decode("utf-8", "replace"), f"{self.address}/{INDEX}")
        self.folder = (root or addresses.cache_folder("stores")) / hashlib.sha256(text).hexdigest()[:32]
        self._compared: set[str] = set()

    def _connect(self) -> None:
        self._files, self._root = addresses.connected(self.address, StoreError)

    def _blocks(self, name: str, limit: int) -> Iterator[bytes]:
        """The bytes of a file there. Raises StoreError as soon as there are more than `limit`, and takes no more."""
        streamed = {"block_size": 0} if self.address.startswith("http") else {}  # as they come, not by ranges
        left, most = limit, addresses.TIMEOUT
        with addresses.within(most, lambda: self._files.open(f"{self._root}/{name}", "rb", **streamed)) as source:
            while block := addresses.within(most, partial(source.read, min(_BLOCK, left + 1))):
                left -= len(block)
                if left < 0:
                    raise StoreError(f"{self.address}/{name} is larger than the {limit:,} bytes that it may have.")
                yield block

    def _exists(self, name: str) -> bool:
        try:
            return bool(addresses.within(addresses.TIMEOUT, lambda: self._files.exists(f"{self._root}/{name}")))
        except Exception:  # then there is nothing to be said about it
            return False

    def fetch(self, chunk: Chunk) -> Path:
        """The path of a chunk on this machine, whole and with its checksum; fetched where it is not there so.

        Raises:
            StoreError: the chunk cannot be fetched, is damaged there, or the cache cannot be written.
        """
        path = self.folder / chunk.name
        try:
            if not self._is_whole(chunk, path):
                self.folder.mkdir(parents=True, exist_ok=True)
                with FileLock(path.with_suffix(".lock")):
                    if not self._is_whole(chunk, path):  # nor has another process fetched it since
                        self._download(chunk, path)
        except OSError as error:
            raise StoreError(f"Chunk {chunk.name} of {self.address} could not be kept: {error}.") from None
        self._compared.add(chunk.name)
        return path

    def _is_whole(self, chunk: Chunk, path: Path) -> bool:
        """Whether a chunk is there as the index has it; its bytes are compared once."""
        if _size(path) != self.index.header.chunk_size(chunk):
            return False
        return chunk.name in self._compared or sha256_of(path) == self.index.checksums[chunk.name]

    def _download(self, chunk: Chunk, path: Path) -> None:
        temporary = path.with_name(f".{path.name}.partial")
        said = ""
        for attempt in range(ATTEMPTS):
            time.sleep(0.1 * attempt)
            try:
                with temporary.open("wb") as file:
                    for block in self._blocks(f"{CHUNKS}/{chunk.name}", self.index.header.chunk_size(chunk)):
                        file.write(block)
            except StoreError:
                temporary.unlink(missing_ok=True)
                raise
            except Exception as error:
                said = f"could not be fetched: {addresses.why(error)}"
                continue
            if sha256_of(temporary) == self.index.checksums[chunk.name]:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
                return
            said = "is damaged there, or on its way"
        temporary.unlink(missing_ok=True)
        raise StoreError(f"Chunk {chunk.name} of {self.address} {said}.")

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_files"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._connect()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
