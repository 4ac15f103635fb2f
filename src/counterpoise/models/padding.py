"""Images of any size for networks that want multiples of a stride: padded, and the logits cut back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Padded(nn.Module, ABC):
    """A dense network that pads its images to multiples of a stride, and answers for the images alone.

    Images [N, 3, H, W] get zeros at the right and the bottom (the mean color, for they are normalized). Logits
    [N, C, h, w] of the padded image are cut back to the ceil(h * H / padded H) rows that the image covers, likewise
    the columns. Where that is no whole number of rows, they are resampled bilinearly, so that they cover exactly the
    image: resizing them to [H, W] (align_corners=False) brings every answer to its place.

    A subclass keeps the parts of a network under their published names and defines `answer`.

    Args:
        stride: edges of images given to `answer` are multiples of it.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    @abstractmethod
    def answer(self, images: Tensor) -> Tensor:
        """Logits [N, C, h, w] of normalized images whose edges are multiples of the stride."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, C, h, w] of normalized images [N, 3, H, W], at the network's own resolution."""
        edges = images.shape[-2:]
        padded = [edge + -edge % self.stride for edge in edges]
        if padded == list(edges):
            return self.answer(images)
        logits = self.answer(F.pad(images, (0, padded[1] - edges[1], 0, padded[0] - edges[0])))
        for dim in (-2, -1):
            logits = _cut(logits, dim, edges[dim], padded[dim])
        return logits


def _cut(logits: Tensor, dim: int, edge: int, padded: int) -> Tensor:
    """The part of logits along a dimension that `edge` of `padded` pixels cover."""
    covered = logits.shape[dim] * edge / padded  # cells
    kept = math.ceil(covered)
    cells = logits.narrow(dim, 0, kept)
    if kept == covered:
        return cells
    # Cell i of equal ones over the image lies less than one cell before cell i of the padded image.
    back = (torch.arange(kept, device=logits.device, dtype=logits.dtype) + 0.5) * (1 - covered / kept)
    # Differences, padded: of cells put together XNNPACK mistakes the shape in 8 bits, and Core ML has no lerp.
    ahead = cells.narrow(dim, 0, kept - 1) - cells.narrow(dim, 1, kept - 1)
    rows = dim == -2
    return cells + F.pad(ahead, (0, 0, 1, 0) if rows else (1, 0)) * (back.view(-1, 1) if rows else back)
