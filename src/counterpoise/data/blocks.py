"""Blocks: consecutive runs of images of a set that lie together, such as the shards of a pack, by their sizes."""

from __future__ import annotations

import torch
from torch import Tensor


def blocks_of_part(blocks: Tensor | None, indices: Tensor) -> Tensor | None:
    """The blocks of a part of a set, without those that are empty in it.

    Args:
        blocks: int64 [K], sizes of the blocks of the whole.
        indices: int64 [M], the images of the part.

    Returns:
        int64 [k], their sizes, M in all; None where there are none, or the part has another order than the whole.
    """
    if blocks is None or bool((indices.diff() < 0).any()):
        return None
    counts = torch.bincount(torch.searchsorted(blocks.cumsum(0), indices, right=True), minlength=len(blocks))
    return counts[counts > 0]
