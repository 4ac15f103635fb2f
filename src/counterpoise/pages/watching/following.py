"""What a run has written so far, read without holding or changing anything of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from counterpoise import config
from counterpoise.engine.progress import duration
from counterpoise.engine.run_folder import LOCK, METRICS, RUN_FILE, SUMMARY
from counterpoise.errors import CounterpoiseError, RunError, nearest
from counterpoise.system import documents
from counterpoise.system.files import regular

_QUIET = 120.0
"""Seconds without a line after which a run may have stopped; a step line comes every few seconds."""


class Point(NamedTuple):
    """A value after a step."""

    step: int
    value: float


@dataclass
class State:
    """What is known of a run.

    Attributes:
        run: its run file; None until it is there.
        series: values of the steps by name: loss, learning_rate, images_per_second, and the terms by theirs.
        scores: values of the evaluations by name.
        step, epoch: the last one that is known, epochs counted from 1.
        steps_per_epoch: None until the first epoch has ended.
        stages: seconds of the last logged steps, by what was waited for or worked on.
        readers: how many processes read for them (`workers`), and their seconds by stage.
        advice: what the run says would help.
        damaged: lines that could not be read.
    """

    run: config.Run | None = None
    series: dict[str, list[Point]] = field(default_factory=dict)
    scores: dict[str, list[Point]] = field(default_factory=dict)
    step: int = 0
    epoch: int = 0
    steps_per_epoch: int | None = None
    finished: bool = False
    silent_seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    readers: dict[str, float] = field(default_factory=dict)
    advice: str = ""
    damaged: int = 0

    @property
    def total_steps(self) -> int | None:
        """Of the whole run, once it is known."""
        if self.run is None or self.steps_per_epoch is None:
            return None
        return self.steps_per_epoch * self.run.train.epochs

    @property
    def status(self) -> str:
        """In a word or few."""
        if self.finished:
            return "finished"
        if self.run is None:
            return "waiting for the run to begin"
        if self.silent_seconds > _QUIET:
            return f"silent for {duration(self.silent_seconds)}: evaluating, or stopped"
        return "running"

    @property
    def seconds_left(self) -> float | None:
        """Of training, at the speed of late; None where that is not known."""
        total, speed = self.total_steps, self.series.get("images_per_second")
        if self.finished or total is None or not speed or self.run is None:
            return None
        recent = [point.value for point in speed[-20:] if point.value > 0]
        if not recent:
            return None
        return max(0, total - self.step) * self.run.train.batch_size * len(recent) / sum(recent)


class Follower:
    """Reads a run's folder again and again, what is new in it each time.

    Args:
        path: the run folder; it may not be there yet, but its parent must.
        now: the clock that files' times go by.

    Raises RunError where `path` is no run folder and cannot become one.
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file, expected a run folder.")
        if not path.parent.is_dir():
            raise RunError(f"{path} is no run folder: {path.parent} does not exist.")
        if path.is_dir() and not (path / RUN_FILE).exists() and any(path.iterdir()) and not _starting(path):
            raise RunError(f"{path} is no run folder: it holds no {RUN_FILE}.{_nearest_run(path)}")
        self.path = path
        self.state = State()
        self._now = now
        self._offset = 0
        self._rest = b""
        self._run_file: tuple[int, int] | None = None

    def read(self) -> State:
        """The state of the run now. A file that is missing or half written is one that is not there yet."""
        self._read_run_file()
        self._read_metrics()
        self.state.finished = self.state.run is not None and (self.path / SUMMARY).is_file()
        times = [_modified(self.path / name) for name in (METRICS, RUN_FILE)]
        self.state.silent_seconds = max(0.0, self._now() - max(times)) if any(times) else 0.0
        return self.state

    def stamp(self) -> str:
        """Changes whenever the folder's files do."""
        found = []
        for name in (RUN_FILE, METRICS, SUMMARY, "student/student.json"):
            try:
                info = (self.path / name).stat()
            except OSError:
                continue
            found.append(f"{name} {info.st_size} {info.st_mtime_ns} {info.st_ino}")
        return "; ".join(found)

    def _read_run_file(self) -> None:
        file = self.path / RUN_FILE
        try:
            info = file.stat()
            if self._run_file == (info.st_ino, info.st_mtime_ns):
                return
            run = config.kept(file)
        except (OSError, CounterpoiseError):
            return
        if self._run_file is not None:  # another run in its place
            self._forget()
        self._run_file = info.st_ino, info.st_mtime_ns
        self.state.run = run

    def _read_metrics(self) -> None:
        try:
            with regular(self.path / METRICS).open("rb") as file:
                if file.seek(0, 2) < self._offset:  # cut back by --resume
                    self._forget()
                file.seek(self._offset)
                new = file.read()
        except OSError:
            return
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            self._take(line)

    def _forget(self) -> None:
        self.state = State(run=self.state.run)
        self._offset, self._rest = 0, b""

    def _take(self, line: bytes) -> None:
        try:
            values = documents.parse_json(line)
            if values["kind"] == "step":
                self._take_step(values)
            elif values["kind"] == "epoch":
                self._take_epoch(values)
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
            self.state.damaged += 1

    def _take_step(self, values: dict[str, Any]) -> None:
        step = int(values["step"])
        numbers = {"loss": values["loss"], **values["terms"]}
        numbers |= {name: values[name] for name in ("learning_rate", "images_per_second")}
        for name, value in numbers.items():
            self.state.series.setdefault(str(name), []).append(Point(step, float(value)))
        self.state.step, self.state.epoch = step, int(values["epoch"]) + 1
        self._take_stages(values)

    def _take_epoch(self, values: dict[str, Any]) -> None:
        step, epoch = int(values["step"]), int(values["epoch"]) + 1
        for name, value in values["val"].items():
            self.state.scores.setdefault(str(name), []).append(Point(epoch, float(value)))
        self.state.step, self.state.epoch = step, epoch
        self._take_stages(values)
        self.state.advice = str(values.get("advice", ""))
        self.state.steps_per_epoch = max(1, step // epoch)

    def _take_stages(self, values: dict[str, Any]) -> None:
        if values.get("stages"):
            self.state.stages = {str(name): float(value) for name, value in values["stages"].items()}
            self.state.readers = {str(name): float(value) for name, value in values.get("readers", {}).items()}


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _starting(path: Path) -> bool:
    """Whether a folder holds nothing but what a run makes before its run file."""
    return all(entry.name in {LOCK, "checkpoints", f".{RUN_FILE}.partial"} for entry in path.iterdir())


def _nearest_run(path: Path) -> str:
    runs = [entry.name for entry in path.iterdir() if (entry / RUN_FILE).is_file()]
    if runs:
        return f" It has runs in it: {', '.join(sorted(runs)[:5])}."
    beside = [entry.name for entry in path.parent.iterdir() if (entry / RUN_FILE).is_file()]
    return nearest(path.name, beside)
