"""Cross-entropy with the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import LogitObjective, Reduction, reduce, register, widen
from counterpoise.outputs import Outputs


@register("cross_entropy", summary="the labels; samples without a label are not counted")
class CrossEntropy(LogitObjective):
    """L = -log softmax(s)[target], or -sum_c target_c log softmax(s)_c where the target holds probabilities.

    Args:
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2016).
        ignore_index: target of positions without a label. In a target of probabilities [N, C] such a row is all zero.
        class_weight: a number for each class, by which its positions count in the mean; for masks, "frequency" in a run
            file stands for those of `data.sources.masks.class_weights`.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    def __init__(
        self,
        label_smoothing: float = 0.0,
        ignore_index: int | None = -1,
        class_weight: Sequence[float] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(ignore_index, reduction)
        if not 0.0 <= label_smoothing < 1.0:
            raise ObjectiveError(f"label_smoothing must be in [0, 1), got {label_smoothing}.")
        if class_weight is not None and not _numbers(class_weight):
            raise ObjectiveError(f"class_weight must be numbers from 0 on, one a class, got {class_weight!r}.")
        self.label_smoothing = label_smoothing
        self.class_weight = None if class_weight is None else tuple(map(float, class_weight))

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        if target is None:
            raise ObjectiveError("cross_entropy needs a target, got none.")
        ignore = -100 if self.ignore_index is None else self.ignore_index
        values = F.cross_entropy(
            student_logits,
            target,
            ignore_index=ignore,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return {"": values}

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None = None,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        if target is not None and target.is_floating_point():
            self._refuse_class_weight()
            values = self._checked_values(student_logits, None, target.to(widen(student_logits).dtype))[""]
            return reduce(values, *_counted(target, weight), self.ignore_index, self.reduction)
        return super().forward(student_logits, None, target, self._weighted(student_logits, target, weight))

    def parts(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Tensor]:
        if target is not None and target.is_floating_point():
            self._refuse_class_weight()
            return {"": self(student.logits, None, target, weight)}
        return super().parts(student, teacher, target, self._weighted(student.logits, target, weight))

    def _refuse_class_weight(self) -> None:
        if self.class_weight is not None:
            raise ObjectiveError("class_weight needs a class for each sample, which mixup and cutmix do not leave.")

    def _weighted(self, logits: Tensor, target: Tensor | None, weight: Tensor | None) -> Tensor | None:
        """The weight of each position, that of its class included."""
        if self.class_weight is None or target is None:
            return weight
        if len(self.class_weight) != logits.shape[1]:
            raise ObjectiveError(
                f"class_weight has {len(self.class_weight)} numbers, and the logits {logits.shape[1]} classes."
            )
        weights = torch.tensor(self.class_weight, device=target.device)
        known = (target >= 0) & (target < len(weights))
        by_class = weights[torch.where(known, target, 0)]
        if weight is None:
            return by_class
        return by_class * weight.reshape(weight.shape + (1,) * (by_class.ndim - weight.ndim))


def _numbers(given: object) -> bool:
    """Whether it is a list of finite numbers from 0 on."""
    return isinstance(given, list | tuple) and all(
        isinstance(number, int | float) and 0 <= number < float("inf") for number in given
    )


def _counted(target: Tensor, weight: Tensor | None) -> tuple[None, Tensor]:
    """Probabilities [N, C] carry no ignore index: a row without any mass has no label, and so no weight."""
    labeled = (target.sum(1) > 0).to(torch.float32)
    return None, labeled if weight is None else labeled * weight
