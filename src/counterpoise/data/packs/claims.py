"""Who does what of a thing that several processes would do: the system frees what a process had when it ends."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: threads of one process alone know of each other
    fcntl = None  # type: ignore[assignment]

SHARED = fcntl is not None
"""Whether processes know of each other's claims."""
_PARTS = 24  # bits


class Claims:
    """Numbered parts of named things, each claimed by one thread of one process; for any number of both.

    Args:
        path: a file that stays empty, of which bytes are locked.
    """

    _handle: int | None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin()

    def take(self, name: str, parts: Iterable[int]) -> list[int]:
        """Which of these parts were free, and are ours now."""
        with self._alone():
            handle, first = self._opened(), _first(name)
            return [part for part in parts if self._taken(handle, first + part)]

    def drop(self, name: str, parts: Iterable[int]) -> None:
        """Free what is ours."""
        with self._alone():
            handle, first = self._opened(), _first(name)
            for place in (first + part for part in parts):
                self._ours.discard(place)
                if handle is not None and fcntl is not None:
                    fcntl.lockf(handle, fcntl.LOCK_UN, 1, place)

    def _taken(self, handle: int | None, place: int) -> bool:
        if place in self._ours:
            return False
        if handle is not None and fcntl is not None:
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno == 13:  # another word for the same
                    return False  # else a disk without locks: each process for itself
        self._ours.add(place)
        return True

    def _alone(self) -> threading.Lock:
        if self._process != os.getpid():  # what is claimed does not come along into a child
            self._begin()
        return self._lock

    def _opened(self) -> int | None:
        """The file, opened once: closing it anywhere would free all that this process has."""
        if self._handle is None and fcntl is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError:  # said where something is written
                return None
        return self._handle

    def _begin(self) -> None:
        self._process, self._handle = os.getpid(), None
        self._ours: set[int] = set()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._path = state["_path"]
        self._begin()


def _first(name: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:4], "big") << _PARTS
