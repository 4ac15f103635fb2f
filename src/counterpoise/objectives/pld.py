"""Plackett-Luce distillation: the student ranks the classes as its teacher does, with the label first."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from counterpoise.objectives.base import register
from counterpoise.objectives.labeled import LabeledObjective
from counterpoise.objectives.logits import LEFT_OUT
from counterpoise.objectives.targets import one_hot


@register(
    "pld",
    summary="likelihood of the teacher's ranking, the label first, each choice by the teacher's probability",
    paper="Bassam, Zhu, Bian, PLD: a choice-theoretic list-wise knowledge distillation, arXiv 2506.12542",
    year=2025,
)
class PlackettLuce(LabeledObjective):
    r"""Plackett-Luce Distillation.

    .. math::
        L = \sum_{k=1}^{C} p_{\pi_k} \left[ \log \sum_{l \ge k} \exp s_{\pi_l} - s_{\pi_k} \right]

    where pi is the ranking that has the label first and then all others from the teacher's surest down, s are the
    student's logits [N, C, ...], and p the teacher's probabilities. The k-th choice is a cross-entropy among the
    classes that are not chosen yet. The first is that of the label, so cross-entropy beside it says the same again:
    the paper has neither that nor a temperature nor a weight. A teacher that is sure of the label leaves cross-entropy
    alone; of two classes, there is cross-entropy times the teacher's probability of the label, and of one nothing.
    A label that the teacher hardly believes in hardly counts: nothing corrects the teacher where it errs.

    Classes of which the teacher is equally sure are ranked in their order, of which the paper does not speak. The
    target is as for `dkd`: positions without a label are not counted.

    Args:
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    named: ClassVar[str] = "pld"

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        assert target is not None
        is_target = one_hot(target, student_logits.shape[1])
        ranking = teacher_logits.masked_fill(is_target, torch.inf).argsort(dim=1, descending=True, stable=True)
        chosen, share = student_logits.gather(1, ranking), teacher_logits.softmax(1).gather(1, ranking)
        # Gradient by s_c: -p_c, and for each choice up to that of c the share of c among what was left, times p.
        left = chosen.flip(1).logcumsumexp(1).flip(1)
        costs = (share * (left - chosen)).sum(1)
        return {"": costs.masked_fill(teacher_logits.amax(1) == LEFT_OUT, 0.0)}
