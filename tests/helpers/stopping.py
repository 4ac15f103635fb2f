"""A run that stops at a step that is chosen, whatever the clock says."""

from __future__ import annotations


class AfterSteps(float):
    """A deadline that has come when it is asked about for the n-th time, which a run does once a step."""

    left: int

    def __new__(cls, steps: int) -> AfterSteps:
        made = super().__new__(cls, "inf")
        made.left = steps
        return made

    def __le__(self, now: object) -> bool:
        self.left -= 1
        return self.left <= 0
