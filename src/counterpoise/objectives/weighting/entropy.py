"""Per sample, by the entropies of both sides: BD-KD."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.objectives.weighting.base import PositionWeighting, Side, check_range, register


@register(
    "entropy",
    summary="per sample: forward where the student is surer than the teacher, reverse where it is less sure",
    paper="Amara et al., BD-KD: Balancing the divergences for online knowledge distillation, arXiv 2212.12965",
    year=2022,
)
class Entropy(PositionWeighting):
    r"""The divergence that mends the student's confidence counts `emphasis` times, the other one once.

    With H the entropy of the softmax at temperature 1: where H(student) < H(teacher), the student is too sure, and
    forward KL, which spreads it, is emphasized; where H(student) > H(teacher), reverse KL, which sharpens it, is. Equal
    entropies: neither.

    Args:
        emphasis: at least 1.

    Source: Amara, Sepahvand, Meyer, Gross, Clark, "BD-KD: Balancing the Divergences for Online Knowledge Distillation",
    arXiv 2212.12965 (2022). The paper weighs sample by sample by the gap of entropies; more than its abstract could not
    be had, so take which divergence is emphasized when, and the factor 2, as ours. There teacher and student learn
    together; here the teacher is frozen.
    """

    def __init__(self, emphasis: float = 2.0) -> None:
        super().__init__()
        self.emphasis = check_range("emphasis", emphasis, 1.0, float("inf"), "[)")

    def shares(
        self, student_logits: Tensor, teacher_logits: Tensor, forward: Side, reverse: Side
    ) -> tuple[Tensor, Tensor]:
        gap = _entropy(student_logits) - _entropy(teacher_logits)
        one = torch.ones_like(gap)
        return torch.where(gap < 0, self.emphasis, one), torch.where(gap > 0, self.emphasis, one)


def _entropy(logits: Tensor) -> Tensor:
    """Entropy in nats: logits [N, C, ...] to [N, 1, ...]."""
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(1, keepdim=True)
