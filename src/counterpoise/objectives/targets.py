"""What is asked for at each position, and what the position counts: the one place where both are made alike.

A target is int64 [N, ...] of classes, or probabilities [N, C] as mixup and cutmix give. A position does not count where
its label is the objective's `ignore_index`; of probabilities, where a row of zeros says that there is no label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeGuard

import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.logits import check_device, readable

Reduction = Literal["mean", "sum", "none"]

UNLABELED = -1
"""Label of a position that does not count, in labels that `labels_of` has made alike."""


@dataclass(frozen=True)
class Sum:
    """A term of a loss that adds up over positions, not yet divided."""

    total: Tensor
    """Scalar: the sum over the positions that count."""
    count: Tensor | int | None
    """How many these are, or how much they weigh together; None where the term is a sum, which nothing divides."""
    factor: float = 1.0
    """Of the mean."""

    @property
    def mean(self) -> Tensor:
        """The term as one process alone has it; 0 where nothing is counted."""
        if self.count is None:
            return self.over(1)
        if isinstance(self.count, int):
            return self.over(max(self.count, 1))
        return self.over(torch.where(self.count == 0, torch.ones_like(self.count), self.count))

    def over(self, count: Tensor | int) -> Tensor:
        """The term, divided by what all processes count."""
        mean = self.total / count
        return mean if self.factor == 1 else self.factor * mean


@dataclass(frozen=True)
class Mean:
    """A term that is no sum over positions, of one process's share of a batch."""

    mean: Tensor
    """Scalar."""
    count: Tensor | int
    """What it weighs beside those of other processes: its samples, or the positions that it counts."""

    @property
    def total(self) -> Tensor:
        """The mean with its weight."""
        return self.mean * self.count

    def over(self, count: Tensor | int) -> Tensor:
        """This process's part of the mean over all processes, which count so much together."""
        return self.total / count


class Target(NamedTuple):
    """What is asked for at the positions [N, ...] of values, and what each counts."""

    asked: Tensor | None = None
    """int64 [N, ...], or probabilities [N, C, ...]."""
    weight: Tensor | None = None
    """[N] or [N, ...]."""
    ignore_index: int | None = None
    """Label of positions that do not count; where probabilities are asked for, any below 0 means rows of zeros."""

    def weighted(self, values: Tensor) -> tuple[Tensor, Tensor | int]:
        """`values` [N, ...] times the weight of each position, and the sum of the weights."""
        counted = torch.ones_like(values) if self.weight is None else _spread(self.weight, values)
        if self.ignore_index is not None and self.asked is not None:
            ignored = _ignored(values, self.asked, self.ignore_index)
            counted = counted.masked_fill(ignored, 0.0)
        elif self.weight is None:
            return values, values.numel()
        # Not a product with zero alone: a position that does not count may hold anything.
        return values.masked_fill(counted == 0, 0.0) * counted, counted.sum()

    def sum(self, values: Tensor, reduction: Reduction = "mean") -> Sum:
        """The sum of `values` over the positions that count, and the sum of their weights; "none" is "mean"."""
        weighted, count = self.weighted(values)
        return Sum(weighted.sum(), None if reduction == "sum" else count)

    def reduce(self, values: Tensor, reduction: Reduction = "mean") -> Tensor:
        """`values` over the positions that count: a scalar, or [N, ...] where reduction is "none"."""
        return self.weighted(values)[0] if reduction == "none" else self.sum(values, reduction).mean


def _ignored(values: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """bool [N, ...], where positions are not counted."""
    if target.shape == values.shape:
        return target == ignore_index
    mixed = target.is_floating_point() and target.shape[:1] + target.shape[2:] == values.shape
    if not mixed:
        raise ObjectiveError(
            f"target must have shape {list(values.shape)} beside ignore_index, got {list(target.shape)}."
        )
    check_no_class(ignore_index, target)
    # Probabilities hold no such value, but for those without a label: a row of zeros is what else is -1.
    return target.sum(1) <= 0 if ignore_index < 0 else torch.zeros_like(values, dtype=torch.bool)


def _spread(weight: Tensor, values: Tensor) -> Tensor:
    """Weight [N] or [N, ...] over the positions of values [N, ...]."""
    check_device(values, "weight", weight)
    if weight.shape != values.shape and weight.shape != values.shape[:1]:
        raise ObjectiveError(
            f"weight must have shape {list(values.shape[:1])} or {list(values.shape)}, got {list(weight.shape)}."
        )
    return weight.to(values.dtype).reshape(weight.shape + (1,) * (values.ndim - weight.ndim)).expand_as(values)


def check_reduction(reduction: Reduction) -> Reduction:
    """`reduction`, which must be one of the three."""
    if reduction not in ("mean", "sum", "none"):
        raise ObjectiveError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}.")
    return reduction


def check_target(name: str, target: Tensor | None, logits: Tensor) -> Tensor:
    """A target that must be there: int64 [N, ...], or floats of the logits' shape. Raises ObjectiveError."""
    if target is None:
        raise ObjectiveError(f"{name} needs a target, got none.")
    check_device(logits, "target", target)
    positions = logits.shape[:1] + logits.shape[2:]
    if target.is_floating_point() and target.shape != logits.shape:
        raise ObjectiveError(
            f"a target of floats must have the logits' shape {list(logits.shape)}, got {list(target.shape)}."
        )
    if not target.is_floating_point() and target.shape != positions:
        raise ObjectiveError(f"target must have shape {list(positions)}, got {list(target.shape)}.")
    return target


