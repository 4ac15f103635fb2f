"""Multi-level logit distillation: each sample, the samples among each other, the classes among each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import register
from counterpoise.objectives.batchwise import BatchObjective, classes_of, compared
from counterpoise.objectives.divergence import check_temperature, forward_kl_values
from counterpoise.objectives.targets import Target


@register(
    "mlkd",
    summary="forward KL, likeness of samples and likeness of classes, at several temperatures",
    paper="Jin et al., Multi-level logit distillation, CVPR 2023",
    year=2023,
)
class MultiLevelDistillation(BatchObjective):
    r"""Multi-Level Logit Distillation.

    .. math::
        L = \sum_\tau \left[ a \frac{\tau^2}{N} \sum_i KL(p_i \| q_i) + b \frac{1}{N} \| P P^T - Q Q^T \|^2
          + c \frac{1}{C} \| P^T P - Q^T Q \|^2 \right]

    with P and Q the teacher's and the student's probabilities [N, C], softened by each tau in turn ("prediction
    augmentation"): instance, batch and class level. Jin, Wang, Lin, CVPR 2023.

    The paper adds cross-entropy, and the same terms for a second, strongly augmented view of each image, with half
    weight for the weak view: what a term is given here is one view. Likeness of classes is summed over the batch, so
    that its part grows with the square of the number of positions: lower `class_weight` for dense logits. Under several
    processes batch and class level see each one's own share of the batch, and with `train.accumulate` one part of it:
    the class level, a sum, then weighs less, as it does in a smaller batch.

    Args:
        instance_weight: a.
        batch_weight: b.
        class_weight: c.
        temperatures: all tau.
        ignore_index: positions whose target holds this value are not counted.

    Called with (student_logits, teacher_logits, target=None, weight=None). Dense logits [N, C, ...] are taken as a
    batch of their positions; a weight scales a row of P and of Q by its root. Memory grows with min(N, C)^2.
    """

    def __init__(
        self,
        instance_weight: float = 1.0,
        batch_weight: float = 1.0,
        class_weight: float = 1.0,
        temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(ignore_index)
        if isinstance(temperatures, str) or not isinstance(temperatures, Sequence) or not temperatures:
            raise ObjectiveError(f"temperatures must be a list of at least one number, got {temperatures!r}.")
        self.instance_weight = instance_weight
        self.batch_weight = batch_weight
        self.class_weight = class_weight
        self.temperatures = tuple(check_temperature("temperatures", float(tau)) for tau in temperatures)

    def relations(self, student: Tensor, teacher: Tensor, weight: Tensor) -> dict[str, Tensor]:
        count = weight.sum()
        count = torch.where(count == 0, 1.0, count)
        root, some = weight.sqrt().unsqueeze(1), classes_of(compared(teacher, weight)).sum()
        instance = batch = classes = student.new_zeros(())
        for tau in self.temperatures:
            instance = instance + Target(weight=weight).reduce(forward_kl_values(student, teacher, tau))
            q, p = root * (student / tau).softmax(1), root * (teacher / tau).softmax(1)
            batch = batch + gram_distance(q, p) / count
            classes = classes + gram_distance(q.T, p.T) / some
        return {
            "instance": self.instance_weight * instance,
            "batch": self.batch_weight * batch,
            "class": self.class_weight * classes,
        }


def gram_distance(a: Tensor, b: Tensor) -> Tensor:
    """||a a^T - b b^T||^2 (Frobenius) for a and b [R, K], with no matrix larger than min(R, K) squared.

    With d = a - b and s = a + b the difference is (d s^T + s d^T) / 2, and its norm is sum(d^T d * s^T s) / 2 +
    sum(k * k^T) / 2 with k = d^T s. No term is a difference of large numbers where a is close to b.
    """
    difference, total = a - b, a + b
    if a.shape[0] <= a.shape[1]:
        product = difference @ total.T
        return ((product + product.T) / 2).square().sum()
    product = difference.T @ total
    return ((difference.T @ difference) * (total.T @ total) + product * product.T).sum() / 2
