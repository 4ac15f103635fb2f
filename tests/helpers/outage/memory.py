"""Memory that runs out: the n-th allocation of Python's fails, by itself or with all that follow."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from counterpoise.errors import of_memory
from outage.operations import Operation
from outage.trying import Place, Tried, after_next_start, copied, placed

SECONDS = {False: 300, True: 2}
"""That an operation may take, by whether all memory is gone: libraries try again for ever then."""
MOST = 10**7
"""Allocations, beyond any operation's."""
CRASHES = (signal.SIGABRT, signal.SIGSEGV)
"""How a process ends in a library in C that did not look whether it was given memory."""
OTHERWISE = re.compile(r"SystemError|PanicException|TypeError \w+: path should be")
"""What else is raised: by Python for a library in C, by pyo3, by Python where it forgets its own MemoryError."""


def why_not() -> str:
    """Why no allocation can be made to fail here; empty where it can."""
    return "" if hasattr(os, "fork") and hasattr(_testcapi(), "set_nomemory") else "this Python has no _testcapi"


def starving(make: Callable[[Path], Operation], growth: float) -> Tried:
    """Do an operation with its n-th allocation failing, for n = 1 and ever larger by a factor, until none fails."""
    with placed(make) as place:
        wrong: list[str] = []
        count = 0
        for for_good in (False, True):
            number = 1
            while number < MOST:
                folder = copied(place.folder, place.scratch)
                ended = _starved(lambda folder=folder: place.operation.do(folder), number, for_good)  # type: ignore[misc]
                count += 1
                if problem := _wrong(place, ended, for_good, folder):
                    wrong.append(f"allocation {number}{' and all others' if for_good else ''}: {problem}")
                shutil.rmtree(folder.parent)
                if for_good and ended == "success":
                    break  # its allocations are fewer
                number = int(number * growth) + 1
        return Tried(count, wrong, number)


def _wrong(place: Place, ended: str, for_good: bool, folder: Path) -> str:
    kind, _, text = ended.partition(" ")
    # A process that is ended can say nothing; what it leaves must be whole all the same.
    crashed = ended in [f"killed by signal {int(one)}" for one in CRASHES]
    told = kind in ("success", "CounterpoiseError", "memory") or OTHERWISE.match(ended) is not None
    if not told and not crashed and not (for_good and kind == "killed"):
        return ended
    try:
        value = place.operation.found(folder)
    except Exception as error:
        return f"lost: {error!r:.300} ({ended:.200})"
    if value not in ((place.new,) if kind == "success" else (place.old, place.new)):
        return f"found {value!r:.200} after {ended:.200}"
    if kind == "CounterpoiseError" and "damaged" in text:
        return f"takes a lack of memory for damage: {text:.200}"
    return after_next_start(place, folder)


def _starved(task: Callable[[], Any], number: int, for_good: bool) -> str:
    """How a task ends in a child: success, the kind of an error and what it says, or killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _be_child(task, number, for_good, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return told or f"killed by signal {os.WTERMSIG(status)}"


def _be_child(task: Callable[[], Any], number: int, for_good: bool, pipe: int) -> NoReturn:
    allocator = _testcapi()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS[for_good])
    try:
        ended: BaseException | None = None
        try:
            allocator.set_nomemory(number, 0 if for_good else number + 1)
            task()
        except BaseException as error:
            ended = error
        allocator.remove_mem_hooks()
        kinds = [kind.__name__ for kind in type(ended).__mro__]
        kind = "CounterpoiseError" if "CounterpoiseError" in kinds else kinds[0]
        if isinstance(ended, Exception) and kind != "CounterpoiseError" and of_memory(ended):
            kind = "memory"
        os.write(pipe, b"success" if ended is None else f"{kind} {ended}"[:1000].encode())
    finally:
        os._exit(0)


def _testcapi() -> Any:
    try:
        return importlib.import_module("_testcapi")
    except ImportError:
        return None
