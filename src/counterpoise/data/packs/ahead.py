"""What is read next is fetched while the present batch is made, and what is read last makes room for it."""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from counterpoise.data.packs import cache
from counterpoise.data.packs.cache import FULLEST, Kept, remove
from counterpoise.data.packs.claims import SHARED
from counterpoise.data.packs.course import Course
from counterpoise.data.packs.format import Shard
from counterpoise.data.packs.remote import Ranges
from counterpoise.errors import CounterpoiseError

_AT_ONCE = 8
"""Requests, where the cache has room for what they bring."""
_LONGEST = 2**22
"""Bytes of one."""
_BATCHES = 4
"""That are near: of each worker."""
_SHARE = 10
"""Of this many seconds one is for plans, at most."""


class Ahead:
    """One process of all that share a cache and an order reads ahead, in threads, for all of them.

    In what order things come is not changed by it, nor is what is read.
    """

    _work: _Work | None

    def __init__(self, course: Course) -> None:
        self._course = course
        self._begin()

    def at(self, epoch: int, place: int) -> None:
        """Told at which place of an epoch the batch begins that is made now."""
        if self._process != os.getpid():
            self._begin()
        if self._work is None:
            self._course.cache.planned = True
            info = get_worker_info()
            if not SHARED and info is not None and info.id:
                return
            if not self._course.cache.claims.take(self._course.key, [0]):
                return
            self._work = work = _Work(self._course, 1 if info is None else info.num_workers)
            weakref.finalize(self, work.stop)
        self._work.at(epoch, place)

    def _begin(self) -> None:
        self._process, self._work = os.getpid(), None

    def __getstate__(self) -> dict[str, Any]:
        return {"_course": self._course}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._course = state["_course"]
        self._begin()


class _Work:
    """The threads: one that plans, and some that fetch.

    Args:
        workers: processes that make batches, of which this is one.
    """

    def __init__(self, course: Course, workers: int) -> None:
        self._course, self._cache = course, course.cache
        self._room = self._cache.limit * FULLEST
        self._since = time.time_ns()
        self._behind = 2 * (workers - 1) * course.batch_size
        self._near = _BATCHES * workers * course.batch_size
        self._longest = int(min(_LONGEST, max(cache.BLOCK, self._room / 64)))
        self._changed = threading.Condition()
        self._position: tuple[int, int] | None = None
        self._stopped = threading.Event()
        self._runs: queue.Queue[tuple[Ranges, Shard, range]] = queue.Queue(1)
        self._failed = False
        at_once = max(1, min(_AT_ONCE, int(self._room / 8 / self._longest)))
        for work in [self._plan_on] + [self._fetch_on] * at_once:
            threading.Thread(target=work, daemon=True).start()

    def at(self, epoch: int, place: int) -> None:
        """Say at which place of an epoch something is read now."""
        with self._changed:
            self._position, self._failed = (epoch, place), False
            self._changed.notify()

    def stop(self) -> None:
        """Have the threads end, and let others read ahead."""
        self._stopped.set()
        self._cache.claims.drop(self._course.key, [0])
        with self._changed:
            self._changed.notify()

    def _plan_on(self) -> None:
        planned: tuple[int, int] | None = None
        over = -1
        while not self._stopped.is_set():
            with self._changed:
                while self._position == planned and not self._stopped.is_set():
                    self._changed.wait()
                planned = self._position
            if planned is None or planned[0] == over:
                continue
            began = time.thread_time()
            with suppress(CounterpoiseError, OSError):  # who reads what cannot be had says it
                if self._plan(*planned):
                    over = planned[0]
            self._stopped.wait(_SHARE * (time.thread_time() - began))

    def _plan(self, epoch: int, place: int) -> bool:
        """Have all fetched that there is room for; whether that was all until the end of the epoch."""
        behind, began, again = max(0, place - self._behind), time.thread_time(), 0.0

        def last_first(kept: list[Kept]) -> list[tuple[Kept, int]]:
            uses = self._course.next_uses(epoch, behind, kept, self._since)
            rows = np.lexsort((np.array([each.used for each in kept]), -uses))
            return [(kept[row], int(uses[row])) for row in rows]

        kept = self._cache.make_room(self._room, lambda kept: [each for each, _ in last_first(kept)])
        if kept is None:
            return False
        used = sum(each.bytes for each in kept)
        going: Iterator[tuple[Kept, int]] | None = None
        for stretch in self._course.ahead(epoch, behind, self._near + place - behind, self._room, self._longest, kept):
            for there, shard, blocks in stretch.runs:
                used += min(blocks.stop * cache.BLOCK, shard.bytes) - blocks.start * cache.BLOCK
                while used > self._room:
                    going = going or iter(last_first(kept))
                    gone, use = next(going, (None, 0))
                    if gone is None or use < stretch.end:  # it is needed before what would take its place
                        return False
                    remove(gone.path)
                    used -= gone.bytes
                again = again or time.monotonic() + _SHARE * (time.thread_time() - began)
                if not self._ask(there, shard, blocks):
                    return False
                if self._position != (epoch, place) and time.monotonic() > again:
                    return False
        return True

    def _ask(self, place: Ranges, shard: Shard, blocks: range) -> bool:
        """Hand a run to the threads that fetch, as soon as one is free; whether that was of use."""
        while not self._stopped.is_set() and not self._failed:
            try:
                self._runs.put((place, shard, blocks), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def _fetch_on(self) -> None:
        while not self._stopped.is_set():
            try:
                place, shard, blocks = self._runs.get(timeout=1.0)
            except queue.Empty:
                continue
            try:
                place.fetch(shard, blocks)
            except CounterpoiseError:  # said by who reads it
                self._failed = True
