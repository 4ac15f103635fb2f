"""A function in a forked child that is stopped at each of its system calls that write, as a debugger stops it.

Whatever makes the call is seen: Python, Rust, C++, stdio, a call past the C library. A seccomp filter lets all other
calls pass at full speed. Nothing has to be installed: it takes Linux on x86-64, and that ptrace and seccomp are
allowed, as they are to anybody for children of their own, in a container, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import platform
import signal
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Protocol

NUMBERS = {
    "write": 1, "open": 2, "close": 3, "mmap": 9, "ioctl": 16, "pwrite64": 18, "writev": 20, "sendfile": 40,
    "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85,
    "link": 86, "unlink": 87, "symlink": 88, "mknod": 133, "sync": 162, "openat": 257, "mkdirat": 258, "mknodat": 259,
    "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266, "splice": 275, "fallocate": 285,
    "pwritev": 296, "syncfs": 306, "renameat2": 316, "copy_file_range": 326, "pwritev2": 328, "io_uring_setup": 425,
    "openat2": 437,
}  # fmt: skip
_NAMES = {number: name for name, number in NUMBERS.items()}
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_TRACEME, _CONT, _GETREGS, _SETREGS, _SYSCALL, _SETOPTIONS = 0, 7, 12, 13, 24, 0x4200
# Marked stops of calls; children, threads and programs are followed; stops by seccomp; all die with who traces them.
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000
_SECCOMP_EVENT, _CALL_STOP, _ANY_KIND = 7, signal.SIGTRAP | 0x80, 0x40000000
_RESULT, _NUMBER, _ARGUMENTS = 10, 15, (14, 13, 12, 7, 9, 8)  # rax, orig_rax; rdi, rsi, rdx, r10, r8, r9


class Call(NamedTuple):
    """A system call that is about to be made; `process` may be a thread."""

    process: int
    name: str
    arguments: tuple[int, ...]


class Watcher(Protocol):
    """Is told of calls. Both answer an error number, which the caller then gets, or 0 for what is."""

    def enter(self, call: Call) -> int:
        """Before the call, which is not made where it is to fail."""

    def leave(self, call: Call, result: int) -> int:
        """After it; result: below 0 an error number, negated."""


class Outcome(NamedTuple):
    """How the function ended: what it gave, or what it raised: name and text, names of its bases, and the traceback."""

    value: Any = None
    error: str = ""
    text: str = ""
    kinds: tuple[str, ...] = ()
    trace: str = ""


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("program", ctypes.c_char_p))


def why_not() -> str:
    """Why nothing can be traced here; empty where it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "calls are traced on Linux, on x86-64"
    seen: list[str] = []

    class Seen:
        def enter(self, call: Call) -> int:
            seen.append(call.name)
            return 0

        def leave(self, call: Call, result: int) -> int:
            return 0

    try:
        traced(lambda: os.close(os.open(os.devnull, os.O_RDONLY)), Seen())
    except OSError as error:
        return f"calls may not be traced here: {error}"
    return "" if "close" in seen else "the filter of calls does not work here"


