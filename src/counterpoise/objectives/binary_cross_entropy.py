"""Cross-entropy where each class is a question of its own: masks of one logit, and several labels at once."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import LogitObjective, register
from counterpoise.objectives.logits import may_be_out, readable
from counterpoise.objectives.targets import Reduction, Target, check_labels, check_target, one_hot


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

    Args:
        ignore_index: target of positions without a label. A target of floats has none: all its positions count.
        reduction: "mean" over counted positions, "sum" or "none".

    Called with (student_logits, teacher_logits=None, target, weight=None); the teacher is not looked at. Target:
    int64 [N, ...], one class a position (of logits [N, 1, ...] 1 is yes and 0 no), or floats in [0, 1] of the logits'
    shape. See `LogitObjective.forward` for the rest.

    Source: He, Gkioxari, Dollar, Girshick, "Mask R-CNN", arXiv 1703.06870 (ICCV 2017), for a sigmoid a pixel and class
    in place of the softmax, so that the masks of classes do not compete.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})
    sigmoid = True

    def __init__(self, ignore_index: int | None = -1, reduction: Reduction = "mean") -> None:
        super().__init__(ignore_index, reduction)

    def values(self, student_logits: Tensor, teacher_logits: Tensor | None, target: Tensor | None) -> dict[str, Tensor]:
        truth = self._truth(student_logits, check_target("binary_cross_entropy", target, student_logits))
        if may_be_out(student_logits):
            return {"": _with_infinite_logits(student_logits, truth).sum(1)}
        values = F.binary_cross_entropy_with_logits(student_logits, truth, reduction="none")
        return {"": values.sum(1)}

    def target(self, logits: Tensor, target: Tensor | None, weight: Tensor | None) -> Target:
        floats = target is not None and target.is_floating_point()
        return Target(target, weight, None if floats else self.ignore_index)

    def _truth(self, logits: Tensor, target: Tensor) -> Tensor:
        """y of the logits' shape and dtype; anything where the position is ignored."""
        if target.is_floating_point():
            # Reading numbers would wait for a GPU.
            if readable(target) and target.numel() and not (target.min() >= 0 and target.max() <= 1):
                outside = target[~((target >= 0) & (target <= 1))][0].item()
                raise ObjectiveError(f"a target of floats must be 0 to 1, got {outside:g}.")
            return target.to(logits.dtype)
        classes = logits.shape[1]
        counted = torch.ones_like(target, dtype=torch.bool)
        if self.ignore_index is not None:
            counted = target != self.ignore_index
        labels = target.masked_fill(~counted, 0)
        check_labels(labels, max(classes, 2))
        if readable(labels) and labels.numel() and labels.min() < 0:
            raise ObjectiveError(f"label {int(labels.min())} is below 0. Is it an ignore_index?")
        # Of a single logit, class 1 is the yes.
        return one_hot(labels, classes, int(classes == 1)).to(logits.dtype)


def _with_infinite_logits(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy of each logit, of which some may be -inf."""
    sure = logits == -torch.inf
    values = F.binary_cross_entropy_with_logits(logits.masked_fill(sure, 0.0), truth, reduction="none")
    return torch.where(sure, torch.where(truth > 0, torch.inf, 0.0), values)
