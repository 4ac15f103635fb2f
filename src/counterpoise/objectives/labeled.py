"""Objectives that look at the teacher and at the label of each position."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from counterpoise.objectives.base import LogitObjective
from counterpoise.objectives.targets import UNLABELED, Target, check_labels, check_target, labels_of


class LabeledObjective(LogitObjective):
    """A mean over the positions that have a label, of which `values` are given labels alone.

    The target is int64 [N, ...], or probabilities [N, C] of which the largest is the label; rows of zeros, labels
    below 0 and `ignore_index` have no label and are not counted: `values` see `UNLABELED` there.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "labels"})
    named: ClassVar[str]
    """What messages call it."""

    def target(self, logits: Tensor, target: Tensor | None, weight: Tensor | None) -> Target:
        labels = labels_of(check_target(self.named, target, logits), self.ignore_index)
        check_labels(labels, logits.shape[1])
        return Target(labels, weight, UNLABELED)
