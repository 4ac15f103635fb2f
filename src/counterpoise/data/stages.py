"""Seconds by stage on the way of a batch, so that a run can say who waits for whom."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Stages(threading.local):
    """Seconds that this thread has spent in each stage. A stage within another one counts as its own alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._within = 0.0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count what happens within to `stage`."""
        before, self._within = self._within, 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self.seconds[stage] += took - self._within
            self._within = before + took

    def waiting(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the time until each is there counts to `stage`."""
        iterator, end = iter(items), object()
        while True:
            with self.timed(stage):
                item = next(iterator, end)
            if item is end:
                return
            yield item  # type: ignore[misc]

    def drained(self) -> dict[str, float]:
        """What has been counted since this was last asked for."""
        taken = dict(self.seconds)
        self.seconds.clear()
        return taken


READING = Stages()
"""Of whoever makes batches, a worker process or this one: reading files, decoding them, and views of the pixels."""