def traced(task: Callable[[], Any], watcher: Watcher) -> Outcome:
    """What a function does in a child of its own. Raises OSError where it may not be traced."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _be_child(task, writing)
    os.close(writing)
    try:
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            child = 0
            raise OSError("the child did not stop")
        _ptrace(_SETOPTIONS, child, 0, _OPTIONS)
        _ptrace(_CONT, child, 0, 0)
        _follow(child, watcher, reading)
        child = 0
        with os.fdopen(reading, "rb") as pipe:
            reading = -1
            told = pipe.read()
    finally:
        if reading >= 0:
            os.close(reading)
        if child:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.waitpid(-child, _ANY_KIND)
    if not told:
        raise OSError("the child ended before its time")
    outcome = pickle.loads(told)
    if outcome.error == "_Refused":
        raise OSError(outcome.text)
    return Outcome(*outcome)


class _Refused(Exception):  # noqa: N818
    pass


def _be_child(task: Callable[[], Any], pipe: int) -> NoReturn:
    try:
        try:
            os.setpgid(0, 0)
            if _libc is None or _libc.ptrace(_TRACEME, 0, 0, 0) != 0:
                os._exit(1)
            os.kill(os.getpid(), signal.SIGSTOP)
            _install_filter()
            outcome = Outcome(task())
        except BaseException as error:
            kinds = tuple(kind.__name__ for kind in type(error).__mro__)
            outcome = Outcome(None, kinds[0], str(error), kinds, traceback.format_exc())
        with os.fdopen(pipe, "wb") as file:
            pickle.dump(outcome, file)
    finally:
        os._exit(0)


def _install_filter() -> None:
    """Have the kernel stop this process at the calls above, and at no others."""
    trace, allow = 0x7FF00000, 0x7FFF0000
    lines = [(0x20, 0, 0, 0)]  # load the number of the call
    count = len(NUMBERS)
    lines += [(0x15, count - place, 0, number) for place, number in enumerate(NUMBERS.values())]
    lines += [(0x06, 0, 0, allow), (0x06, 0, 0, trace)]
    program = b"".join(struct.pack("HBBI", *line) for line in lines)
    assert _libc is not None
    wanted = _Filter(len(lines), program)
    no_new_privileges, set_seccomp, mode_filter = 38, 22, 2
    if _libc.prctl(no_new_privileges, 1, 0, 0, 0) or _libc.prctl(set_seccomp, mode_filter, ctypes.byref(wanted)):
        raise _Refused(f"no filter of calls: {os.strerror(ctypes.get_errno())}")


def _follow(child: int, watcher: Watcher, pipe: int) -> None:
    """Let the child and its threads run, until all have ended; what it tells is far smaller than a pipe holds."""
    calls: dict[int, Call] = {}
    new: set[int] = set()
    seen = {child}
    while True:
        try:
            process, status = os.waitpid(-child, _ANY_KIND)
        except ChildProcessError:
            return
        if not os.WIFSTOPPED(status):
            if process == child:  # threads that are left end with it
                calls.pop(process, None)
            continue
        stop, event, deliver, how = os.WSTOPSIG(status), status >> 16, 0, _CONT
        if process not in seen:
            seen.add(process)
            new.add(process)
        if event == _SECCOMP_EVENT:
            how = _entered(process, watcher, calls)
        elif stop == _CALL_STOP:
            call = calls.pop(process, None)
            if call is not None:
                registers = _registers(process)
                result = ctypes.c_long(registers[_RESULT]).value
                if error := watcher.leave(call, result):
                    registers[_RESULT] = (1 << 64) - error
                    _ptrace(_SETREGS, process, 0, ctypes.byref(registers))
        elif event == 0 and not (stop == signal.SIGSTOP and process in new):
            deliver = stop
        if event == 0 and stop == signal.SIGSTOP:
            new.discard(process)
        with contextlib.suppress(ProcessLookupError):
            _ptrace(how, process, 0, deliver)


def _entered(process: int, watcher: Watcher, calls: dict[int, Call]) -> int:
    registers = _registers(process)
    name = _NAMES.get(registers[_NUMBER])
    if name is None:
        return _CONT
    call = Call(process, name, tuple(registers[place] for place in _ARGUMENTS))
    if error := watcher.enter(call):
        registers[_NUMBER], registers[_RESULT] = (1 << 64) - 1, (1 << 64) - error
        _ptrace(_SETREGS, process, 0, ctypes.byref(registers))
        return _CONT
    calls[process] = call
    return _SYSCALL


def _registers(process: int) -> Any:
    registers = (ctypes.c_ulong * 27)()
    _ptrace(_GETREGS, process, 0, ctypes.byref(registers))
    return registers


def _ptrace(request: int, process: int, address: int, data: Any) -> None:
    assert _libc is not None
    _libc.ptrace.restype = ctypes.c_long
    value = data if not isinstance(data, int) else ctypes.c_void_p(data)
    if _libc.ptrace(request, process, ctypes.c_void_p(address), value) == -1 and (number := ctypes.get_errno()):
        raise OSError(number, os.strerror(number))
