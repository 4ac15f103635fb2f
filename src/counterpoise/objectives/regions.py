"""What objectives on masks share: which positions are of a class, which count, and what the student is sure of."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from counterpoise.objectives.base import Objective
from counterpoise.objectives.logits import check_logits, widen
from counterpoise.objectives.targets import (
    UNLABELED,
    Mean,
    Sum,
    Target,
    check_labels,
    check_target,
    labels_of,
    one_hot,
)
from counterpoise.outputs import Outputs


class Regions(NamedTuple):
    """A batch of masks as regions, one a class.

    Attributes:
        logits: [N, C, ...], 0 where a position does not count.
        truth: of the same shape and dtype, how far a position is of a class: 1 or 0, or between.
        share: [N, 1, ...] or [N, C, ...], what a position counts: its weight, 0 where it does not.
    """

    logits: Tensor
    truth: Tensor
    share: Tensor

    @property
    def positions(self) -> list[int]:
        """The dimensions that are no class."""
        return [d for d in range(self.logits.ndim) if d != 1]

    @property
    def counted(self) -> Tensor:
        """What all positions count."""
        return self.share.amax(1).sum()

    @property
    def present(self) -> Tensor:
        """bool [C]: of which classes any position is that counts."""
        return (self.share * self.truth).sum(self.positions) > 0

    def mean_of_present(self, values: Tensor) -> Mean:
        """The mean of `values` [C] over the classes that are there; 0 where none is."""
        present = self.present
        return Mean((present * values).sum() / present.sum().clamp(min=1), self.counted)


class RegionObjective(Objective):
    """An objective on masks alone, by a softmax over the classes or by a sigmoid for each.

    Subclasses implement `loss`.

    Args:
        named: what messages call it.
        sigmoid: each class is a question of its own, by a sigmoid in place of the softmax. Logits [N, 1, ...] then take
            labels 0 and 1; several labels at once are a target of floats [N, C, ...], where -1 is unknown.
        ignore_index: label of positions that do not count; negative labels (unlabeled) never do.

    Called with (student_logits, teacher_logits=None, target, weight=None); the teacher is not looked at. Target:
    int64 [N, ...], or floats in [0, 1] of the logits' shape, where without `sigmoid` a position without any mass does
    not count. Weight: [N] or [N, ...].
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    def __init__(self, named: str, sigmoid: bool, ignore_index: int | None) -> None:
        super().__init__()
        self.named = named
        self.sigmoid = sigmoid
        self.ignore_index = ignore_index

    @abstractmethod
    def loss(self, regions: Regions) -> Sum | Mean:
        """The loss of a batch, in float32 or float64."""

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Sum | Mean]:
        check_logits(student.logits, None, needs_teacher=False)
        with torch.autocast(student.logits.device.type, enabled=False):
            return {"": self.loss(self._regions(widen(student.logits), target, weight))}

    def probabilities(self, logits: Tensor) -> Tensor:
        """[N, C, ...]."""
        return logits.sigmoid() if self.sigmoid else logits.softmax(1)

    def _regions(self, logits: Tensor, target: Tensor | None, weight: Tensor | None) -> Regions:
        """Raises ObjectiveError for a missing target, shapes that do not fit, a label too large."""
        truth, counted = self._truth(logits, check_target(self.named, target, logits))
        every = torch.ones_like(logits[:, 0])
        share = Target(weight=weight).reduce(every, "none").unsqueeze(1) * counted
        # A position that does not count may hold anything, and zero times that is not always zero.
        return Regions(logits.masked_fill(share == 0, 0.0), truth, share)

    def _truth(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The truth of the logits' shape, and bool [N, 1, ...] or [N, C, ...], whether it counts."""
        if target.is_floating_point():
            truth = target.to(logits.dtype)
            counted = truth >= 0 if self.sigmoid else truth.sum(1, keepdim=True) > 0
            return truth.masked_fill(~counted, 0.0), counted
        labels, classes = labels_of(target, self.ignore_index), logits.shape[1]
        binary = self.sigmoid and classes == 1
        check_labels(labels, 2 if binary else classes)
        # The one class of a binary mask is 1.
        return one_hot(labels, classes, int(binary)).to(logits.dtype), (labels != UNLABELED).unsqueeze(1)
