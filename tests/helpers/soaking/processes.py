"""Command lines as forked children, which share the imports of this process: one dies of a signal in milliseconds."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import kill_host

_SUBREAPER = 36
_LOOKING = 0.1  # seconds between the looks that torchrun takes at its processes
_ENDED = 30.0  # seconds within which whatever a command started ends after it


def ready() -> None:
    """Import what commands import, and become the parent of whatever they leave behind."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell that starts this in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    kill_host.import_all()
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


class Command:
    """A command line that runs, in one process or several that work together.

    Args:
        where: working folder.
        printed: folder for stdout.txt and stderr.txt.
        largest_file: bytes that a file of it may have.
    """

    def __init__(
        self, arguments: list[str], where: Path, printed: Path, world: int = 1, largest_file: int | None = None
    ) -> None:
        self.printed = [printed / name for name in ("stdout.txt", "stderr.txt")]
        for path in self.printed:
            path.write_bytes(b"")
        request = {"arguments": arguments, "processes": world, "folder": str(printed), "where": str(where)}
        sys.stdout.flush()
        self.running = kill_host.start({**request, "largest_file": largest_file})
        self.statuses: list[int] = []
        self.over: float | None = None
        self.started = time.perf_counter()

    def ended(self) -> bool:
        """Whether all of its processes have; where one fails, the others are ended as torchrun does."""
        for child in list(self.running):
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                self.running.remove(child)
                self.statuses.append(os.waitstatus_to_exitcode(status))
                if self.statuses[-1] and self.over is None:
                    self.over = time.monotonic() + _LOOKING
        if self.over is not None and time.monotonic() > self.over:
            self.send(signal.SIGKILL)
        return not self.running

    def send(self, number: int, to: int | None = None) -> None:
        """A signal to one of its processes, or to all."""
        for child in self.running if to is None else [self.running[to % len(self.running)]]:
            os.kill(child, number)

    def wait(self, act: Callable[[], bool] | None = None) -> int:
        """The first exit status that is not 0. `act` is asked again and again until it has acted."""
        while not self.ended():
            if act is not None and act():
                act = None
            time.sleep(0.001)
        return next((status for status in self.statuses if status), 0)

    def said(self) -> str:
        """What it has printed, to stderr last."""
        return "".join(path.read_text(errors="replace") for path in self.printed)


def left() -> int:
    """How many processes do not end by themselves although their commands have; they are killed."""
    until, number = time.monotonic() + _ENDED, 0
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return number
        if time.monotonic() > until:
            for child in _children():
                number += 1
                os.kill(child, signal.SIGKILL)
            until = float("inf")
        time.sleep(0.01)


def _children() -> list[int]:
    return [int(name) for name in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
