"""Addresses that fsspec knows (http://, s3://, gs://, hf://): what is one, and bytes of files there, within bounds."""

from __future__ import annotations

import os
import queue
import re
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from counterpoise.errors import CounterpoiseError, DataError, MissingExtraError, Unreachable, first_line

TIMEOUT = 60.0
"""Seconds that a request may take where nobody says how many."""
ATTEMPTS = 4
PAUSE = 0.25
"""Seconds before the second attempt; before later ones, four times as long as before the last."""
Answer = TypeVar("Answer")


def address_of(path: str | os.PathLike[str]) -> str | None:
    """The address that a path stands for, which has lost one of its slashes as a path; None of a real path."""
    found = re.fullmatch(r"([a-z][a-z0-9+.-]+):/+(.+)", Path(path).as_posix())
    if found is None:
        return None
    return f"file:///{found[2]}" if found[1] == "file" else f"{found[1]}://{found[2]}"


class _Refused(Exception):  # noqa: N818 - named by what it says
    """What another attempt would not change."""


class Files:
    """The files below an address; for any number of threads and processes.

    Args:
        timeout: seconds that one request may take.

    Raises:
        MissingExtraError: a package that this kind of address needs is missing.
        DataError: there is no such kind of address.
    """

    def __init__(self, address: str, timeout: float) -> None:
        self.address, self.timeout = address.rstrip("/"), timeout
        self._process = -1
        self._connected()

    def read(self, name: str, begin: int, end: int) -> bytes:
        """Bytes begin, ..., end - 1 of a file there; fewer where it ends before.

        Raises:
            DataError: they cannot be had, after some attempts.
        """
        return self._attempt(name, lambda: self._read(name, begin, end))

    def read_or_none(self, name: str, limit: int) -> bytes | None:
        """The beginning of a file there, `limit` bytes at most; None where there is no such file. Raises DataError."""

        def ask() -> bytes | None:
            try:
                return self._read(name, 0, limit)
            except FileNotFoundError:
                return None

        return self._attempt(name, ask)

    def size(self, name: str) -> tuple[int, int]:
        """Bytes of a file there, and a number that is another one when it has changed. Raises DataError."""

        def ask() -> tuple[int, int]:
            files, root = self._connected()
            info = files.info(f"{root}/{name}")
            if info.get("size") is None:
                raise _Refused("its size is not told")
            marks = [str(info.get(key)) for key in ("ETag", "etag", "mtime", "LastModified", "updated", "sha")]
            marks += [str(info[key]) for key in ("blob_id",) if key in info]  # of Hugging Face
            return int(info["size"]), zlib.crc32(" ".join(marks).encode())

        return self._attempt(name, ask)

    def listed(self, *endings: str) -> list[str]:
        """The files below with one of these endings, by their paths from there, as text is sorted. Raises DataError."""

        def ask() -> list[str]:
            files, root = self._connected()
            whole = files._strip_protocol(root).rstrip("/") + "/"
            found = (str(path) for path in files.find(root))
            return sorted(path.partition(whole)[2] for path in found if path.endswith(endings) and whole in path)

        return self._attempt("", ask)

    def _attempt(self, name: str, ask: Callable[[], Answer]) -> Answer:
        said = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE * 4 ** (attempt - 1))
            try:
                return within(self.timeout, ask)
            except (_Refused, FileNotFoundError, PermissionError) as error:
                raise DataError(f"{self.address}/{name} cannot be read: {why(error)}.") from None
            except CounterpoiseError:
                raise
            except Exception as error:
                said = f"{why(error)}, asked {attempt + 1} times"
        raise Unreachable(f"{self.address}/{name} cannot be read: {said}.")

    def _read(self, name: str, begin: int, end: int) -> bytes:
        files, root = self._connected()
        path = f"{root}/{name}"
        if not self.address.startswith(("http://", "https://")):
            return _part(files, path, begin, end)
        # As it comes, so that a server which sends more than was asked for fills no memory.
        headers = {**(files.kwargs.get("headers") or {}), "Range": f"bytes={begin}-{end - 1}"}
        try:
            with files.open(path, "rb", block_size=0, size=1, headers=headers) as file:
                if begin and file.r.status != 206:
                    raise _Refused("the server does not send parts of files (HTTP Range), which random access needs")
                return _all_of(file, end - begin)
        except Exception as error:
            if _ends_before(error):
                return b""
            raise

    def _connected(self) -> tuple[Any, str]:
        """The file system, which each process has of its own, and the root there."""
        if self._process != os.getpid():
            self._files, self._root = connected(self.address, DataError)
            self._process = os.getpid()
        return self._files, self._root

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self.address, "timeout": self.timeout, "_process": -1}


def connected(address: str, kind: type[CounterpoiseError]) -> tuple[Any, str]:
    """The file system of an address, and the root there.

    Raises MissingExtraError where a package is missing, `kind` where there is no such kind of address.
    """
    try:
        import fsspec  # type: ignore[import-untyped]

        files, root = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise MissingExtraError(f"Address {address} ({error})", "remote") from None
    except ValueError as error:
        raise kind(f"Address {address} cannot be read: {first_line(error)}.") from None
    return files, root.rstrip("/")


def cache_folder(what: str) -> Path:
    """Where what was fetched is kept for the user, by what it is."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "counterpoise" / what


def why(error: Exception) -> str:
    """What went wrong with a file there; each kind of address has errors of its own."""
    return "there is no such file" if isinstance(error, FileNotFoundError) else first_line(error)


def _part(files: Any, path: str, begin: int, end: int) -> bytes:
    """These bytes of a file and no others: opened as usual, it would be read ahead by many megabytes."""
    if not files.async_impl:
        with files.open(path, "rb", cache_type="none") as file:
            file.seek(begin)
            return bytes(file.read(end - begin))
    try:
        return bytes(files.cat_file(path, start=begin, end=end))
    except Exception as error:
        if _ends_before(error):
            return b""
        raise


def _ends_before(error: Exception) -> bool:
    """Whether a file ends before the bytes that were asked for; each kind of address says it in its own way."""
    told = error.status if hasattr(error, "status") else getattr(error, "code", 0)
    return str(told) == "416" or "range is not satisfiable" in str(error)


def _all_of(file: Any, length: int) -> bytes:
    """So many bytes, or as many as there are."""
    blocks, left = [], length
    while left and (block := file.read(left)):
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)[:length]


def within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """What `ask` returns or raises; TimeoutError where it takes longer: then it goes on for nobody."""
    answers: queue.SimpleQueue[tuple[Answer | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((ask(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]
