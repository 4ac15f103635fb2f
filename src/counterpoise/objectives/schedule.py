"""Numbers that move over training."""

from __future__ import annotations

import math
from typing import Protocol


class Moving(Protocol):
    """A schedule as the run file states it."""

    @property
    def shape(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float | None: ...


def value_at(schedule: Moving, progress: float) -> float:
    """Value at `progress` (0 at the first step, 1 at the last): constant, linear, or cosine (slow at both ends)."""
    if schedule.shape == "constant" or schedule.end is None:
        return schedule.start
    share = (1 - math.cos(math.pi * progress)) / 2 if schedule.shape == "cosine" else progress
    return schedule.start + (schedule.end - schedule.start) * share
