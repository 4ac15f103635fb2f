"""What a function did to the files of a folder: each change to bytes and to names, and what was synced, in order."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from outage.tracing import Call, Outcome, traced

ROOT = 0
_AT_FDCWD, _ACCESS = -100, os.O_ACCMODE
_CLONES = (0x40049409, 0x4020940D)  # FICLONE, FICLONERANGE
_EXCHANGE = 2
_OPENING = ("open", "openat", "openat2", "creat")
_WRITING = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range", "splice")


class Names(NamedTuple):
    """Names of a folder, and the file or folder that each is from now on; None where it is gone. At once."""

    changes: dict[tuple[int, str], int | None]


class Data(NamedTuple):
    """Bytes of a file at an offset."""

    file: int
    offset: int
    content: bytes


class Size(NamedTuple):
    """A file cut, or filled up with zeros."""

    file: int
    size: int


class Sync(NamedTuple):
    """A file, or the names of a folder, put on disk; None: all there is."""

    node: int | None


Step = Names | Data | Size | Sync


class Journal(NamedTuple):
    """What was there, all of it on disk, and what was done. Files and folders are numbers, `ROOT` the folder itself."""

    folders: dict[int, dict[str, int]]
    files: dict[int, bytes]
    steps: list[Step]
    outcome: Outcome


class NotModelledError(Exception):
    """A way to change files that is not known here: better no answer than a wrong one."""


def record(folder: Path, task: Callable[[], Any]) -> Journal:
    """What a function does to a folder. Raises NotModelledError."""
    recorder = Recorder(folder)
    outcome = traced(task, recorder)
    return Journal(recorder.folders, recorder.files, recorder.steps, outcome)


class Recorder:
    """Watches calls that change a folder. Attributes: what a `Journal` has."""

    def __init__(self, folder: Path) -> None:
        self.root = os.path.realpath(folder)
        self.steps: list[Step] = []
        self.folders: dict[int, dict[str, int]] = {}
        self.files: dict[int, bytes] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        self._known = 0
        self._begun: dict[int, Any] = {}
        self._look(self.root)

    def _look(self, path: str) -> int:
        node = self._new(os.lstat(path))
        if os.path.isdir(path):
            self.folders[node] = {name: self._look(os.path.join(path, name)) for name in sorted(os.listdir(path))}
        else:
            self.files[node] = Path(path).read_bytes()
        return node

    def _new(self, info: os.stat_result) -> int:
        self._numbers[info.st_dev, info.st_ino] = number = self._known
        self._known += 1
        return number

    def _node(self, info: os.stat_result) -> int | None:
        return self._numbers.get((info.st_dev, info.st_ino))

    def enter(self, call: Call) -> int:
        """Keep what must be looked at before the call."""
        self._begun[call.process] = before(call, self.root)
        return 0

    def leave(self, call: Call, result: int) -> int:
        """Write down what the call has done."""
        begun = self._begun.pop(call.process)
        if result < 0 or begun is None or call.name == "close":
            return 0
        if isinstance(begun, Opening):
            self._opened(call, begun, result)
        elif isinstance(begun, Place):
            self._wrote(call, begun, result)
        else:
            self._named(call, begun)
        return 0

    def _opened(self, call: Call, begun: Opening, result: int) -> None:
        path = f"/proc/{call.process}/fd/{result}"
        info = os.stat(path)
        if begun.flags & os.O_TMPFILE == os.O_TMPFILE:  # without a name; linkat, which could give it one, is refused
            self._new(info)
        elif begun.size is None and begun.flags & os.O_CREAT:
            self._name(begun.path, self._new(info))
        elif begun.flags & os.O_TRUNC and begun.size:
            self.steps.append(Size(self._number(info), 0))

    def _wrote(self, call: Call, begun: Place, result: int) -> None:
        if call.name in ("sync", "syncfs"):
            self.steps.append(Sync(None))
            return
        path = f"/proc/{call.process}/fd/{begun.handle}"
        info = os.stat(path)
        node = self._node(info)
        if node is None:
            return
        if call.name in ("fsync", "fdatasync"):
            self.steps.append(Sync(node))
        elif call.name in ("ftruncate", "fallocate"):
            self.steps.append(Size(node, info.st_size))
        elif result or call.name == "ioctl":
            with open(path, "rb", buffering=0) as file:
                offset, length = (0, info.st_size) if call.name == "ioctl" else (begun.offset, result)
                content = os.pread(file.fileno(), length, offset)
            self.steps.append(Data(node, offset, content))

    def _named(self, call: Call, begun: Naming) -> None:
        name = call.name
        if name in ("mkdir", "mkdirat"):
            node = self._new(os.lstat(begun.target))
            self.folders[node] = {}
            self._name(begun.target, node)
        elif name in ("unlink", "unlinkat", "rmdir"):
            self._name(begun.target, None)
        elif name == "truncate":
            info = os.stat(begun.target)
            self.steps.append(Size(self._number(info), info.st_size))
        elif begun.source is not None and begun.moved is not None:
            moved, changes = self._number(begun.moved), {}
            if name.startswith("rename") and begun.source != begun.target:
                back = begun.replaced if begun.exchanges else None
                changes[self._place(begun.source)] = None if back is None else self._number(back)
            changes[self._place(begun.target)] = moved
            for folder in sorted({folder for folder, _ in changes}):  # from one to another: each has its half
                self.steps.append(Names({place: node for place, node in changes.items() if place[0] == folder}))
        else:
            raise NotModelledError(f"{name} of {begun.target}")

    def _number(self, info: os.stat_result) -> int:
        node = self._node(info)
        if node is None:
            raise NotModelledError("a file from elsewhere")
        return node

    def _place(self, path: str) -> tuple[int, str]:
        folder, name = os.path.split(path)
        return self._number(os.stat(folder)), name

    def _name(self, path: str, node: int | None) -> None:
        self.steps.append(Names({self._place(path): node}))


class Opening(NamedTuple):
    """A file that is opened; size: that it had, None where there was none."""

    path: str
    flags: int
    size: int | None


class Place(NamedTuple):
    """A place in an open file."""

    handle: int
    offset: int
    path: str


class Naming(NamedTuple):
    """Names that change."""

    target: str
    source: str | None = None
    moved: os.stat_result | None = None
    replaced: os.stat_result | None = None
    exchanges: bool = False


def before(call: Call, root: str) -> Opening | Place | Naming | None:
    """What a call is about to do to a folder or what lies in it; None where it leaves that alone.

    Raises NotModelledError where it could change the folder in a way that later calls do not show.
    """
    name, given = call.name, call.arguments
    if name == "io_uring_setup":
        raise NotModelledError("io_uring, which writes without calls")
    if name in _OPENING:
        return _opening(call, root)
    if name in ("sync",):
        return Place(0, 0, root)
    if name in ("mmap", "ioctl", "close", "fsync", "fdatasync", "ftruncate", "fallocate", "syncfs", *_WRITING):
        return _place(call, root)
    process = call.process
    if name in ("rename", "link", "symlink"):
        one, other = (_path(process, _AT_FDCWD, address) for address in given[:2])
    elif name in ("renameat", "renameat2", "linkat"):
        one, other = (_path(process, given[place], given[place + 1]) for place in (0, 2))
    elif name == "symlinkat":
        one, other = "", _path(process, given[1], given[2])
    else:
        at = name.endswith("at")
        one, other = "", _path(process, given[0] if at else _AT_FDCWD, given[1 if at else 0])
    inside = [_inside(path, root) for path in (one, other) if path]
    if not any(inside):
        return None
    if not all(inside):
        raise NotModelledError(f"{name} into the folder or out of it: {one} {other}")
    moved = _info(one) if one else None
    return Naming(other, one or None, moved, _info(other), name == "renameat2" and given[4] == _EXCHANGE)


def _opening(call: Call, root: str) -> Opening | None:
    given = call.arguments
    if call.name == "creat":
        path, flags = _path(call.process, _AT_FDCWD, given[0]), os.O_CREAT | os.O_TRUNC | os.O_WRONLY
    elif call.name == "open":
        path, flags = _path(call.process, _AT_FDCWD, given[0]), given[1]
    else:
        path, flags = _path(call.process, given[0], given[1]), given[2]
        if call.name == "openat2":
            (flags,) = struct.unpack("Q", _memory(call.process, given[2], 8))
    if not _inside(path, root):
        return None
    info = _info(path)
    return Opening(path, flags, None if info is None else info.st_size)


def _place(call: Call, root: str) -> Place | None:
    name, given = call.name, call.arguments
    at = {"copy_file_range": 2, "splice": 2, "mmap": 4}.get(name, 0)
    handle = signed32(given[at])
    if name == "mmap" and (handle < 0 or given[3] & 3 != 1 or not given[2] & 2):  # not shared, or not written to
        return None
    if name == "ioctl" and given[1] & 0xFFFFFFFF not in _CLONES:
        return None
    link = f"/proc/{call.process}/fd/{handle}"
    try:
        info, path = os.stat(link), os.readlink(link)
    except OSError:
        return None
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)) or not _inside(path, root):
        return None
    if name == "mmap":
        raise NotModelledError(f"{path} is written through memory")
    position, flags = _position(call.process, handle)
    if name == "close":
        return Place(handle, 0, path) if flags & _ACCESS and stat.S_ISREG(info.st_mode) else None
    own = {"pwrite64": 3, "pwritev": 3, "pwritev2": 3}.get(name)
    far = {"copy_file_range": 3, "splice": 3}.get(name)
    if own is not None and signed64(given[own]) >= 0:
        position = given[own]
    elif far is not None and given[far]:
        (position,) = struct.unpack("q", _memory(call.process, given[far], 8))
    elif flags & os.O_APPEND:
        position = info.st_size
    return Place(handle, position, path)


def signed32(value: int) -> int:
    """The lower 32 bits of a register as a signed number."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def signed64(value: int) -> int:
    """A register as a signed number."""
    return value - (1 << 64) if value >> 63 else value


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")


def _info(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _position(process: int, handle: int) -> tuple[int, int]:
    lines = Path(f"/proc/{process}/fdinfo/{handle}").read_text().split("\n")
    return int(lines[0].split()[1]), int(lines[1].split()[1], 8)


def _path(process: int, handle: int, address: int) -> str:
    """A path that a process names, absolute, links before its last part followed."""
    text = b""
    while b"\0" not in text:
        text += _memory(process, address + len(text), 4096 - (address + len(text)) % 4096)
    name = os.fsdecode(text.partition(b"\0")[0])
    if not name.startswith("/"):
        number = signed32(handle)
        base = os.readlink(f"/proc/{process}/cwd" if number == _AT_FDCWD else f"/proc/{process}/fd/{number}")
        name = os.path.join(base, name)
    folder, last = os.path.split(name.rstrip("/"))
    return os.path.join(os.path.realpath(folder), last)


def _memory(process: int, address: int, length: int) -> bytes:
    with open(f"/proc/{process}/mem", "rb", buffering=0) as file:
        file.seek(address)
        return file.read(length)
