"""How sure a student is of each pixel of a scene, and which pixels it leaves unanswered."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.data.sources.base import IGNORE
from counterpoise.models.promise import ScenePromise
from counterpoise.tasks.confusion import largest_class

EDGES = torch.cat([torch.zeros(1), 1 - torch.linspace(0.2, 11.5, 399, dtype=torch.float64).neg().exp()]).float()
"""Thresholds that are looked at, ever closer as they come near 1, where most pixels of a scene are."""


class Marks(NamedTuple):
    """Pixels by the edge that their largest probability reaches, int64 [edges]; by_class [C, edges]."""

    right: Tensor
    wrong: Tensor
    by_class: Tensor

    def plus(self, other: Marks) -> Marks:
        """Those of both."""
        return Marks(*(one + two for one, two in zip(self, other, strict=True)))


def surety(logits: Tensor, temperature: float) -> Tensor:
    """The largest probability of each pixel, float32 [...], of logits [C, ...] divided by a temperature."""
    return (logits.float() / temperature).softmax(0).amax(0)


def unsure(logits: Tensor, promise: ScenePromise) -> Tensor:
    """Which pixels are left unanswered, bool [...], of logits [C, ...]."""
    return surety(logits, promise.temperature) < promise.threshold


def known(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [C, M] and classes int64 [M] of the pixels whose class is known, of logits [C, h, w] and a mask [h, w]."""
    there = (truth != IGNORE) & (truth >= 0)
    return logits[:, there.to(logits.device)], truth[there].long().to(logits.device)


def marks(logits: Tensor, labels: Tensor, temperature: float) -> Marks:
    """Count pixels, of logits [C, M] and classes [M]."""
    edges = EDGES.to(logits.device)
    place = torch.bucketize(surety(logits, temperature), edges, right=True) - 1
    right = largest_class(logits, 0) == labels
    count = len(EDGES)
    by_class = torch.bincount(labels * count + place, minlength=len(logits) * count).view(len(logits), count)
    hit, missed = (torch.bincount(place[kind], minlength=count) for kind in (right, ~right))
    return Marks(hit.cpu(), missed.cpu(), by_class.cpu())


class SurePixels:
    """What becomes of pixels by a promise, scene by scene."""

    def __init__(self, promise: ScenePromise, classes: int) -> None:
        self.promise = promise
        self.left = torch.zeros(classes, 2, dtype=torch.int64)  # by true class: pixels, and those left unanswered
        self.scenes: list[tuple[int, int, int]] = []  # pixels that are known, answered of these, and wrong of those

    def begin(self) -> None:
        """The next piece is of another scene."""
        self.scenes.append((0, 0, 0))

    def add(self, logits: Tensor, truth: Tensor) -> None:
        """Count a piece of a scene: logits [C, h, w] and a mask [h, w] of the same size."""
        values, labels = known(logits, truth)
        away = unsure(values, self.promise)
        wrong = int(((largest_class(values, 0) != labels) & ~away).sum())
        for column, kept in enumerate((labels, labels[away])):
            self.left[:, column] += torch.bincount(kept, minlength=len(self.left)).cpu()
        before = self.scenes[-1]
        self.scenes[-1] = before[0] + len(labels), before[1] + int((~away).sum()), before[2] + wrong

    def values(self, owners: Sequence[int]) -> dict[str, float | None]:
        """In percent: of all pixels `answered`; `wrong_of_answered`, a mean over scenes as the promise has it, or over
        groups where it is of these, None where nothing is answered: `owners` are those of each scene."""
        pixels, left = self.left.sum(0).tolist()
        shares: dict[int, list[float]] = {}
        for number, (owner, (known, answered, wrong)) in enumerate(zip(owners, self.scenes, strict=True)):
            if known:
                key = number if self.promise.groups is None else owner
                shares.setdefault(key, []).append(wrong / max(answered, 1))
        return {
            "answered": 100 * (pixels - left) / pixels,
            "wrong_of_answered": 100 * fmean(fmean(own) for own in shares.values()) if left < pixels else None,
        }

    def unsure(self, index: int) -> float | None:
        """Of a class, the share of its pixels that is left unanswered, in percent; None where there is none."""
        pixels, left = self.left[index].tolist()
        return 100 * left / pixels if pixels else None