def check_no_class(ignore_index: int | None, target: Tensor) -> None:
    """Raise ObjectiveError where `ignore_index` is a class of a target of probabilities [N, C]."""
    if ignore_index is not None and 0 <= ignore_index < target.shape[1]:
        raise ObjectiveError(
            f"ignore_index {ignore_index} is a class, and a target of probabilities, as mixup and cutmix give, has no "
            "position of one class alone."
        )


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise ObjectiveError for labels at or beyond `classes`; on a CPU alone, as reading a number waits for a GPU."""
    if readable(labels) and labels.numel() and int(labels.max()) >= classes:
        raise ObjectiveError(
            f"label {int(labels.max())} is beyond the {classes} classes of the logits (0 to {classes - 1}). Is it an "
            "ignore_index?"
        )


def check_known(labels: Tensor, classes: int, ignore_index: int | None) -> None:
    """Raise ObjectiveError for labels that are neither of the `classes` nor `ignore_index`; on a CPU alone."""
    if not readable(labels):
        return
    known = labels if ignore_index is None else labels[labels != ignore_index]
    check_labels(known, classes)
    if known.numel() and int(known.min()) < 0:
        raise ObjectiveError(f"label {int(known.min())} is below 0. Is it an ignore_index?")


def labels_of(target: Tensor, ignore_index: int | None) -> Tensor:
    """int64 [N, ...]: the class of each position, of probabilities [N, C, ...] the largest.

    `UNLABELED` where a position does not count: a negative label, `ignore_index`, or a row of zeros.
    """
    if target.is_floating_point():
        target = target.argmax(1).masked_fill(target.sum(1) <= 0, UNLABELED)
    ignored = target < 0 if ignore_index is None else (target < 0) | (target == ignore_index)
    return target.long().masked_fill(ignored, UNLABELED)


def labels_at(
    target: Tensor | None, size: tuple[int, int], classes: int, ignore_index: int | None, name: str
) -> Tensor:
    """Labels of the positions of a map, taken from the nearest pixel (up and left) of the target.

    Args:
        target: int64 [N, H, W]; labels int64 [N] or probabilities [N, C] of whole images hold for all their positions.
        size: h and w of the map.
        classes: C.
        ignore_index: label of pixels that do not count, as negative labels do not.
        name: of the objective, for messages.

    Returns:
        int64 [N, h, w] as of `labels_of`.

    Raises:
        ObjectiveError: no target, or one of another shape; a label beyond the classes.
    """
    if target is None:
        raise ObjectiveError(f"{name} needs labels, got none.")
    if target.ndim != 2 if target.is_floating_point() else target.ndim not in (1, 3):
        raise ObjectiveError(
            f"{name} needs labels [N, H, W] or [N], or probabilities [N, C], got {list(target.shape)} of "
            f"{target.dtype}."
        )
    labels = labels_of(target, ignore_index)
    if labels.ndim == 1:
        labels = labels[:, None, None]
    rows, columns = (
        torch.arange(count, device=labels.device) * full // count
        for count, full in zip(size, labels.shape[1:], strict=True)
    )
    labels = labels[:, rows[:, None], columns]
    check_labels(labels, classes)
    return labels


def one_hot(labels: Tensor, classes: int, first: int = 0) -> Tensor:
    """bool [N, C, ...]: whether a position is of a class, counted from `first`; labels are [N, ...]."""
    numbers = torch.arange(classes, device=labels.device) + first
    return labels.unsqueeze(1) == numbers.view(-1, *(1,) * (labels.ndim - 1))


def check_class_weight(given: object, name: str = "class_weight") -> tuple[float, ...] | None:
    """A weight for each class, or None. Raises ObjectiveError for anything else than finite numbers from 0 on."""
    if given is None:
        return None
    if isinstance(given, list | tuple) and all(isinstance(w, int | float) and 0 <= w < float("inf") for w in given):
        return tuple(map(float, given))
    raise ObjectiveError(f"{name} must be numbers from 0 on, one a class, got {given!r}.")


def check_class_prior(given: object) -> tuple[float, ...] | None:
    """A share of each class, or None. Raises ObjectiveError for anything else than finite numbers above 0."""
    if given is None:
        return None
    if isinstance(given, list | tuple) and given and all(_is_number(p) and 0 < p < float("inf") for p in given):
        return tuple(map(float, given))
    raise ObjectiveError(
        f"class_prior must be numbers above 0, one a class, or in a run file 'frequency', got {given!r}."
    )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def weight_by_class(
    class_weight: tuple[float, ...] | None, logits: Tensor, target: Tensor | None, weight: Tensor | None
) -> Tensor | None:
    """The weight of each position, that of its label's class included; 1 for labels that are no class.

    Raises ObjectiveError where there is not one weight for each class of `logits`, or the target holds probabilities.
    """
    if class_weight is None or target is None:
        return weight
    if target.is_floating_point():
        raise ObjectiveError("class_weight needs a class for each sample, which mixup and cutmix do not leave.")
    if len(class_weight) != logits.shape[1]:
        raise ObjectiveError(f"class_weight has {len(class_weight)} numbers, and the logits {logits.shape[1]} classes.")
    weights = torch.tensor(class_weight, device=target.device)
    known = (target >= 0) & (target < len(weights))
    by_class = torch.where(known, weights[torch.where(known, target, 0)], 1.0)
    if weight is None:
        return by_class
    return by_class * weight.reshape(weight.shape + (1,) * (by_class.ndim - weight.ndim))
