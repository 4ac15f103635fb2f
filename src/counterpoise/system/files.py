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

from counterpoise.errors import ConfigError, CounterpoiseError, RunError, UnfitFileError

if TYPE_CHECKING:  # run files are read without waiting for torch
    from torch import Tensor

_umask = os.umask(0)
os.umask(_umask)

CHECKSUM = "counterpoise_sha256"
"""Key of a safetensors file's metadata: SHA-256 of its tensors and of its other metadata."""
FULL: dict[int | None, str] = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file size limit is reached",
}


_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EBADF)
"""What systems say that put no names on disk when they are asked to."""


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


def is_below(folder: Path, name: str) -> bool:
    """Whether a name, as a list has it, is of something in a folder, which may be a link to elsewhere."""
    return Path(os.path.normpath(folder / name)).is_relative_to(os.path.normpath(folder))


def is_file(path: Path) -> bool:
    """Whether a file is there; under a name that no file can have, such as a page of text, there is none."""
    return os.path.isfile(path)  # noqa: PTH113 - pathlib raises for some of these names


def is_folder(path: Path) -> bool:
    """The same of a folder."""
    return os.path.isdir(path)  # noqa: PTH112


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
    temporary = partial(path)
    there = False
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        there = True
        sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise _unwritten(path, error, there) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`; on leaving, what lies in it is on disk under `path`, and an older folder is gone.

    Whenever the power goes, one of the two is whole under `path`; where the system cannot exchange folders at once,
    the older one may lie beside it, which `standing` mends.

    Raises RunError where it cannot be written; `path` is then as it was.
    """
    new = partial(path)
    there = False
    try:
        make_folder(path.parent)
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
        there = _put(new, path)
        sync_folder(path.parent)  # before the older one goes: else that may be gone on disk, and this not be there
    except (OSError, SafetensorError) as error:
        raise _unwritten(path, error, there) from error
    finally:
        standing(path)
        for stale in (new, *([_older(path)] if there else [])):
            shutil.rmtree(stale, ignore_errors=True)


def _unwritten(path: Path, error: BaseException, there: bool) -> RunError:
    """What is said where something could not be written, or is `there` and may go again."""
    if there:
        return RunError(f"{path} is written, but the disk has not confirmed it: {reason(error)}. Look after the disk.")
    intact = f" The older {path.name} is intact." if path.exists() else ""
    return RunError(f"{path} could not be written: {reason(error)}.{intact}")


def partial(path: Path) -> Path:
    """Where what will be `path` is written."""
    return path.with_name(f".{path.name}.partial")


def sweep(*paths: Path) -> None:
    """Remove what a crash has left of these while they were written; for who alone may write them."""
    for path in paths:
        shutil.rmtree(partial(partial(path)), ignore_errors=True)
        if partial(path).is_dir():
            shutil.rmtree(partial(path), ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                partial(path).unlink()


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, so that their names are on disk. Raises RunError."""
    try:
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in new:
            sync_folder(folder.parent)
    except OSError as error:
        raise RunError(f"Folder {path} cannot be made: {FULL.get(error.errno, error.strerror)}.") from error


def new_file(path: Path | str, overwrite: bool, option: str = "--out") -> Path:
    """The file that somebody wants written, before it is worked for: its folder is made.

    Raises ConfigError where a file is there that nobody has said may be replaced, or a folder; RunError where its
    folder cannot be made.
    """
    found = expanded(Path(path))
    if found.is_dir():
        raise ConfigError(f"{found} is a folder: {option} is the file itself.")
    if found.exists() and not overwrite:
        raise ConfigError(f"{found} is there already: give --overwrite, or another {option}.")
    make_folder(found.parent)
    return found


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


def _put(new: Path, path: Path) -> bool:
    """`new` as `path`; an older folder there is now under one of the other names."""
    if path.exists() and exchange(new, path):
        return True
    old = _older(path)
    while True:
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
            return True
        except OSError as error:  # a reader has just put the older one back
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def exchange(one: Path, other: Path) -> bool:
    """Have two entries of a folder change names, at once; whether the system can."""
    if sys.platform != "linux":
        return False
    try:
        call = ctypes.CDLL(None).renameat2
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
    with replacing(path) as temporary, _own_folder(temporary) as folder:
        values = dict(metadata or {})
        save_file(plain, folder / path.name, metadata={**values, CHECKSUM: _content_hash(plain, values)})
        (folder / path.name).replace(temporary)
        _order_header(temporary)
        temporary.chmod(0o666 & ~_umask)  # safetensors makes files that nobody else may read


@contextlib.contextmanager
def _own_folder(temporary: Path) -> Iterator[Path]:
    """A folder for safetensors, whose own temporary files have names that nobody would find after a crash."""
    folder = partial(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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


@contextlib.contextmanager
def held(
    path: Path, timeout: float = -1, *, busy: str = "", raises: type[CounterpoiseError] = RunError
) -> Iterator[None]:
    """Hold a lock file, which a process that dies lets go.

    Args:
        timeout: seconds to wait for another process that holds it; below 0: for ever.
        busy: what is said after that.
        raises: the error of that, and of a lock that cannot be held.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise raises(busy) from None
    except OSError as error:
        raise raises(f"{path} could not be locked: {reason(error)}.") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it is closed all the same, and so let go
            lock.release()


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk, where the system can. Raises OSError where the disk fails at it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def reason(error: BaseException) -> str:
    """Why, in words: safetensors reports the system's error number within its text only."""
    number = getattr(error, "errno", None)
    for code, words in FULL.items():
        if number == code or any(said in str(error) for said in (f"os error {code}", f"Os {{ code: {code},")):
            return words
    return str(error)


def sha256_of(path: Path) -> str:
    """Of what a file holds, in hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
