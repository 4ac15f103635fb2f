"""How often pixels of one class were taken for another, at the masks' own size, and the shares that follow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from counterpoise.data.sources.base import IGNORE
from counterpoise.errors import DataError, ModelError
from counterpoise.objectives.views import resample
from counterpoise.system.machine import as_double

VALUES_AT_ONCE = 2**25  # upsampled logits held at one time: 128 MiB


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [N, C, h, w] as float32 [N, C, H, W], bilinear between pixel centers (align_corners false)."""
    return resample(logits.float(), size)


def largest_class(logits: Tensor, dim: int = 1) -> Tensor:
    """The class of each pixel, int64: of equal logits the first, as argmax says.

    Not by argmax, which takes up to six times as long on a processor where classes are not the last dimension.
    """
    return logits.max(dim).indices


def confusion_matrix(logits: Tensor, target: Tensor) -> Tensor:
    """How often a pixel of one class was taken for another, at the masks' own size.

    Args:
        logits: [N, C, h, w], upsampled here, a few images at a time.
        target: int64 or uint8 [N, H, W]; 255 (and whatever is negative) is void and not counted.

    Returns:
        float64 [C, C], on the CPU where the device has no float64: rows are the true classes, columns the answers.

    Raises:
        ModelError: logits of another shape. DataError: masks of another shape or with classes beyond C.
    """
    check_masks(logits, target)
    classes, (height, width) = logits.shape[1], target.shape[1:]
    counts = torch.zeros(classes * classes, dtype=torch.int64, device=logits.device)
    at_once = max(1, VALUES_AT_ONCE // (classes * height * width))
    for part, truth in zip(torch.split(logits, at_once), torch.split(target.to(logits.device), at_once), strict=True):
        known = (truth != IGNORE) & (truth >= 0)
        labels = truth[known].long()
        if len(labels) and int(labels.max()) >= classes:
            raise DataError(f"A mask holds class {int(labels.max())}; the network has {classes}, from 0 on.")
        answers = largest_class(upsample(part, (height, width)))[known]
        # not by torchmetrics, which on MPS and in deterministic mode makes [pixels, C * C] of it
        counts += torch.bincount(labels * classes + answers, minlength=classes * classes)
    return as_double(counts).view(classes, classes)


def by_class(matrix: Tensor) -> dict[str, Tensor]:
    """Shares by class [C], NaN where there is nothing to take a share of."""
    return shares(matrix.diagonal(), matrix.sum(1), matrix.sum(0))


def shares(hit: Tensor, truth: Tensor, answered: Tensor) -> dict[str, Tensor]:
    """The same from pixels that are hit, true and answered, by class [C]."""
    return {
        "iou": hit / (truth + answered - hit),
        "dice": 2 * hit / (truth + answered),
        "precision": hit / answered,
        "recall": hit / truth,
    }


def check_dense(logits: Any) -> None:
    """Raises ModelError unless these are logits of scenes, [N, C, h, w]."""
    if not isinstance(logits, Tensor) or logits.ndim != 4:
        given = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"Segmentation needs logits [N, C, h, w], and the network gives {given}.")


def check_masks(logits: Any, target: Tensor) -> None:
    """Raises ModelError or DataError unless these are logits of scenes and a mask of each, [N, H, W]."""
    check_dense(logits)
    if target.ndim != 3 or len(target) != len(logits):
        raise DataError(f"Masks must be [{len(logits)}, H, W] for {len(logits)} images, got {list(target.shape)}.")
