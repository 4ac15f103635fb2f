"""Recording, a chunk at a time: whatever kills it, it goes on at the first chunk that is not there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout
from torch import Tensor

from counterpoise.errors import RunError, StoreError, UnfitFileError
from counterpoise.system.documents import read_text
from counterpoise.system.files import expanded, held, make_folder, reason, sweep, sync_folder, write_text
from counterpoise.teachers.store.format import (
    CHUNKS,
    INDEX,
    RECORDING,
    Chunk,
    Header,
    Index,
    dump,
    load,
    local,
    present,
    unfinished,
    words,
)

LOCK = ".lock"


class StoreWriter:
    """Writes a store, or one of n parts of it; made by `create`.

    A chunk is written under a temporary name, fsynced and renamed, after its checksum; the index comes last. Parts are
    disjoint, so that several processes may share a folder, or write folders of their own that `operations.merge` joins.
    A folder with a finished store is extended by the slots that it lacks, and mended where chunks are gone; until the
    last chunk is there it can be read as it was.

    Attributes:
        path: the folder.
        header: of the store as it will be.
        part: this part and how many there are, (k, n) with 0 <= k < n.
    """

    def __init__(self, path: Path, header: Header, part: tuple[int, int], old: Index | None) -> None:
        self.path = path
        self.header = header
        self.part = part
        self._old = old
        self._lock = FileLock(path / f"{LOCK}-{part[0]}-of-{part[1]}")

    @classmethod
    def create(cls, path: Path, header: Header, part: tuple[int, int] = (0, 1)) -> StoreWriter:
        """Begin a recording, or go on with it.

        Raises:
            StoreError: the folder holds something else, another store, or an unfinished recording of other slots; the
                disk has no room; another process writes the same part.
        """
        k, n = part
        if not 0 <= k < n:
            raise StoreError(f"There is no part {k + 1} of {n}.")
        local(path)
        try:
            path = expanded(path)
            foreign = sorted(file.name for file in path.iterdir() if not _ours(file.name)) if path.exists() else []
            if foreign and not (path / INDEX).exists() and not (path / RECORDING).exists():
                raise StoreError(f"{path} holds other files ({foreign[0]}): give a store a folder of its own.")
            make_folder(path / CHUNKS)
        except OSError as error:
            raise StoreError(f"Store {path} cannot be read: {error.strerror}.") from None
        except RunError as error:
            raise StoreError(f"Store {path} cannot be made: {error}") from None
        with held(path / LOCK, raises=StoreError):
            old = load(path) if (path / INDEX).exists() else None
            begun = unfinished(path, None if old is None else old.header)
            known = old.header if old is not None else begun
            if known is not None:  # what is added lies as what is there
                header = replace(header, format=known.format, rows_per_chunk=known.rows_per_chunk)
            if old is not None:
                old.header.require(header, path, layout=True)
                notes = {**header.notes, **old.header.notes}  # more may be known of the teacher than then
                header = replace(old.header.with_slots([*old.header.slots, *header.slots]), notes=notes)
            if begun is not None:
                begun.require(header, path, layout=True)
                if begun.slots != header.slots:
                    raise StoreError(
                        f"An unfinished recording of views {words(begun.slots)} lies in {path}; finish it before "
                        f"views {words(header.slots)} are recorded."
                    )
            if known is not None:  # of an earlier version: nobody knows what files held when it was recorded
                header = header.sampled(known.sample)
            writer = cls(path, header, part, old)
            writer._begin(begun is None)
        return writer

    def _begin(self, new: bool) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(
                f"Another process records part {self.part[0] + 1} of {self.part[1]} of {self.path}."
            ) from None
        except OSError as error:
            raise StoreError(f"{self.path} could not be locked: {reason(error)}.") from error
        try:
            sweep(self.path / INDEX, self.path / RECORDING)
            for chunk in self._own():
                (self.path / CHUNKS / _temporary(chunk)).unlink(missing_ok=True)
            missing = self.missing()
            needed = sum(map(self.header.chunk_size, missing))
            free = shutil.disk_usage(self.path).free
            if needed > free:
                raise StoreError(
                    f"Recording to {self.path} needs {_size(needed)} and {_size(free)} are free. "
                    "Record in fewer bits, fewer views, or elsewhere."
                )
            if new and (missing or self._old is None):  # a part may be empty, and is merged as the others are
                self._text(self.path / RECORDING, dump(self.header))
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise StoreError(f"{self.path} could not be written: {reason(error)}.") from error
            raise

    def _own(self) -> Iterator[Chunk]:
        """The chunks of this part; old and new ones are shared out separately, so that all parts get new ones."""
        k, n = self.part
        old = self._old.header.slots if self._old else ()
        for known in (False, True):
            chunks = [chunk for chunk in self.header.chunks() if (chunk.slot in old) == known]
            yield from chunks[len(chunks) * k // n : len(chunks) * (k + 1) // n]

    def missing(self) -> list[Chunk]:
        """The chunks of this part that are still to be written."""
        known = self._checksums()
        return [chunk for chunk in self._own() if chunk.name not in known]

    def _checksums(self) -> dict[str, str]:
        return checksums(self.path, self.header, self._old.checksums if self._old else {})

    def write(self, chunk: Chunk, batches: Iterable[Tensor]) -> None:
        """Write a chunk.

        Args:
            chunk: one of `missing()`.
            batches: the logits of samples chunk.start, ..., chunk.stop - 1 in view chunk.slot, in order, in tensors
                [n, *shape] of any lengths: they are taken one at a time.

        Raises:
            StoreError: logits of another shape or number, or not finite; the disk is full. All earlier chunks stay.
        """
        self.write_records(chunk, (self.header.codec.encode(logits).numpy().reshape(-1).data for logits in batches))

    def write_records(self, chunk: Chunk, blocks: Iterable[bytes | memoryview], checksum: str | None = None) -> None:
        """Write a chunk of records as they are; raises StoreError unless they have this SHA-256, where one is given."""
        path = self.path / CHUNKS / chunk.name
        temporary = path.with_name(_temporary(chunk))
        digest, size, expected = hashlib.sha256(), 0, self.header.chunk_size(chunk)
        try:
            with self._saying(path), temporary.open("wb") as file:
                for block in _apart(blocks):
                    digest.update(block)
                    size += len(block) if isinstance(block, bytes) else block.nbytes
                    file.write(block)
                file.flush()
                os.fsync(file.fileno())
            if size != expected:
                row = self.header.codec.row_bytes
                raise StoreError(f"Chunk {chunk.name} takes {expected // row} samples, got {size // row}.")
            if checksum not in (None, digest.hexdigest()):
                raise StoreError(f"Chunk {chunk.name} is damaged: its bytes do not have the checksum it was given.")
            with self._saying(path):
                # First, so that a chunk that is there has a checksum; if power goes it may be torn, which is found.
                with path.with_suffix(".sha256").open("w", encoding="utf-8") as file:
                    file.write(digest.hexdigest() + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
                sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def finish(self) -> bool:
        """Write the index where all chunks of all parts are there, and say whether it is: else parts are missing."""
        with held(self.path / LOCK, raises=StoreError), self._saying(self.path):
            if (self.path / INDEX).exists():  # another part may have written it since
                self._old = load(self.path)
            known = self._checksums()
            whole = all(chunk.name in known for chunk in self.header.chunks())
            if whole:
                sync_folder(self.path / CHUNKS)  # the names of all chunks, before an index that lists them
                text, index = dump(self.header, known), self.path / INDEX
                if self._old is None or dump(*self._old) != text:
                    self._text(index, text)
                (self.path / RECORDING).unlink(missing_ok=True)
                for pattern in ("*.sha256", ".*.partial"):
                    for file in (self.path / CHUNKS).glob(pattern):
                        file.unlink(missing_ok=True)
            self.close()
            if whole:
                for file in self.path.glob(f"{LOCK}-*"):
                    file.unlink(missing_ok=True)
        return whole

    def close(self) -> None:
        """Let go of this part; what was written stays."""
        with contextlib.suppress(OSError):  # it is closed all the same, and so let go
            self._lock.release()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _text(self, path: Path, text: str) -> None:
        try:
            write_text(path, text)
        except RunError as error:
            raise StoreError(f"{error}{self._left()}") from None

    @contextlib.contextmanager
    def _saying(self, path: Path) -> Iterator[None]:
        try:
            yield
        except _TeacherFailed as error:
            raise error.__cause__ or error from None
        except OSError as error:
            raise StoreError(f"{path} could not be written: {reason(error)}.{self._left()}") from None

    def _left(self) -> str:
        try:
            done = len(self._checksums())
        except StoreError:  # what went wrong first is what is said
            return ""
        total = len(self.header.slots) * self.header.parts
        return f" {done} of {total} chunks are whole; make room and run the same command to go on."


class _TeacherFailed(Exception):  # noqa: N818
    """Carries an OSError of whoever computes logits past those who take it for one of the disk written to."""


def _apart(blocks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    try:
        yield from blocks
    except OSError as error:
        raise _TeacherFailed from error


def checksums(path: Path, header: Header, finished: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 of each chunk of `header` that is there whole, by name; `finished` are those of the index.

    Raises StoreError where one cannot be read, which says nothing of its chunk.
    """
    sizes = present(path)
    found = {}
    for chunk in header.chunks():
        if sizes.get(chunk.name) != header.chunk_size(chunk):
            continue
        beside = Path(chunk.name).with_suffix(".sha256").name
        value = finished.get(chunk.name, "")
        if beside in sizes:
            try:
                value = read_text(path / CHUNKS / beside, limit=1000).strip()
            except (UnfitFileError, FileNotFoundError):  # torn, so that its chunk is recorded again; or just merged
                pass
            except OSError as error:
                raise StoreError(
                    f"{path / CHUNKS / beside} cannot be read: {error.strerror}. Chunk {chunk.name} may be whole, and "
                    "is not recorded again: make the file readable, or remove it to have the chunk recorded anew."
                ) from None
        if re.fullmatch("[0-9a-f]{64}", value):
            found[chunk.name] = value
    return found


def _temporary(chunk: Chunk) -> str:
    return f".{chunk.name}.partial"


def _ours(name: str) -> bool:
    return name in (CHUNKS, INDEX, RECORDING) or name.startswith((LOCK, f".{INDEX}", f".{RECORDING}"))


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"
