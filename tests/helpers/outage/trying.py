"""An operation under every crash and with every call failing: what was lost."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from outage.operations import Operation, leftovers
from outage.recording import Opening, before, record
from outage.states import State, crashes
from outage.tracing import Call, Outcome, traced

MANY = 30
"""How often a call fails that fails for good, where that is to end: interrupted ones are made again and again."""
ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EINTR": errno.EINTR, "EMFILE": errno.EMFILE}


Kinds = list[tuple[str, bool]]
"""Names of errors, each with whether it is for good."""


def every_way(number: int) -> Kinds:
    """Of every call, all errors, once and for good."""
    return [(error, for_good) for for_good in (False, True) for error in ERRORS]


def in_turn(number: int) -> Kinds:
    """Of each call one of these."""
    ways = every_way(number)
    return [ways[number % len(ways)]]


def some(number: int) -> Kinds:
    """Of every third call one of these."""
    return in_turn(number // 3) if number % 3 == 0 else []


class Tried(NamedTuple):
    """How many states or failing calls were tried, and what was wrong: a line each."""

    count: int
    wrong: list[str]
    steps: int


class Place(NamedTuple):
    """An operation with a folder as it was before, and what readers find before and afterwards."""

    operation: Operation
    folder: Path
    scratch: Path
    old: Any
    new: Any


@contextlib.contextmanager
def placed(make: Callable[[Path], Operation]) -> Iterator[Place]:
    """Folders for an operation, in memory where there is such a place: what is tried here is not the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="power") as name:
        root = Path(name).resolve()
        (root / "scratch").mkdir()
        (root / "before").mkdir()
        operation = make(root / "scratch")
        operation.before(root / "before")
        old, new = (_value(operation, copied(root / "before", root), done) for done in (False, True))
        assert old != new
        yield Place(operation, root / "before", root, old, new)


def _value(operation: Operation, folder: Path, done: bool) -> Any:
    if done:
        operation.do(folder)
        assert not leftovers(folder), leftovers(folder)
    value = operation.found(folder)
    shutil.rmtree(folder)
    return value


def copied(folder: Path, root: Path) -> Path:
    """A copy that is worked in."""
    return Path(shutil.copytree(folder, Path(tempfile.mkdtemp(dir=root)) / "work"))


def crash(make: Callable[[Path], Operation], most: int, again_every: int = 1, torn: int = 3, seed: int = 0) -> Tried:
    """Open what each crash may leave of an operation; every so often, do it again there."""
    with placed(make) as place:
        watched = copied(place.folder, place.scratch)
        journal = record(watched, lambda: place.operation.do(watched))
        assert not journal.outcome.error, journal.outcome.trace
        wrong: list[str] = []
        count = 0
        for state in crashes(journal, most, seed, torn):
            folder = place.scratch / f"state{count}"
            state.put(folder)
            if problem := _after_crash(place, state, folder, count % again_every == 0):
                wrong.append(f"step {state.step} ({journal.steps[state.step - 1]!r:.120}): {problem} {_told(state)}")
            shutil.rmtree(folder)
            count += 1
        return Tried(count, wrong, len(journal.steps))


def _after_crash(place: Place, state: State, folder: Path, again: bool) -> str:
    try:
        value = place.operation.found(folder)
    except Exception as error:
        return f"lost: {error!r:.300}"
    if state.ended and value != place.new:
        return f"it came back, and afterwards {value!r:.100} was found"
    if value not in (place.old, place.new):
        return f"neither old nor new: {value!r:.100}"
    return after_next_start(place, folder) if again else ""


def after_next_start(place: Place, folder: Path) -> str:
    try:
        place.operation.do(folder)
        value = place.operation.found(folder)
    except Exception as error:
        return f"the next start fails: {error!r:.300}"
    if value != place.new:
        return f"after the next start: {value!r:.100}"
    return f"left after the next start: {left}" if (left := leftovers(folder)) else ""


def _told(state: State) -> str:
    return str({path: None if content is None else len(content) for path, content in state.entries.items()})[:600]


class Failing:
    """Has the n-th call that concerns a folder, and that may fail so, fail, and of the following so many less one.

    Attributes:
        count: calls so far; failed: those that were made to fail.
    """

    def __init__(self, root: Path, number: int, error: int, times: int) -> None:
        self.root, self.number, self.error, self.times = str(root), number, error, times
        self.count = self._fitting = 0
        self.failed: list[str] = []
        self._closing: set[int] = set()

    def enter(self, call: Call) -> int:
        begun = before(call, self.root)
        self.count += begun is not None
        if begun is None or (self.error == errno.EMFILE and not isinstance(begun, Opening)):
            return 0
        self._fitting += 1
        if not self.number <= self._fitting < self.number + self.times:
            return 0
        self.failed.append(call.name)
        if call.name == "close":  # what fails to be closed is closed nevertheless
            self._closing.add(call.process)
            return 0
        return self.error

    def leave(self, call: Call, result: int) -> int:
        if call.process in self._closing:
            self._closing.discard(call.process)
            return self.error
        return 0


def failing(make: Callable[[Path], Operation], kinds: Callable[[int], Kinds]) -> Tried:
    """Do an operation with its n-th call failing, for n = 1, 2, ..., until it comes back with no call failed.

    kinds: what to try of the n-th call.
    """
    with placed(make) as place:
        wrong: list[str] = []
        count, number, done = 0, 1, False
        while not done:
            ways = kinds(number)
            done = bool(ways)
            for name, for_good in ways:
                folder = copied(place.folder, place.scratch)
                times = 1 if not for_good else MANY if name == "EINTR" else 10**9
                watcher = Failing(folder, number, ERRORS[name], times)
                outcome = traced(lambda folder=folder: place.operation.do(folder), watcher)
                done = done and not watcher.failed and watcher.count < number
                if watcher.failed:
                    count += 1
                    if problem := _after_failure(place, outcome, folder):
                        how = "for good" if for_good else "once"
                        wrong.append(f"{name} at call {number} ({watcher.failed[0]}) {how}: {problem}")
                shutil.rmtree(folder.parent)
            number += 1
        return Tried(count, wrong, number - 2)


def _after_failure(place: Place, outcome: Outcome, folder: Path) -> str:
    if outcome.error and "CounterpoiseError" not in outcome.kinds:
        return f"raises {outcome.error}: {outcome.text:.200}\n{outcome.trace[-900:]}"
    try:
        value = place.operation.found(folder)
    except Exception as error:
        return f"lost: {error!r:.300} (it said {outcome.text!r:.200})"
    if value not in ((place.old, place.new) if outcome.error else (place.new,)):
        return f"found {value!r:.200} after {outcome.text or 'success'!r:.200}"
    return after_next_start(place, folder)
