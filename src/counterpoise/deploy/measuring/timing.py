"""Latency and memory of several things, measured in turn, each in a fresh process.

A noisy neighbor, or a processor that heats up or slows down, hits all alike where they take turns. Calls within a turn
are alike, and no independent witnesses: the median of a turn is one observation, and the interval is that over turns.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from counterpoise.deploy.environments import outside
from counterpoise.deploy.measuring.subjects import Subject
from counterpoise.errors import ConfigError, MeasureError

LEVEL = 0.95
FEWEST_ROUNDS = 6
"""Of fewer medians no interval holds the true one with 95%: 1 - 2 * 0.5^5 is 94%."""
WORKER = Path(__file__).with_name("worker.py")
PAUSE = 0.02
"""Seconds before a turn, in which the threads of the one before fall asleep."""


@dataclass(frozen=True)
class Settings:
    """How it is measured.

    Attributes:
        threads: numbers of threads, each in a process of its own.
        batches: pictures at once.
        rounds: turns that each case gets.
        seconds: of timed calls in a turn, at least, with at least `calls` of them.
        warm_up: seconds of calls before them that do not count.
    """

    threads: tuple[int, ...] = (1,)
    batches: tuple[int, ...] = (1,)
    rounds: int = 9
    seconds: float = 0.2
    warm_up: float = 0.05
    calls: int = 5

    def __post_init__(self) -> None:
        for name, values in (("threads", self.threads), ("batch", self.batches), ("calls", (self.calls,))):
            if not values or min(values) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {', '.join(map(str, values)) or 'nothing'}.")
        if self.rounds < FEWEST_ROUNDS:
            raise ConfigError(
                f"rounds must be {FEWEST_ROUNDS} or more, got {self.rounds}: fewer have no 95% interval of the median."
            )
        if not self.seconds > 0 or not self.warm_up >= 0:
            raise ConfigError("seconds must be above 0, and warm_up 0 or more.")


@dataclass(frozen=True)
class Case:
    """One thing at one number of threads and one batch.

    Attributes:
        median_ms: of the medians of all turns, `round_ms`; milliseconds a call, of the whole batch.
        low_ms, high_ms: their 95% interval; None where there are too few turns.
        p95_ms, spread: 95% of all calls were faster; distance of their quartiles, as part of their median.
        processor_ms: time of all processors in a call, on average. With one thread it is the latency of a machine that
            does nothing else: where the latency is far above it, somebody else was at work.
        peak_mb: most memory (10^6 bytes) that the process ever held, Python and runtime included; `network_mb` of it
            since before the network was opened. None where the system does not say. Of LiteRT's tool, what was added
            since it began.
        millijoules: of the whole processor in a picture's time, where it can be read.
    """

    threads: int
    batch: int
    median_ms: float
    low_ms: float | None
    high_ms: float | None
    p95_ms: float | None
    spread: float | None
    processor_ms: float | None
    round_ms: list[float]
    calls: int
    peak_mb: float | None
    network_mb: float | None
    millijoules: float | None


def interval(medians: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """The 95% interval of a median from independent observations, whatever their distribution: two of them.

    Order statistics (scipy.stats.quantile_test); of nine they are the second and the eighth. None of too few.
    """
    from scipy.stats import quantile_test

    if len(medians) < FEWEST_ROUNDS:
        return None, None
    found = quantile_test(list(medians), p=0.5).confidence_interval(LEVEL)
    return float(found.low), float(found.high)


def time_all(
    subjects: Sequence[Subject], settings: Settings, tell: Callable[[str], None] = lambda text: None
) -> list[list[Case]]:
    """The cases of each subject, all in turn.

    Raises MeasureError where one cannot be opened or run.
    """
    with contextlib.ExitStack() as stack:
        workers = [
            (index, stack.enter_context(_Worker(subject, threads)))
            for index, subject in enumerate(subjects)
            for threads in settings.threads
        ]
        order = [(index, worker, batch) for index, worker in workers for batch in _batches(worker.subject, settings)]
        order.sort(key=lambda case: case[2])
        turns: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
        for number in range(settings.rounds):
            # The first round goes from small batches to large ones: a process's peak only rises.
            for index, worker, batch in order if number % 2 == 0 else reversed(order):
                time.sleep(PAUSE)
                turns.setdefault((index, worker.threads, batch), []).append(worker.turn(batch, settings))
            tell(f"round {number + 1} of {settings.rounds}")
        before = {(index, worker.threads): worker.before_mb for index, worker in workers}
    cases: list[list[Case]] = [[] for _ in subjects]
    for (index, threads, batch), found in sorted(turns.items()):
        cases[index].append(_case(threads, batch, found, before[index, threads]))
    return cases


def _batches(subject: Subject, settings: Settings) -> tuple[int, ...]:
    return settings.batches if subject.batch is None else (subject.batch,)


def _case(threads: int, batch: int, turns: Sequence[dict[str, Any]], before_mb: float | None) -> Case:
    calls = np.array([seconds for turn in turns for seconds in turn["seconds"]]) * 1e3
    medians = [1e3 * statistics.median(turn["seconds"]) for turn in turns]
    low, high = interval(medians)
    lower, middle, upper, p95 = np.percentile(calls, [25, 50, 75, 95])
    peak = turns[0]["peak_mb"]
    joules = [turn["joules"] for turn in turns]
    return Case(
        threads=threads,
        batch=batch,
        median_ms=statistics.median(medians),
        low_ms=low,
        high_ms=high,
        p95_ms=float(p95),
        spread=float((upper - lower) / middle),
        processor_ms=1e3 * sum(turn["processor_seconds"] for turn in turns) / len(calls),
        round_ms=medians,
        calls=len(calls),
        peak_mb=peak,
        network_mb=None if peak is None or before_mb is None else peak - before_mb,
        millijoules=None if None in joules else 1e3 * sum(joules) / len(calls) / batch,
    )


class _Worker:
    """A process that has opened a subject with so many threads."""

    def __init__(self, subject: Subject, threads: int) -> None:
        self.subject, self.threads = subject, threads
        self.before_mb: float | None = None

    def __enter__(self) -> _Worker:
        # Read by OpenMP when the process starts, before any runtime can be told.
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        if self.subject.python == Path(sys.executable):
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        else:
            environment = {**outside(), "OMP_NUM_THREADS": str(self.threads)}
        # -P: not from the folder of the script, whose neighbors are called like packages.
        self.process = subprocess.Popen(
            [str(self.subject.python), "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        subject = self.subject
        try:
            opened = self._ask(
                path=str(subject.path.resolve()),
                source=subject.source,
                modules=imports(subject.source),
                size=subject.size,
                channels=subject.channels,
                threads=self.threads,
            )
        except BaseException:
            self.__exit__()
            raise
        self.before_mb = opened["before_mb"]
        return self

    def turn(self, batch: int, settings: Settings) -> dict[str, Any]:
        """What the worker found in one turn."""
        return self._ask(batch=batch, warm_up=settings.warm_up, seconds=settings.seconds, calls=settings.calls)

    def _ask(self, **command: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise self._failed(f"its process ended with {self.process.wait()}, perhaps out of memory.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise self._failed(answer["error"])
        return answer

    def _failed(self, why: str) -> MeasureError:
        return MeasureError(self.subject.name, self.subject.runtime, why)

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def imports(source: str) -> list[str]:
    """The modules that a source imports, wherever in it."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return list(dict.fromkeys(found))


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
