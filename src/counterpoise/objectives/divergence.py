"""Forward and reverse KL at every position, in log space: the reference that fast forms are tested against."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.arguments import check_number


def forward_kl_values(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """tau^2 KL(softmax(t/tau) || softmax(s/tau)) over dim 1: logits [N, C, ...] to [N, ...].

    Gradient by the student's logits: tau (q - p), with p the teacher's and q the student's softened probabilities.
    """
    log_p = F.log_softmax(teacher_logits / temperature, dim=1)
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(1)


def reverse_kl_values(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """tau^2 KL(softmax(s/tau) || softmax(t/tau)) over dim 1: logits [N, C, ...] to [N, ...].

    Gradient by the student's logits: tau q (log q/p - KL).
    """
    return forward_kl_values(teacher_logits, student_logits, temperature)


def check_temperature(name: str, value: float) -> float:
    """`value`, which must be above 0 and finite."""
    check_number(name, value)
    if not 0 < value < float("inf"):
        raise ObjectiveError(f"{name} must be above 0 and finite, got {value}.")
    return value
