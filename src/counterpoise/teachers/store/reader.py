"""Logits by sample and view, from a store on disk, at an address, or wholly in memory."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from counterpoise.errors import StoreError
from counterpoise.system.files import expanded, sha256_of
from counterpoise.teachers.store.format import CHUNKS, Chunk, Header, Index, dump, load, present, words
from counterpoise.teachers.store.remote import Cache, is_address

MAPPED_BYTES = 128 * 2**20
"""Largest store that is mapped into memory.

Mapped pages count as this process's memory, and the system maps them up to 2 MB at a time around each record: random
records of a store of 1.6 GB soon hold all of it. Dropping pages again takes longer than positional reads, which hold
nothing: 64 records of 108 bytes take 27 us mapped, 112 us mapped and dropped at 128 MB, 66 us read.
"""

_OPEN = 256  # files at most; systems allow a process 1024, some fewer


class _File(Protocol):
    def read(self, offset: int, size: int) -> bytes | memoryview: ...

    def close(self) -> None: ...


class _Mapped:
    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def read(self, offset: int, size: int) -> memoryview:
        return self._view[offset : offset + size]

    def close(self) -> None:
        self._view = memoryview(b"")  # unmapped with the last of the records that were read from it


class _Positional:
    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._descriptor = self._file.fileno()

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def close(self) -> None:
        self._file.close()


def _within(folder: Path, chunk: Chunk) -> Path:
    return folder / chunk.name


class Recorded(ABC):
    """What stores on disk and in memory, and several read as one, have in common.

    Attributes:
        header: what was recorded.
        name: what messages call the store.
    """

    def __init__(self, header: Header, name: str) -> None:
        self.header = header
        self.name = name
        self._position = np.full(header.slots[-1] + 1, -1)
        self._position[list(header.slots)] = np.arange(len(header.slots))

    @abstractmethod
    def logits(self, indices: Tensor, slots: Tensor) -> Tensor:
        """float32 [N, *shape] of samples in views; indices and slots int64 [N] on the CPU. Raises StoreError."""

    def opened(self) -> list[Store]:
        """The stores that are read."""
        return []

    def close(self) -> None:  # noqa: B027 - there may be nothing to close
        """Let go of files, where there are some."""

    def has(self, indices: Tensor, slots: Tensor) -> Tensor:
        """bool [N]: which of these views are in the store; indices and slots int64 [N] on the CPU."""
        return torch.from_numpy(self._slot_numbers(indices.numpy(), slots.numpy()) >= 0)

    def _slot_numbers(self, indices: np.ndarray[Any, Any], slots: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Which of the recorded slots each is, -1 where it is none or there is no such sample."""
        inside = (slots >= 0) & (slots < len(self._position)) & (indices >= 0) & (indices < self.header.count)
        return np.where(inside, self._position[np.where(inside, slots, 0)], -1)

    def _require(self, indices: Tensor, slots: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        if indices.shape != slots.shape or indices.ndim != 1:
            raise StoreError(f"indices and slots must be [N] both, got {list(indices.shape)} and {list(slots.shape)}.")
        samples = indices.numpy()
        numbers = self._slot_numbers(samples, slots.numpy())
        if (numbers < 0).any():
            first = int((numbers < 0).argmax())
            raise StoreError(
                f"View {int(slots[first])} of sample {int(indices[first])} is not in store {self.name}, which holds "
                f"views {words(self.header.slots)} of samples 0-{self.header.count - 1}. {self._advice()}"
            )
        return samples, numbers

    def _advice(self) -> str:
        if self.header.kind == "epochs":
            return "Extend the store by the epochs that are missing, or let the live teacher answer them."
        return "Record the views that are missing, or let the live teacher answer them."


class Store(Recorded):
    """A finished store, read record by record; for one thread at a time, and any number of processes.

    Small ones are mapped; of larger ones only the records that are asked for are read. Decoding makes float32 of
    either, so a batch is the one copy there is.
    """

    def __init__(self, index: Index, name: str, locate: Callable[[Chunk], Path], check: bool) -> None:
        super().__init__(index.header, name)
        self._checksums = index.checksums
        self._locate = locate
        self._check = check
        self._checked: set[int] = set()
        self._files: OrderedDict[int, _File] = OrderedDict()
        mapped = index.header.bytes <= MAPPED_BYTES or not hasattr(os, "pread")
        self._kind: Callable[[Path], _File] = _Mapped if mapped else _Positional

    @classmethod
    def open(cls, address: str | os.PathLike[str], *, cache: Path | None = None) -> Store:
        """Open a folder, or an address that fsspec knows (s3://, gs://, https://, memory://).

        Each chunk is compared with its checksum when it is first read, or fetched: 0.6 s a GB.

        Args:
            cache: folder for the chunks of stores at an address; None: counterpoise/stores in the user's cache folder.

        Raises:
            StoreError: no store is there, its recording is not finished, or chunks are missing or truncated.
            MissingExtraError: a package that this kind of address needs is missing.
        """
        if is_address(address):
            remote = Cache(str(address), cache)
            return cls(remote.index, str(address), remote.fetch, check=False)  # which compares them itself
        path = expanded(Path(address))
        index = load(path)
        sizes = present(path)
        wrong = [chunk for chunk in index.header.chunks() if sizes.get(chunk.name) != index.header.chunk_size(chunk)]
        if wrong:
            first = wrong[0]
            there = sizes.get(first.name)
            what = "is missing" if there is None else f"has {there} bytes, not {index.header.chunk_size(first)}"
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise StoreError(f"Chunk {first.name} of store {path} {what}{more}. Record again to mend it.")
        return cls(index, str(path), partial(_within, path / CHUNKS), check=True)

    def opened(self) -> list[Store]:
        return [self]

    def content_hash(self) -> str:
        """SHA-256 of what the index says, and so of all records, whose checksums it has."""
        return hashlib.sha256(dump(self.header, self._checksums).encode()).hexdigest()

    def damaged(self) -> list[str]:
        """Chunks on disk that do not have their checksums; at an address they are compared as they come.

        Raises OSError where one cannot be read.
        """
        if not self._check:
            return []
        return [
            chunk.name
            for chunk in self.header.chunks()
            if sha256_of(self._locate(chunk)) != self._checksums[chunk.name]
        ]

    def logits(self, indices: Tensor, slots: Tensor) -> Tensor:
        """float32 [N, *shape] of samples in views; indices and slots int64 [N] on the CPU.

        Raises:
            StoreError: a view is not in the store; a chunk is damaged or cannot be read.
        """
        return self.header.codec.decode(self.records(indices, slots))

    def records(self, indices: Tensor, slots: Tensor) -> Tensor:
        """The same not yet decoded, uint8 [N, row_bytes]: decode it where it is needed by `header.codec`."""
        samples, numbers = self._require(indices, slots)
        size = self.header.codec.row_bytes
        parts, rows = np.divmod(samples, self.header.rows_per_chunk)
        chunks = (numbers * self.header.parts + parts).tolist()
        # One call for all: a Python loop of copies, or numpy's gather in each chunk, takes several times as long.
        records = bytearray().join(
            [self._file(chunk).read(offset, size) for chunk, offset in zip(chunks, (rows * size).tolist(), strict=True)]
        )
        if len(records) != len(samples) * size:
            raise StoreError(f"A chunk of store {self.name} was truncated while it was read.")
        return torch.frombuffer(records, dtype=torch.uint8).view(-1, size) if records else torch.empty(0, size).byte()

    def on(self, device: torch.device | str) -> Resident:
        """All of it on a device, as records: `header.bytes` large."""
        header = self.header
        whole = torch.empty(len(header.slots) * header.count, header.codec.row_bytes, dtype=torch.uint8, device=device)
        first = 0
        for number, chunk in enumerate(header.chunks()):
            data = bytearray(self._file(number).read(0, header.chunk_size(chunk)))
            rows = torch.frombuffer(data, dtype=torch.uint8).view(-1, header.codec.row_bytes)
            whole[first : first + len(rows)] = rows
            first += len(rows)
        return Resident(header, self.name, whole)

    def close(self) -> None:
        """Let go of the files; they are opened again when they are needed."""
        while self._files:
            self._files.popitem()[1].close()

    def _file(self, number: int) -> _File:
        """The open file of a chunk, by its number among all."""
        file = self._files.get(number)
        if file is not None:
            self._files.move_to_end(number)
            return file
        slot, part = divmod(number, self.header.parts)
        chunk = self.header.chunk(self.header.slots[slot], part)
        path = self._locate(chunk)
        try:
            if self._check and number not in self._checked and sha256_of(path) != self._checksums[chunk.name]:
                raise StoreError(f"Chunk {chunk.name} of store {self.name} is damaged: its bytes have changed.")
            file = self._kind(path)
        except OSError as error:
            raise StoreError(f"Chunk {chunk.name} of store {self.name} cannot be read: {error}.") from None
        self._checked.add(number)
        while len(self._files) >= _OPEN:
            self._files.popitem(last=False)[1].close()
        self._files[number] = file
        return file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": OrderedDict()}  # another process opens its own

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


class Resident(Recorded):
    """A store wholly in the memory of a device.

    Attributes:
        data: uint8 [len(slots) * count, row_bytes], slot after slot.
    """

    def __init__(self, header: Header, name: str, data: Tensor) -> None:
        super().__init__(header, name)
        self.data = data

    def logits(self, indices: Tensor, slots: Tensor) -> Tensor:
        """float32 [N, *shape] on its device; indices and slots int64 [N] on the CPU. Raises StoreError as a Store."""
        samples, numbers = self._require(indices, slots)
        rows = torch.from_numpy(numbers * self.header.count + samples).to(self.data.device, non_blocking=True)
        return self.header.codec.decode(self.data.index_select(0, rows))
