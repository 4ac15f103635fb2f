"""Two sides' answers to the same images: by how much the headline differs, and how sure that is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from counterpoise.tasks.base import Task

RESAMPLES = 1000
"""Of the bootstrap over images behind an interval."""
FEWEST, NUMBERS = 100, 10_000_000
"""Resamples at least, and numbers ranked at most beyond, where a score is of all answers together."""


def states(task: Task, classes: int, logits: Tensor, target: Tensor) -> Tensor:
    """The states of the score of single images [N, ...], on the CPU."""
    score = task.score(classes)
    if score.joined:
        score.update(logits, target)
        return score.state.cpu()
    if (each := score.of_each(logits, target)) is not None:
        return each.cpu()
    found = []
    for row in range(len(logits)):
        score = task.score(classes)
        score.update(logits[row : row + 1], target[row : row + 1])
        found.append(score.state.cpu())
    return torch.stack(found)


def metric(task: Task, classes: int, states: Tensor, times: Tensor | None = None) -> float | None:
    """The headline over images with these states [N, ...], each of them so many times; None where nothing is known."""
    score = task.score(classes)
    score.state = score.drawn(states, times)
    return score.values().get(task.headline)


def interval(
    task: Task, classes: int, one: Tensor, other: Tensor, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """The middle 95% of the first side's lead over images drawn again, from the states [N, ...] of single images.

    Drawn less often where scores are of all answers together, which takes its time. None where nothing is known.
    """
    if task.score(classes).joined:
        resamples = min(resamples, max(FEWEST, NUMBERS // one.numel()))
    generator = np.random.default_rng(0)
    count = len(one)
    leads = []
    for _ in range(resamples):
        times = torch.from_numpy(np.bincount(generator.integers(0, count, count), minlength=count))
        pair = [metric(task, classes, side, times) for side in (one, other)]
        if pair[0] is not None and pair[1] is not None:
            leads.append(pair[0] - pair[1])
    if not leads:
        return None
    low, high = np.quantile(leads, [0.025, 0.975]).tolist()
    return low, high
