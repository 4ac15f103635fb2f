"""What is done to whole stores, as `counterpoise store` does it: looked at, checked, joined, made smaller."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from counterpoise.errors import RunError, StoreError
from counterpoise.system.files import expanded, held, sha256_of, write_text
from counterpoise.teachers import identity
from counterpoise.teachers.store.codecs import FORMAT
from counterpoise.teachers.store.format import (
    CHUNKS,
    INDEX,
    Chunk,
    Header,
    Index,
    dump,
    load,
    load_recording,
    present,
    unfinished,
    words,
)
from counterpoise.teachers.store.reader import Store
from counterpoise.teachers.store.writer import LOCK, StoreWriter, checksums

_BLOCK = 2**20  # bytes copied at once
Folder = str | PathLike[str]


class Damage(NamedTuple):
    """What is wrong with a chunk: its file within `chunks/`, and what was found."""

    chunk: str
    problem: str


def info(store: Folder) -> dict[str, Any]:
    """What the store in a folder, or an unfinished recording, holds: words and numbers for a table.

    Raises:
        StoreError: there is neither, or its index is damaged.
    """
    path = Path(store)
    header, known = _look(path)
    chunks = len(header.slots) * header.parts
    state = "finished" if (path / INDEX).exists() else f"recording, {len(known)} of {chunks} chunks"
    further = unfinished(path, header)
    if further is not None:
        state += f", being extended to views {words(further.slots)}"
    return {
        "state": state,
        "data": header.data,
        "teacher": header.teacher,
        **({} if identity.whole(header.identity) else {"teacher known by": "its weights alone"}),
        **header.notes,
        "views": f"{header.kind}, {words(header.slots)}",
        "samples": header.count,
        "logits": "x".join(map(str, header.shape)),
        "precision": header.precision,
        "bytes a view of a sample": header.codec.row_bytes,
        "bits a logit": round(8 * header.codec.row_bytes / torch.Size(header.shape).numel(), 2),
        "chunks": chunks,
        "bytes": header.bytes,
    }


def verify(store: Folder, *, discard: bool = False) -> list[Damage]:
    """Compare every chunk with its size and checksum; of an unfinished recording those that are there.

    Args:
        store: its folder.
        discard: remove damaged chunks, so that recording again makes these and no others.

    Raises:
        StoreError: there is no store, its index is damaged, or a chunk cannot be removed.
    """
    path = Path(store)
    finished = (path / INDEX).exists()
    header, known = _look(path)
    sizes = present(path)
    found = []
    for chunk in header.chunks():
        expected, size = header.chunk_size(chunk), sizes.get(chunk.name)
        if size is None:
            problem = "is missing" if finished else ""
        elif size != expected:
            problem = (
                f"is truncated: {size} of {expected} bytes" if size < expected else f"has {size - expected} bytes more"
            )
        elif chunk.name not in known:
            problem = "" if not finished else "has no checksum"
        else:
            try:
                problem = "" if sha256_of(path / CHUNKS / chunk.name) == known[chunk.name] else "has changed bytes"
            except OSError as error:
                problem = f"cannot be read: {error}"
        if problem:
            found.append(Damage(chunk.name, problem))
    if discard:
        _remove(path, [damage.chunk for damage in found])
    return found


def merge(*sources: Folder, out: Folder) -> dict[str, Any]:
    """Join what was recorded in several folders into a store in `out`, which may be one of them.

    Parts of one recording, finished stores of different views, or both. Sources stay as they are. Where it is stopped,
    it goes on when it is called again.

    Returns:
        What `info` says of the store.

    Raises:
        StoreError: sources do not fit together or differ in a chunk, a chunk is damaged in all that hold it, or chunks
            are in none; what was joined stays.
    """
    if not sources:
        raise StoreError("Nothing to merge: name the folders that were recorded to.")
    looked = {source: _look(source) for source in map(Path, sources)}
    first, (header, _) = next(iter(looked.items()))
    for source, (other, _) in looked.items():
        if found := header.difference(other, layout=True):
            lines = "".join(f"\n  - {line}" for line in found)
            raise StoreError(f"Stores {first} and {source} do not fit together; {source} is the one given:{lines}")
        if identity.whole(header.identity) != identity.whole(other.identity):
            older, newer = (first, source) if identity.whole(other.identity) else (source, first)
            raise StoreError(
                f"Store {older} knows its teacher by weights alone, as earlier versions recorded, and {newer} by all "
                f"that its answers depend on: whether they are of one teacher cannot be seen. Run `counterpoise store "
                f"extend` on {older}, which asks the teacher once more, and merge then."
            )
        header = header.sampled(header.sample or other.sample)
    if any(other.sample is None for other, _ in looked.values()):
        header = header.sampled(None)
    header = header.with_slots([slot for other, _ in looked.values() for slot in other.slots])
    values: dict[str, str] = {}
    for source, (_, known) in looked.items():
        for name, value in known.items():
            if values.setdefault(name, value) != value:
                raise StoreError(f"Chunk {name} was recorded twice with different logits; {source} has the second.")
    with StoreWriter.create(Path(out), header) as writer:
        for chunk in writer.missing():
            holders = [source for source, (_, known) in looked.items() if chunk.name in known]
            for last, source in enumerate(holders, 1 - len(holders)):
                try:
                    writer.write_records(chunk, _blocks(source / CHUNKS / chunk.name), values[chunk.name])
                    break
                except StoreError as error:
                    if not last:
                        raise StoreError(f"{source}: {error}") from None
        absent = writer.missing()
        if absent:
            raise StoreError(
                f"{len(absent)} chunks are in none of {', '.join(map(str, sources))}: "
                f"{', '.join(chunk.name for chunk in absent[:5])}{', ...' if len(absent) > 5 else ''}. "
                f"Record the parts that are missing, then merge again; what was joined is in {out}."
            )
        writer.finish()
    return info(out)


def prune(
    store: Folder,
    *,
    keep: Sequence[int] | None = None,
    precision: str | None = None,
    out: Folder | None = None,
) -> dict[str, Any]:
    """Make a store smaller: keep some views only, or fewer bits.

    Args:
        store: its folder.
        keep: the views or epochs to keep; None keeps all.
        precision: a smaller one than the store's, from float32 or float16.
        out: folder of the smaller store; None, or that of the store itself, drops views in place.

    Returns:
        What `info` says of the smaller store.

    Raises:
        StoreError: a view is not there, the precision is no smaller, or `out` is missing where it is needed, or holds
            other views.
    """
    path = Path(store)
    if out is not None and expanded(Path(out)).resolve() == path.resolve():
        out = None
    index = load(path)
    header = index.header
    absent = sorted(set(keep or ()) - set(header.slots))
    if absent or (keep is not None and not keep):
        raise StoreError(f"Store {path} holds views {words(header.slots)}; {words(absent) or 'none'} cannot be kept.")
    smaller = header if keep is None else header.with_slots(keep)
    if precision in (None, header.precision):
        if out is None:
            _drop_views(path, index, smaller)
        else:
            _rewrite(
                smaller,
                Path(out),
                lambda writer, chunk: writer.write_records(
                    chunk, _blocks(path / CHUNKS / chunk.name), index.checksums[chunk.name]
                ),
            )
        return info(out or path)
    if out is None:
        raise StoreError("Another precision needs a folder of its own: say where, and delete the old store then.")
    if not header.precision.startswith("float"):
        raise StoreError(f"Store {path} is in {header.precision} already; other precisions need float32 or float16.")
    target = replace(smaller, precision=str(precision), format=FORMAT)
    if target.codec.row_bytes >= header.codec.row_bytes:
        raise StoreError(f"{precision} is no smaller than {header.precision}, in which store {path} is.")
    with Store.open(path) as source:
        _rewrite(target, Path(out), lambda writer, chunk: writer.write(chunk, _logits(source, chunk)))
    return info(out)


def _look(path: Path) -> tuple[Header, dict[str, str]]:
    """A store's header and the checksums of its chunks; of an unfinished one those of chunks that are there."""
    recording = None if (path / INDEX).exists() else load_recording(path)
    if recording is None:
        return load(path)
    return recording, checksums(path, recording, {})


