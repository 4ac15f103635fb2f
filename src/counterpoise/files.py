"""Files that are either the old ones or the new ones, whole, whenever the power goes."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from counterpoise.errors import RunError

_umask = os.umask(0)
os.umask(_umask)

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file size limit is reached",
}


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
        kept = f" The older {path.name} is intact." if path.exists() else ""
        raise RunError(f"{path} could not be written: {reason(error)}.{kept}") from error


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`; on leaving, what lies in it is on disk under `path`, and an older folder is gone.

    Raises RunError where it cannot be written; `path` is then as it was.
    """
    new, old = (path.with_name(f".{path.name}.{state}") for state in ("partial", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() and old.exists():  # a crash between the two renames below
            old.rename(path)
        for stale in (new, old):
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
        if path.exists():
            path.rename(old)
        new.rename(path)
        sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        kept = f" The older {path.name} is intact." if path.exists() else ""
        raise RunError(f"{path} could not be written: {reason(error)}.{kept}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if not path.exists() and old.exists():
            old.rename(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all."""
    plain: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        kept = tensor.detach().to("cpu").contiguous()
        address = kept.untyped_storage().data_ptr()
        plain[name] = kept.clone() if address in taken else kept  # safetensors takes no two tensors of one memory
        taken.add(address)
    with replacing(path) as temporary:
        save_file(plain, temporary, metadata=dict(metadata or {}))
        temporary.chmod(0o666 & ~_umask)  # safetensors makes files that nobody else may read


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
