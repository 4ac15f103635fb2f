"""Labels of positions, for objectives that look at both labels and maps."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import readable

UNCOUNTED = -1
"""Label of positions that do not count: void, or without a label."""


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise ObjectiveError for labels at or beyond `classes`; on a CPU alone, as reading a number waits for a GPU."""
    if readable(labels) and labels.numel() and int(labels.max()) >= classes:
        raise ObjectiveError(f"label {int(labels.max())} is beyond the {classes} classes of the logits.")


def labels_at(
    target: Tensor | None, size: tuple[int, int], classes: int, ignore_index: int | None, name: str
) -> Tensor:
    """Labels of the positions of a map, taken from the nearest pixel (up and left) of the target.

    Args:
        target: int64 [N, H, W]; labels int64 [N] or probabilities [N, C] of whole images, whose largest class counts
            where the row has any mass, hold for all their positions.
        size: h and w of the map.
        classes: C.
        ignore_index: label of pixels that do not count, as negative labels do not.
        name: of the objective, for messages.

    Returns:
        int64 [N, h, w], UNCOUNTED where a position does not count.

    Raises:
        ObjectiveError: no target, or one of another shape; a label beyond the classes.
    """
    if target is None:
        raise ObjectiveError(f"{name} needs labels, got none.")
    if target.is_floating_point() and target.ndim == 2:
        target = torch.where(target.sum(1) > 0, target.argmax(1), UNCOUNTED)
    if target.is_floating_point() or target.ndim not in (1, 3):
        raise ObjectiveError(
            f"{name} needs labels [N, H, W] or [N], or probabilities [N, C], got {list(target.shape)} of "
            f"{target.dtype}."
        )
    target = target.long()
    if target.ndim == 1:
        target = target[:, None, None]
    rows, columns = (
        torch.arange(count, device=target.device) * full // count
        for count, full in zip(size, target.shape[1:], strict=True)
    )
    labels = target[:, rows[:, None], columns]
    uncounted = labels < 0
    if ignore_index is not None:
        uncounted = uncounted | (labels == ignore_index)
    labels = labels.masked_fill(uncounted, UNCOUNTED)
    check_labels(labels, classes)
    return labels


def members_of(labels: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """1 where a position is of a class, else 0: labels [N, h, w] to [N, C, h * w]."""
    numbers = torch.arange(classes, device=labels.device)
    return (labels.flatten(1).unsqueeze(1) == numbers[:, None]).to(dtype)


def class_means(feature: Tensor, members: Tensor) -> Tensor:
    """Mean of a map [N, D, h, w] over the positions of each class, by `members` [N, C, h * w]: [N, C, D]."""
    count = members.sum(2, keepdim=True)
    return members @ feature.flatten(2).transpose(1, 2) / torch.where(count == 0, 1.0, count)


def unit_vectors(feature: Tensor) -> Tensor:
    """A map [N, D, h, w] with the vector at each position at unit length.

    What is shorter than a millionth of the map's largest entry stays (nearly) zero, as its gradient would explode.
    """
    # Length does not change a direction, and without this may leave the range of its dtype.
    scale = feature.detach().abs().amax((1, 2, 3), keepdim=True)
    feature = feature / torch.where(scale > 1e-20, scale, 1.0)
    square = feature.square().sum(1, keepdim=True)
    return feature / torch.where(square > 1e-12, square, 1.0).sqrt()