def _drop_views(path: Path, index: Index, header: Header) -> None:
    """Leave the views of `header` in a store, by its index first."""
    with held(path / LOCK, raises=StoreError):
        if unfinished(path, index.header) is not None:
            raise StoreError(f"A recording in {path} is not finished; finish it before views are dropped.")
        try:
            write_text(path / INDEX, dump(header, index.checksums))
        except RunError as error:
            raise StoreError(str(error)) from None
        _remove(path, present(path).keys() - {chunk.name for chunk in header.chunks()})


def _remove(path: Path, chunks: Iterable[str]) -> None:
    for name in chunks:
        try:
            (path / CHUNKS / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{path / CHUNKS / name} could not be removed: {error}.") from None


def _rewrite(header: Header, out: Path, write: Callable[[StoreWriter, Chunk], None]) -> None:
    there = load(expanded(out)).header if (expanded(out) / INDEX).exists() else None
    if there is not None and (more := {*there.slots} - {*header.slots}):
        raise StoreError(
            f"{out} holds a store of views {words(there.slots)}, and views {words(sorted(more))} are none of those to "
            "be kept: give another folder."
        )
    with StoreWriter.create(out, header) as writer:
        for chunk in writer.missing():
            write(writer, chunk)
        writer.finish()


def _logits(store: Store, chunk: Chunk) -> Iterator[Tensor]:
    rows = max(1, _BLOCK // store.header.codec.row_bytes)
    for start in range(chunk.start, chunk.stop, rows):
        indices = torch.arange(start, min(start + rows, chunk.stop))
        yield store.logits(indices, torch.full_like(indices, chunk.slot))


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}.") from None
