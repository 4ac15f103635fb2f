"""Refined logits: what a teacher says without its mistakes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from counterpoise.objectives.base import register
from counterpoise.objectives.divergence import forward_kl_values
from counterpoise.objectives.dkd import DecoupledDistillation, pair, without
from counterpoise.objectives.targets import one_hot


@register(
    "rld",
    summary="dkd where the teacher is right; where it errs, without the classes that it ranks above the label",
    paper="Sun et al., Knowledge distillation with refined logits, arXiv 2408.07703",
    year=2025,
)
class RefinedLogits(DecoupledDistillation):
    r"""Refined Logit Distillation.

    .. math::
        L = r \tau^2 [\alpha KL(b^t \| b^s) + \beta KL(\hat p^t \| \hat p^s)]

    where b^t is the pair (the teacher's largest probability, all the rest) and b^s the pair (the student's probability
    of the label, all the rest): how sure to be, and of the label. p hat is the distribution over the classes that the
    teacher finds less likely than the label: the label itself, what the teacher ranks above it and what it ranks
    exactly as high are left out of both sides. Logits [N, C, ...], both softened by tau. Where the teacher is right
    this is `dkd` with the same arguments; where it ranks the label last, nothing is left to say about the others.
    The ramp r and the target are those of `dkd`.

    The teacher's class is the first of the largest. The paper has one temperature; the authors' code can take another
    one for the pair, and so has 1 there by default, but for the runs of the paper, which set both alike: so does this.

    Sun et al. 2025 on CIFAR-100: cross-entropy at weight 1, alpha 1, beta 8 and tau 4 for VGG13 to VGG8; the authors'
    code warms up over 20 of 240 epochs.

    Args:
        alpha: weight of the pair, as sure as the teacher and of the label.
        beta: weight of the classes below the label.
        temperature: tau.
        warmup: share of the run over which the objective rises to its weight, in [0, 1].
        ignore_index: positions whose target holds this value are not counted.
        reduction: "mean" over counted positions, "sum" or "none".
    """

    named: ClassVar[str] = "rld"

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        assert teacher_logits is not None
        assert target is not None
        classes = student_logits.shape[1]
        is_target, is_first = one_hot(target, classes), one_hot(teacher_logits.argmax(1), classes)
        of_target = teacher_logits.masked_fill(~is_target, 0.0).sum(1, keepdim=True)
        above = teacher_logits >= of_target
        student, teacher = student_logits / self.temperature, teacher_logits / self.temperature
        return self._weighed(
            forward_kl_values(pair(student, is_target), pair(teacher, is_first), 1.0),
            forward_kl_values(without(student, above), without(teacher, above), 1.0),
        )
