"""Where the time of training goes: who waits for whom, and what would help."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from counterpoise.data.stages import Stages

Item = TypeVar("Item")
WAITS = 0.1
"""Part of the time from which on waiting is worth a word."""
BUSY = 0.5
"""Part of the time from which on a teacher is worth recording."""


@dataclass
class Times:
    """Seconds of steps by stage, and of those who read for them."""

    steps: dict[str, float] = field(default_factory=dict)
    reading: dict[str, float] = field(default_factory=dict)

    def add(self, more: Times) -> None:
        """Count these, too."""
        for sums, seconds in ((self.steps, more.steps), (self.reading, more.reading)):
            for stage, value in seconds.items():
                sums[stage] = sums.get(stage, 0.0) + value

    def told(self, workers: int) -> dict[str, dict[str, float]]:
        """As the log has them; `workers`: how many processes read."""
        steps, reading = (
            {stage: round(value, 4) for stage, value in part.items()} for part in (self.steps, self.reading)
        )
        return {"stages": steps, **({"readers": {"workers": float(workers), **reading}} if reading else {})}


class StepClock:
    """Seconds of steps by stage: pictures and store are waited for, the others are worked on.

    On CUDA the device works on while the host goes ahead, so there its own events say how long it worked, and what is
    waited for counts as far as it had nothing to do.
    """

    def __init__(self, device: torch.device) -> None:
        self.host = Stages()
        self.cuda = device.type == "cuda"
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._started = time.perf_counter()

    def start(self) -> None:
        """What follows is counted; what was before is forgotten."""
        self.host.drained()
        self._events.clear()
        self._started = time.perf_counter()

    def waiting(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the time until each is there counts to `stage`."""
        return self.host.waiting(stage, items)

    @contextmanager
    def working(self, stage: str) -> Iterator[None]:
        """Count what the device does within to `stage`."""
        if not self.cuda:
            with self.host.timed(stage):
                yield
            return
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        first.record()
        yield
        last.record()
        self._events.append((stage, first, last))

    def taken(self) -> dict[str, float]:
        """Seconds by stage since the start or since this was last asked for; `other` is the rest.

        On CUDA to be asked once the host has waited for the device.
        """
        now = time.perf_counter()
        whole, self._started = now - self._started, now
        seconds = Counter(self.host.drained())
        if self.cuda:
            busy: Counter[str] = Counter()
            for stage, first, last in self._events:
                busy[stage] += first.elapsed_time(last) / 1000
            self._events.clear()
            seconds = merged(whole, seconds, busy)
        return {**seconds, "other": max(0.0, whole - sum(seconds.values()))}


def merged(whole: float, waited: Mapping[str, float], busy: Mapping[str, float]) -> Counter[str]:
    """Of a host that waited while a device was busy: what the device did, and what it had to wait for.

    A host that waits while the device still works costs nothing, so waiting is cut to the time in which it was idle.
    """
    idle, all_waiting = max(0.0, whole - sum(busy.values())), sum(waited.values())
    share = min(1.0, idle / all_waiting) if all_waiting else 0.0
    return Counter({**{stage: seconds * share for stage, seconds in waited.items()}, **busy})


def shares(seconds: Mapping[str, float]) -> dict[str, float]:
    """Stages in percent of the whole, the largest first."""
    whole = sum(seconds.values())
    return {
        stage: 100 * value / whole for stage, value in sorted(seconds.items(), key=lambda item: -item[1]) if value > 0
    }


def readers_in_words(stages: Mapping[str, float], readers: Mapping[str, float]) -> str:
    """What those who read did meanwhile, and how long they waited for the steps; empty where nobody read.

    Args:
        stages: seconds of the steps.
        readers: `workers`, how many processes read, and their seconds by stage.
    """
    spent = {stage: seconds for stage, seconds in readers.items() if stage != "workers"}
    count, work = int(readers.get("workers", 0)), sum(spent.values())
    if work <= 0:
        return ""
    if count:
        spent["waiting"] = max(0.0, count * sum(stages.values()) - work)
    parts = ", ".join(f"{share:.0f}% {stage}" for stage, share in shares(spent).items() if share >= 0.5)
    return f"{f'{count} reading process' + 'es' * (count > 1) if count else 'pictures'}: {parts}"


def advice(steps: Mapping[str, float], reading: Mapping[str, float], workers: int, cores: int) -> str:
    """One sentence: what the steps wait for, and what would help.

    Args:
        steps: seconds by stage, as `StepClock.taken`.
        reading: seconds of those who read, by stage.
        workers, cores: processes that read, and what the machine has for this one.
    """
    whole = sum(steps.values())
    if whole <= 0 or "pictures" not in steps:  # fast steps have all that they need where they need it
        return ""
    waited, stored, asked = (steps.get(stage, 0.0) / whole for stage in ("pictures", "store", "teacher"))
    if waited >= WAITS:
        return f"The step waits for pictures {waited:.0%} of the time: {_faster(steps, reading, workers, cores)}."
    if stored >= WAITS:
        return f"The step waits for the teacher store {stored:.0%} of the time: copy it to a faster disk."
    if asked >= BUSY:
        return f"The teacher takes {asked:.0%} of the time: record what it says once (counterpoise record)."
    return f"The step waits for pictures {waited:.0%} of the time."


def _faster(steps: Mapping[str, float], reading: Mapping[str, float], workers: int, cores: int) -> str:
    work, free = sum(reading.values()), sum(steps.values()) - steps.get("pictures", 0.0)
    needed = math.ceil(1.1 * work / free) if free > 0 else cores
    slowest = max(reading, key=lambda stage: reading[stage], default="")
    helped = {
        "reading": "put the files on a faster disk",
        "decoding": "write the set once with smaller pictures (counterpoise pack)",
        "views": "leave out augmentations, or use a machine with more cores",
    }.get(slowest, "use a machine with more cores")
    if not work or workers >= min(needed, cores):
        return helped
    return f"data.workers {min(needed, cores)}" + (f", or {helped}" if slowest == "decoding" else "")
