"""Positions weighed by the class of their label, in any objective of logits: for distilling where classes are rare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import LogitObjective, find, register
from counterpoise.objectives.targets import check_class_weight, weight_by_class
from counterpoise.objectives.wrappers import Wrapper
from counterpoise.outputs import Outputs


@register(
    "class_weighted",
    summary="another objective (of: ...) in which each position counts by the class of its label",
)
class ClassWeighted(Wrapper):
    r"""A weighted mean of the host's values over positions.

    .. math:: L = \frac{\sum_i w_{y_i} L_{host, i}}{\sum_i w_{y_i}}

    Where cross-entropy is weighed in favor of rare classes, an unweighed divergence beside it is a mean over pixels
    again, of which most are road and sky, and takes back what the weights gave. In a run file:
    `{objective: class_weighted, of: balance, class_weight: frequency, weight: 4}`.

    Positions whose label is no class (void, unlabeled) count once: the teacher answers there, too. Counterpoise's own.

    Args:
        of: the host, a mean over positions such as `balance` or `forward_kl`.
        class_weight: a number for each class, or in a run file "frequency" or {name: number} as for `cross_entropy`;
            None: all alike.
        **arguments: for the host.

    Raises:
        ObjectiveError: no such host, or one that is no mean over positions; arguments it does not take.
    """

    def __init__(self, of: str = "balance", class_weight: Sequence[float] | None = None, **arguments: Any) -> None:
        if not issubclass(find(of).kind, LogitObjective):
            raise ObjectiveError(f"class_weighted works on a mean over positions, such as balance, which {of} is not.")
        super().__init__("class_weighted", of, arguments)
        self.class_weight = check_class_weight(class_weight)
        self.needs = self.host.needs | {"labels"}  # type: ignore[misc]  # by instance

    def adapted(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None
    ) -> tuple[Outputs, Outputs | None, Tensor | None, Tensor | None]:
        return student, teacher, target, weight_by_class(self.class_weight, student.logits, target, weight)
