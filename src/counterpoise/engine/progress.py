"""What a person sees while a run goes on: a bar with images a second, time left and the named terms."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from counterpoise.data.summary import Found


def say(found: Found, show: bool) -> None:
    """Print what was found in the data on stderr, where `show` is on."""
    console = Console(stderr=True, quiet=not show)
    for line in found.text():
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)


class Display:
    """A bar on a terminal, a line an epoch elsewhere; nothing where `show` is off. Always on stderr."""

    def __init__(self, total: int, done: int, show: bool) -> None:
        self.started = time.perf_counter()
        self.began_at = done
        self.console = Console(stderr=True, quiet=not show)
        self.live = show and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]:,.0f} images/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task("steps", total=total, completed=done, epoch="", speed=0.0, terms="")

    def __enter__(self) -> Display:
        if self.live:
            self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.bar.stop()  # of a bar that never was, some versions of Rich print an empty line

    def step(self, done: int, epoch: str, speed: float, terms: dict[str, float]) -> None:
        """Move the bar to `done` steps."""
        if self.live:
            self.bar.update(self.task, completed=done, epoch=epoch, speed=speed, terms=in_words(terms, 3))

    def left(self, done: int, total: int) -> str:
        """The time since this sitting began and what is left, as far as `done` steps tell; a live bar has its own."""
        if self.live:
            return ""
        spent = time.perf_counter() - self.started
        steps = max(done - self.began_at, 1)
        return f"{duration(spent)}, {duration(spent / steps * (total - done))} left  "

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class Pace:
    """A line on stderr now and then while something long goes on: what is done, since when, and what is left."""

    def __init__(self, total: int, what: str, show: bool, every: float = 10.0) -> None:
        self.total = total
        self.what = what
        self.every = every if show else float("inf")
        self.started = self.spoken_at = time.perf_counter()

    def at(self, done: int) -> None:
        """Say it where the last line is `every` seconds old and something is left."""
        now = time.perf_counter()
        if now - self.spoken_at < self.every or not 0 < done < self.total:
            return
        self.spoken_at, spent = now, now - self.started
        left = duration(spent / done * (self.total - done))
        print(f"{self.what}: {done:,} of {self.total:,}  {duration(spent)}, {left} left", file=sys.stderr, flush=True)


def in_words(values: Mapping[str, float], digits: int) -> str:
    """Named numbers on one line."""
    return "  ".join(f"{name} {value:.{digits}f}" for name, value in values.items())


def duration(seconds: float) -> str:
    """In words, two units at most."""
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} days"


def tell(notes: Iterable[str]) -> None:
    """Say on stderr what a person must know of their data, a line each."""
    for note in notes:
        print(f"Note: {note}", file=sys.stderr)
