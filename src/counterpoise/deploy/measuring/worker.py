"""The fresh process in which one export is opened and timed: a script that imports its runtime and nothing of ours.

It reads commands as lines of JSON and answers each with one. The first opens the export; each further one is a turn.
"""

from __future__ import annotations
import __future__

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer until stdin ends."""
    # Runtimes print what they like; the answers go where stdout went before.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    lines = iter(sys.stdin.readline, "")
    opened = None
    for line in lines:
        command = json.loads(line)
        try:
            if opened is None:
                opened, reply = _open(command)
            else:
                reply = _turn(opened, **command)
        except BaseException as error:  # whatever the runtime raises is told, not lost
            reply = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


def _open(command: dict[str, Any]) -> tuple[Callable[[int], Callable[[], Any]], dict[str, Any]]:
    """Open what `source` knows to open; how to call it with a batch of pictures, and the process's memory before."""
    import numpy as np

    for module in command["modules"]:  # so that what they take is not counted as the network's
        __import__(module)
    space: dict[str, Any] = {}
    exec(compile(command["source"], "load", "exec", __future__.annotations.compiler_flag), space)
    before = _memory("VmRSS")
    start = time.perf_counter()
    runtime = space["load"](command["path"], command["threads"])
    seconds = time.perf_counter() - start
    (height, width), channels = command["size"], command["channels"]

    def ready(batch: int) -> Callable[[], Any]:
        pixels = np.random.default_rng(0).integers(0, 256, (batch, channels, height, width), dtype=np.uint8)
        return lambda: runtime(pixels)

    return ready, {"before_mb": before, "open_seconds": seconds}


def _turn(
    opened: Callable[[int], Callable[[], Any]], batch: int, warm_up: float, seconds: float, calls: int
) -> dict[str, Any]:
    """Time calls for at least so long and so often, after such a warm-up."""
    call = opened(batch)
    end = time.perf_counter() + warm_up
    call()
    while time.perf_counter() < end:
        call()
    taken: list[float] = []
    gc.disable()
    energy, processor = _energy(), time.process_time()
    end = time.perf_counter() + seconds
    while len(taken) < calls or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    used, processor = _energy(), time.process_time() - processor
    gc.enable()
    joules = None if energy is None or used is None else sum(_risen(*pair) for pair in zip(energy, used, strict=True))
    peak = _memory("VmHWM")
    return {"seconds": taken, "processor_seconds": processor, "peak_mb": peak, "joules": joules}


def _memory(key: str) -> float | None:
    """Megabytes (10^6 bytes) resident now (VmRSS), or at most so far (VmHWM); None where the system does not say.

    Not ru_maxrss, which on Linux a child inherits from the process that started it.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123
            return next(int(line.split()[1]) * 1024 / 1e6 for line in file if line.startswith(key + ":"))
    except (OSError, StopIteration):
        return None


Counter = tuple[int, int]
"""Microjoules, and the number at which they start again from 0."""


def _energy(root: str = "/sys/class/powercap") -> list[Counter] | None:
    """The processor's energy counters (RAPL), one a package; None where they are not there or not for us to read."""
    found = []
    try:
        for folder in sorted(Path(root).glob("intel-rapl:*")):
            if folder.name.count(":") == 1:  # packages; intel-rapl:0:0 is a part of one
                found.append(tuple(int((folder / name).read_text()) for name in ("energy_uj", "max_energy_range_uj")))
    except (OSError, ValueError):
        return None
    return [(value, limit) for value, limit in found] or None


def _risen(before: Counter, after: Counter) -> float:
    """Joules between two readings of a counter, which may have started again once."""
    risen = after[0] - before[0]
    return (risen if risen >= 0 else risen + after[1]) / 1e6


if __name__ == "__main__":
    main()
