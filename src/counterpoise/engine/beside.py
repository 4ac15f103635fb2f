"""Whether a teacher is any better than the student that it has taught, on the val images that both were asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from counterpoise.engine.gauging import EvaluationGauge
from counterpoise.engine.processes import Processes
from counterpoise.tasks import Task, paired

MARGIN = 2.0
"""Points of the headline below which a lead is little."""
MOST_IMAGES, KEPT = 4000, 25_000_000
"""Images that are compared at most, evenly taken from all; numbers that are kept of them."""
JOINED = 1_000_000
"""Numbers at most where a score is of all answers together, which are ranked anew each time."""
RESAMPLES = 200
"""How often the images are drawn again."""


class Beside:
    """Counts the answers of a student image by image, with those that a gauge has kept of its teacher.

    Args:
        gauge: of the run; nothing is counted where it has kept no answers.
    """

    def __init__(self, gauge: EvaluationGauge | None, task: Task, classes: int) -> None:
        self.teacher = gauge.teacher if gauge is not None and gauge.fits else []
        self.task = task
        self.classes = classes
        size = task.score(classes).state.numel() or 2 * classes
        most = JOINED if task.score(classes).joined else KEPT
        images = 0 if gauge is None else min(gauge.images, MOST_IMAGES, most // size)
        self.every = 0 if gauge is None or images < 2 else math.ceil(gauge.images / images)
        self.seen = 0
        self.sides: tuple[list[Tensor], list[Tensor]] = ([], [])

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch: the student's logits, in order, and its target."""
        first, self.seen = self.seen, self.seen + len(logits)
        last = min(self.seen, len(self.teacher))
        places = [place for place in range(first, last) if place % self.every == 0] if self.every else []
        if not places:
            return
        rows = torch.tensor(places) - first
        mine, truth = logits[rows.to(logits.device)], target[rows.to(target.device)]
        if mine.ndim == 2:
            teacher = torch.stack([self.teacher[place] for place in places]).to(logits.device)
            self._count([mine, teacher], truth)
            return
        for row, place in enumerate(places):  # answers of the two may differ in size
            self._count([mine[row : row + 1], self.teacher[place][None].to(logits.device)], truth[row : row + 1])

    def _count(self, answers: Sequence[Tensor], truth: Tensor) -> None:
        for side, answer in zip(self.sides, answers, strict=True):
            side.append(paired.states(self.task, self.classes, answer, truth))

    def gather(self, processes: Processes) -> None:
        """Take over what the other processes have counted."""
        size = self.task.score(self.classes).state.shape
        empty = torch.zeros(0, 2 * self.classes) if self.task.score(self.classes).joined else torch.zeros(0, *size)
        student, teacher = (processes.join(torch.cat([empty, *side])) for side in self.sides)
        self.sides = ([student], [teacher])

    def remark(self) -> str | None:
        """What is to be said of a teacher that is hardly better, or worse; None of one that is, or of which one cannot
        tell.

        It is hardly better where it leads by less than two points and the middle 95% of its lead over val images drawn
        again (in pairs, 200 times) hold 0, and worse where they lie below 0.
        """
        student, teacher = (torch.cat(side) if side else torch.zeros(0) for side in self.sides)
        if len(student) < 2:
            return None
        scores = [paired.metric(self.task, self.classes, side) for side in (teacher, student)]
        if scores[0] is None or scores[1] is None or (lead := scores[0] - scores[1]) >= MARGIN:
            return None
        between = paired.interval(self.task, self.classes, teacher, student, RESAMPLES)
        if between is None or between[0] > 0:
            return None
        metric, (low, high) = self.task.headline, between
        found = (
            f"{metric} {scores[0]:.2f} of the teacher and {scores[1]:.2f} of the student on {len(student):,} val "
            f"images: a lead of {lead:+.2f}, over images drawn again {low:+.2f} to {high:+.2f} (95%)"
        )
        if high < 0:
            return (
                f"The teacher is worse than its student: {found}. Its terms may hold the student back: compare with a "
                "run without them (counterpoise compare), or take a better teacher."
            )
        return (
            f"The teacher is hardly better than its student: {found}. More from it is hardly to be had: whether it "
            "helped at all, a run without its terms tells (counterpoise compare); a better teacher may help more."
        )
