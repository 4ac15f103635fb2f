"""Per sample, by the gaps in the head and in the tail of the teacher's ranking: AKL."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise.objectives.weighting.base import PositionWeighting, Side, check_range, register


@register(
    "head_tail",
    summary="per sample: forward by its share of the gap in the teacher's head, reverse by that in the tail",
    paper="Wu et al., Rethinking Kullback-Leibler divergence in knowledge distillation for LLMs, arXiv 2404.02657",
    year=2024,
)
class HeadTail(PositionWeighting):
    r"""Adaptive Kullback-Leibler divergence.

    .. math::
        L = \frac{g_h}{g_h + g_t} KL(p \| q) + \frac{g_t}{g_h + g_t} KL(q \| p), \quad
        g_h = \sum_{c \in head} |p_c - q_c|, \quad g_t = \sum_{c \notin head} |p_c - q_c|

    with p the teacher's and q the student's probabilities at temperature 1. The head is the teacher's first class, and
    those after it as long as together they hold at most `head`. Equal shares where p = q. The shares multiply
    the two given weights.

    Args:
        head: mu of the paper, in (0, 1).

    Source: Wu, Tao, Wang, Yang, Zhao, Wong, "Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large
    Language Models", arXiv 2404.02657 (2024); the head as in the authors' code.
    """

    def __init__(self, head: float = 0.5) -> None:
        super().__init__()
        self.head = check_range("head", head, 0.0, 1.0)

    def shares(
        self, student_logits: Tensor, teacher_logits: Tensor, forward: Side, reverse: Side
    ) -> tuple[Tensor, Tensor]:
        p, order = teacher_logits.softmax(1).sort(dim=1, descending=True)
        gaps = (p - student_logits.softmax(1).gather(1, order)).abs()
        in_tail = p.cumsum(1) > self.head
        in_tail[:, :1] = False
        tail = torch.where(in_tail, gaps, 0.0).sum(1, keepdim=True)
        whole = gaps.sum(1, keepdim=True)
        share = torch.where(whole > 0, tail / torch.where(whole > 0, whole, 1.0), 0.5)
        return 1 - share, share
