"""Ctrl-C, SIGTERM and a deadline as a question asked between steps, so that a run stops with a checkpoint."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any


class Interrupt:
    """While entered, the first signal raises `requested`; a second one ends the process as usual.

    Args:
        deadline: moment of time.monotonic() from which on a stop is requested as well; None: never.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = float("inf") if deadline is None else deadline
        self._signaled = False
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether to stop with a checkpoint."""
        return self._signaled or time.monotonic() >= self.deadline

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():  # signals are only delivered, and handled, there
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signaled = True
        signal.signal(number, self._before[number])
