"""Which place a class has among all by its logit: one rule for ties, that of argmax."""

from __future__ import annotations

import torch
from torch import Tensor


def rank_of(logits: Tensor, classes: Tensor) -> Tensor:
    """How many classes come before the given one: those of a larger logit, and of equal logits those of a lower number.

    So 0 is what argmax answers, and a class is among the first k where its rank is below k. Not by topk, which leaves
    open which of equal logits it takes.

    Args:
        logits: [N, C]; NaN counts as the largest, as argmax has it.
        classes: int64 [N].

    Returns:
        int32 [N].
    """
    logits = logits.nan_to_num(torch.inf, torch.inf, -torch.inf)
    own = logits.gather(1, classes[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < classes[:, None]
    return ((logits > own) | (earlier & (logits == own))).sum(1, dtype=torch.int32)
