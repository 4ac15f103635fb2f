"""Scores of scenes in which each class is a question of its own, answered by yes from a threshold on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from counterpoise.data.sources.base import ImageSet
from counterpoise.system.machine import as_double
from counterpoise.tasks.confusion import upsample
from counterpoise.tasks.scores.base import Kind, Seen
from counterpoise.tasks.scores.cases import Counts
from counterpoise.tasks.scores.overlap import OVERLAP


class Questioned(Seen):
    """One picture: what a network answers, and what is true.

    Args:
        logits: [Q, h, w] at any resolution.
        truth: int8 [Q, H, W] of 1, 0 and -1, which is neither true nor answered.
        spacing: as for `Seen`.
        thresholds: from which probability on each question is answered by yes.
    """

    def __init__(
        self, logits: Tensor, truth: Tensor, spacing: tuple[float, float] | None, thresholds: Sequence[float]
    ) -> None:
        super().__init__(logits, truth, spacing)
        self.thresholds = thresholds

    @cached_property
    def full(self) -> Tensor:
        return upsample(self.logits[None], (self.truth.shape[1], self.truth.shape[2]))[0]

    @cached_property
    def cells(self) -> Tensor:
        hit, wrong, missed = cells_of(self.full[None], self.truth[None], self.thresholds)[0]
        return torch.stack([hit, hit + missed, hit + wrong, as_double((self.truth >= 0).flatten(1).sum(1)).cpu()], 1)

    @cached_property
    def answer(self) -> NDArray[Any]:
        """Whether each question is answered by yes, bool [Q, H, W]."""
        found: NDArray[np.bool_] = answered(self.full, self.thresholds).cpu().numpy()
        return found

    def masks(self, number: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        truth = self.truth[number].cpu().numpy()
        return truth > 0, self.answer[number] & (truth >= 0)

    def ranked(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        truth = self.truth[number].cpu()
        return self.full[number].cpu(), truth > 0, truth >= 0


class QuestionCounts(Counts):
    """Counts of pictures, as `Counts`, with the thresholds of the questions."""

    def __init__(
        self, kinds: Sequence[Kind], questions: Sequence[str], thresholds: Sequence[float], images: ImageSet | None
    ) -> None:
        super().__init__(kinds, questions, images)
        self.thresholds = list(thresholds)

    def seen(self, logits: Tensor, truth: Tensor, spacing: tuple[float, float] | None) -> Seen:
        return Questioned(logits, truth, spacing, self.thresholds)

    def counted(self, kind: Kind) -> list[int]:
        return list(range(len(self.classes)))

    def pooled_over(self, kind: Kind) -> list[int]:
        """Those that some pixel of all pictures is a yes of: of the others nothing tells how well they are answered."""
        there = self.counts(OVERLAP).sum(0)[:, 1]
        return [number for number in self.counted(kind) if there[number] > 0]


def cells_of(logits: Tensor, answers: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Of each image and question the pixels that are rightly a yes, wrongly one, and missed: float64 [N, 3, Q].

    Args:
        logits: [N, Q, h, w]; answers: int8 [N, Q, H, W] of 1, 0 and -1.
    """
    size = (answers.shape[2], answers.shape[3])
    found = []
    for part, truth in zip(logits, answers.to(logits.device), strict=True):
        yes = answered(upsample(part[None], size)[0], thresholds)
        cells = (yes & (truth > 0), yes & (truth == 0), ~yes & (truth > 0))
        found.append(torch.stack([as_double(each.flatten(1).sum(1)) for each in cells]).cpu())
    return torch.stack(found)


def answered(logits: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Whether each question is answered by yes: bool, of the shape of `logits`, [Q, H, W] or [N, Q, H, W].

    By the logit of a threshold, in float32: a sigmoid in float32 may lie below that of the threshold itself, and all
    large logits have the same.
    """
    least = torch.tensor(thresholds, dtype=torch.float64).logit().float().to(logits.device)
    return logits.float() >= least.view(-1, 1, 1)
