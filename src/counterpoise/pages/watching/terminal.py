"""A run as a table in a terminal, with its curves in a line each."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from counterpoise.engine.progress import duration
from counterpoise.engine.waiting import readers_in_words, shares
from counterpoise.pages.watching.following import Follower, Point, State
from counterpoise.tasks import AGREEMENT, AGREEMENT_ALONE

_BLOCKS = "▁▂▃▄▅▆▇█"
_BESIDE = 36  # characters of numbers and of the spaces between columns
_EVERY = 1.0  # seconds
_LABELS = {"learning_rate": "learning rate", "images_per_second": "images/s"}


def follow(follower: Follower, console: Console | None = None) -> State:
    """Show a run until it has finished, or once where there is no terminal to show it on; Ctrl-C ends the watching."""
    console = console or Console()
    state = follower.read()
    if not console.is_terminal:
        console.print(picture(state, str(follower.path), console.width))
        return state
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            state = follower.read()
            live.update(picture(state, str(follower.path), console.width), refresh=True)
            if state.finished:
                return state
            time.sleep(_EVERY)


def picture(state: State, name: str, width: int) -> RenderableType:
    """What is known of a run, for a terminal of so many columns."""
    parts: list[RenderableType] = [_head(state, name)]
    if state.series or state.scores:
        parts.append(_curves(state, width))
    if state.stages:
        spent = "  ".join(f"{share:.0f}% {stage}" for stage, share in shares(state.stages).items() if share >= 0.5)
        parts.append(Text(f"time: {spent}"))
        if read := readers_in_words(state.stages, state.readers):
            parts.append(Text(read))
    if any(name.startswith(AGREEMENT) for name in state.scores):
        parts.append(Text(AGREEMENT_ALONE))
    if state.advice:
        parts.append(Text(state.advice))
    if state.damaged:
        parts.append(Text(f"{state.damaged} lines of metrics.jsonl could not be read.", style="yellow"))
    return Group(*parts)


def sparkline(points: Sequence[Point], width: int) -> str:
    """Values as blocks of eight heights, the mean of each stretch of steps one block; gaps where none is finite."""
    if not points or width < 1:
        return ""
    first, last = points[0].step, points[-1].step
    count = min(width, len(points))
    groups: list[list[float]] = [[] for _ in range(count)]
    for step, value in points:
        block = 0 if last == first else (step - first) * count // (last - first + 1)
        if math.isfinite(value):
            groups[block].append(value)
    means = [sum(group) / len(group) if group else None for group in groups]
    known = [mean for mean in means if mean is not None]
    if not known:
        return " " * count
    low, high = min(known), max(known)
    return "".join(" " if mean is None else _block(mean, low, high) for mean in means)


def _block(value: float, low: float, high: float) -> str:
    if high <= low:
        return _BLOCKS[3]
    return _BLOCKS[min(len(_BLOCKS) - 1, int((value - low) / (high - low) * len(_BLOCKS)))]


def _head(state: State, name: str) -> Text:
    text = Text()
    text.append(name, style="bold")
    if state.run is not None:
        run = state.run
        teacher = None if run.teacher is None else run.teacher.model or run.teacher.checkpoint or run.teacher.store
        text.append(f"  {run.student.model or 'a module'}" + (f" from {teacher}" if teacher else ", labels alone"))
    text.append("\n")
    style = "green" if state.status in {"running", "finished"} else "yellow"
    text.append(state.status, style=style)
    if state.run is not None and state.epoch:
        total = state.total_steps
        text.append(f"  epoch {state.epoch}/{state.run.train.epochs}  step {state.step:,}")
        text.append(f"/{total:,}" if total else "")
    if state.seconds_left is not None:
        text.append(f"  about {duration(state.seconds_left)} left")
    return text


def _curves(state: State, width: int) -> Table:
    named = max(len(_LABELS.get(name, name)) for name in [*state.series, *(f"val {score}" for score in state.scores)])
    width = min(60, width - named - _BESIDE)  # names are never cut: curves become shorter, and are left out in the end
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    table.add_column("now", justify="right", no_wrap=True)
    table.add_column("since the start" if width >= 15 else "", no_wrap=True)
    table.add_column("best", no_wrap=True)
    for name, points in state.series.items():
        if name == "loss" and len(state.series) == 4:
            continue  # one term is the loss
        table.add_row(escape(_LABELS.get(name, name)), _number(points[-1].value), sparkline(points, width), "")
    headline = next(iter(state.scores), "")
    for name, points in state.scores.items():
        best = ""
        if name == headline:
            top = max(points, key=lambda point: point.value)
            best = f"{_number(top.value)}, epoch {top.step}"
        style = "bold" if name == headline else ""
        table.add_row(f"val {escape(name)}", _number(points[-1].value), sparkline(points, width), best, style=style)
    return table


def _number(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def has_browser() -> bool:
    """Whether a browser can be opened here for a person to look at."""
    import os
    import webbrowser

    if sys.platform not in {"darwin", "win32"} and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True
