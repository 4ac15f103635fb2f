"""Cross-entropy where each class is a question of its own: masks of one logit, and several labels at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import LogitObjective, register
from counterpoise.objectives.logits import check_device, may_be_out, readable
from counterpoise.objectives.targets import (
    UNLABELED,
    Reduction,
    Target,
    check_class_weight,
    check_known,
    check_target,
    one_hot,
)


@register(
    "binary_cross_entropy",
    summary="the labels, each class by a sigmoid of its own: for masks of one logit and for several labels at once",
    paper="He et al., Mask R-CNN, arXiv 1703.06870",
    year=2017,
)
class BinaryCrossEntropy(LogitObjective):
    r"""Cross-entropy between Bernoulli distributions.

    .. math:: L = -\sum_c y_c \log\sigma(s_c) + (1 - y_c) \log(1 - \sigma(s_c))

    with sigma the sigmoid and y what is asked for. The sum over the classes is the negative log-likelihood of all
    labels together, each being independent of the others; with one logit it is cross-entropy of a softmax over (0, s).
    The gradient by s_c is sigma(s_c) - y_c. A logit at -inf is a sure no: it costs nothing where no is right, and
    infinitely much elsewhere.

    Of several labels an image some may be unknown: these are left out of the sum, and an image of which nothing is
    known is not counted.

    Args:
        ignore_index: target of positions without a label, where the target is one class a position.
        pos_weight: by how much more than its no the yes of each class counts, a number for each class; in a run file
            also "frequency" (how many images do not have the label for one that has it) or {name: number}, others 1.
        reduction: "mean" over counted positions, "sum" or "none".

    Called with (student_logits, teacher_logits=None, target, weight=None); the teacher is not looked at. Target:
    int64 [N, ...], one class a position (of logits [N, 1, ...] 1 is yes and 0 no), or of the logits' shape: floats in
    [0, 1], or whole numbers 0 and 1; -1 there is unknown. See `LogitObjective.forward` for the rest.

    Source: He, Gkioxari, Dollar, Girshick, "Mask R-CNN", arXiv 1703.06870 (ICCV 2017), for a sigmoid a pixel and class
    in place of the softmax, so that the masks of classes do not compete.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    sigmoid = True

    def __init__(
        self,
        ignore_index: int | None = -1,
        pos_weight: Sequence[float] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(ignore_index, reduction)
        self.pos_weight = check_class_weight(pos_weight, "pos_weight")

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        if target is not None and _by_class(target, student_logits):
            check_device(student_logits, "target", target)
            known = target >= 0
            truth = _checked(target).masked_fill(~known, 0).to(student_logits.dtype)
            return {"": self._values(student_logits, truth).masked_fill(~known, 0.0).sum(1)}
        labels = check_target("binary_cross_entropy", target, student_logits)
        return {"": self._values(student_logits, self._truth(student_logits, labels)).sum(1)}

    def target(self, logits: Tensor, target: Tensor | None, weight: Tensor | None) -> Target:
        if target is None or not _by_class(target, logits):
            return Target(target, weight, self.ignore_index)
        known = (target >= 0).any(1).to(torch.promote_types(logits.dtype, torch.float32))
        if weight is not None:
            known = known * weight.reshape(weight.shape + (1,) * (known.ndim - weight.ndim))
        return Target(target, known)

    def _values(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Cross-entropy of each logit, of which some may be -inf."""
        weight = None
        if self.pos_weight is not None:
            if len(self.pos_weight) != logits.shape[1]:
                numbers = f"{len(self.pos_weight)} numbers, and the logits {logits.shape[1]} classes"
                raise ObjectiveError(f"pos_weight has {numbers}.")
            weight = logits.new_tensor(self.pos_weight).view(-1, *[1] * (logits.ndim - 2))
        if not may_be_out(logits):
            return F.binary_cross_entropy_with_logits(logits, truth, reduction="none", pos_weight=weight)
        sure = logits == -torch.inf
        values = F.binary_cross_entropy_with_logits(
            logits.masked_fill(sure, 0.0), truth, reduction="none", pos_weight=weight
        )
        return torch.where(sure, torch.where(truth > 0, torch.inf, 0.0), values)

    def _truth(self, logits: Tensor, target: Tensor) -> Tensor:
        """y of the logits' shape and dtype; anything where the position is ignored."""
        classes = logits.shape[1]
        counted = torch.ones_like(target, dtype=torch.bool)
        if self.ignore_index is not None:
            counted = target != self.ignore_index
        labels = target.masked_fill(~counted, 0)
        check_known(labels, max(classes, 2), None)
        # Of a single logit, class 1 is the yes.
        return one_hot(labels, classes, int(classes == 1)).to(logits.dtype)


def _by_class(target: Tensor, logits: Tensor) -> bool:
    """Whether a target says of each class whether it is there."""
    return target.shape == logits.shape


def _checked(target: Tensor) -> Tensor:
    """A target by class. Raises ObjectiveError where it is neither 0 to 1 nor -1; not on a GPU, which would wait."""
    if readable(target) and target.numel():
        wrong = ~((target >= 0) & (target <= 1)) & (target != UNLABELED)
        if wrong.any():
            raise ObjectiveError(f"a target of floats must be 0 to 1, or -1 where unknown, got {target[wrong][0]:g}.")
    return target
