"""Files that are either the old ones or the new ones, whole, whenever the power goes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from counterpoise.errors import RunError, UnfitFileError

if TYPE_CHECKING:  # run files are read without waiting for torch
    from torch import Tensor

_umask = os.umask(0)
os.umask(_umask)

CHECKSUM = "counterpoise_sha256"
"""Key of a safetensors file's metadata: SHA-256 of its tensors and of its other metadata."""
FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file size limit is reached",
}


def regular(path: Path, *, within: Path | None = None, limit: int | None = None) -> Path:
    """`path`, a regular file: no pipe that would be waited for, no device without an end.

    Args:
        within: the folder that it must lie in, wherever links lead. The cache of the Hugging Face Hub, whose folders
            are links to `blobs` beside them, counts as one folder.
        limit: bytes that it may have at most.

    Raises:
        OSError: it is missing, cannot be looked at, or is something else; UnfitFileError says what.
    """
    if "\0" in str(path):
        raise UnfitFileError(Path(str(path).replace("\0", "?")), "is no name of a file: it holds a null character")
    info = path.stat()
    if not stat.S_ISREG(info.st_mode):
        kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
        kind = next((words for test, words in kinds if test(info.st_mode)), "a device")
        raise UnfitFileError(path, f"is {kind}, expected a file")
    if within is not None and not _is_within(path.resolve(), within.resolve()):
        raise UnfitFileError(path, "leads out of its folder")
    if limit is not None and info.st_size > limit:
        raise UnfitFileError(path, f"has {info.st_size:,} bytes, expected at most {limit:,}")
    return path


def expanded(path: Path) -> Path:
    """The path with `~` and `~user` as the folders that they stand for. Raises OSError where there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise UnfitFileError(path, "begins with the home of somebody who has none here") from None


def named(folder: Path, name: str, *, limit: int | None = None) -> Path:
    """The regular file that a list in `folder` calls `name`, at most `limit` bytes large.

    Raises OSError where it is missing or unfit, or its name leads out of the folder.
    """
    parts = re.split(r"[/\\]", name)
    if not name or "\0" in name or any(part in ("", ".", "..") for part in parts) or Path(name).drive:
        raise UnfitFileError(folder, f"lists a file {name[:80]!r}, whose name leads out of it")
    return regular(folder / name, within=folder, limit=limit)


def _is_within(path: Path, folder: Path) -> bool:
    snapshot = folder.parent.name == "snapshots"
    return path.is_relative_to(folder) or (snapshot and path.parent == folder.parent.parent / "blobs")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; on leaving, what was written there is on disk under `path`, or nothing changed.

    Raises RunError where it cannot be written; `path` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        intact = f" The older {path.name} is intact." if path.exists() else ""
        raise RunError(f"{path} could not be written: {reason(error)}.{intact}") from error


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`; on leaving, what lies in it is on disk under `path`, and an older folder is gone.

    Whenever the power goes, one of the two is whole under `path`; where the system cannot exchange folders at once,
    the older one may lie beside it, which `standing` mends.

    Raises RunError where it cannot be written; `path` is then as it was.
    """
    new = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        standing(path)
        for stale in (new, _older(path)):
            shutil.rmtree(stale, ignore_errors=True)
        new.mkdir()
        yield new
        for entry in new.rglob("*"):
            if entry.is_file():
                with entry.open("rb+") as file:
                    os.fsync(file.fileno())
            else:
                sync_folder(entry)
        sync_folder(new)
        _put(new, path)
        sync_folder(path.parent)
    except OSError as error:
        intact = f" The older {path.name} is intact." if path.exists() else ""
        raise RunError(f"{path} could not be written: {reason(error)}.{intact}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        standing(path)


def standing(path: Path) -> Path:
    """The folder that is, or was last, whole under `path`: one that a crash has left under another name comes back."""
    if path.exists():
        return path
    old = _older(path)
    if old.is_dir():
        try:
            old.rename(path)
        except OSError:  # it may only be read
            return path if path.exists() else old
    return path


def _older(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _put(new: Path, path: Path) -> None:
    """`new` as `path`, and an older folder there goes."""
    if path.exists() and exchange(new, path):
        shutil.rmtree(new, ignore_errors=True)
        return
    old = _older(path)
    while True:
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
            break
        except OSError as error:  # a reader has just put the older one back
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    shutil.rmtree(old, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Have two entries of a folder change names, at once; whether the system can."""
    if sys.platform != "linux":
        return False
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # an older C library
        return False
    here, both_ways = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    done: int = call(here, os.fsencode(one), here, os.fsencode(other), both_ways)
    return done == 0


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all, with a checksum of what it holds."""
    from safetensors.torch import save_file

    plain: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu").contiguous()
        address = value.untyped_storage().data_ptr()
        plain[name] = value.clone() if address in taken else value  # safetensors takes no two tensors of one memory
        taken.add(address)
    with replacing(path) as temporary:
        values = dict(metadata or {})
        save_file(plain, temporary, metadata={**values, CHECKSUM: _content_hash(plain, values)})
        _order_header(temporary)
        temporary.chmod(0o666 & ~_umask)  # safetensors makes files that nobody else may read


def _order_header(path: Path) -> None:
    """Put the metadata of a safetensors file in order, which the library writes in any: equal files, equal bytes."""
    with path.open("rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file and what its metadata say; under `CHECKSUM` they are as they were written.

    Raises OSError, SafetensorError or, where a bit of either has changed, ValueError.
    """
    from safetensors import safe_open

    with safe_open(regular(path), "pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    values = {key: value for key, value in metadata.items() if key != CHECKSUM}
    # A name that is one letter off is the checksum's own with a bit flipped, not a file from before there was one.
    named = CHECKSUM in metadata or any(
        len(key) == len(CHECKSUM) and sum(a != b for a, b in zip(key, CHECKSUM, strict=True)) == 1 for key in metadata
    )
    if named and metadata.get(CHECKSUM) != _content_hash(tensors, values):
        raise ValueError("it has changed since it was written: its checksum is another one")
    return tensors, metadata


def _content_hash(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    import torch

    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def reason(error: BaseException) -> str:
    """Why, in words: safetensors reports the system's error number within its text only."""
    number = getattr(error, "errno", None)
    for code, words in FULL.items():
        if number == code or f"os error {code}" in str(error):
            return words
    return str(error)
