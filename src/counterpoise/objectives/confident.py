"""Views of which the teacher is not sure left out of the terms that listen to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from counterpoise.errors import ConfigError
from counterpoise.objectives.base import LogitObjective, Objective
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.targets import Mean, Sum
from counterpoise.objectives.wrappers import Wrapper
from counterpoise.outputs import Outputs


class Confident(Wrapper):
    r"""A term to which a sample gives nothing where the teacher's likeliest class is less probable than `minimum`.

    .. math:: L = \frac{1}{N} \sum_i [\max_c p^T_c(x_i) \ge m] \, L_{host, i}

    N counts all samples, so that those which remain weigh as without it. p is the softmax at temperature 1.

    Attributes:
        seen: int64 [2], how many samples were seen in training, and how many of them left out.
    """

    seen: Tensor

    def __init__(self, host: Objective, minimum: float) -> None:
        Objective.__init__(self)
        self.host, self.minimum = host, minimum
        self.needs = host.needs  # type: ignore[misc]  # by instance
        self.register_buffer("seen", torch.zeros(2, dtype=torch.int64))

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> Mapping[str, Sum | Mean | Tensor]:
        assert teacher is not None
        sure = teacher.logits.float().softmax(1).amax(1) >= self.minimum
        if self.training:
            self.seen += torch.stack([sure.new_tensor(sure.numel(), dtype=torch.int64), (~sure).sum()])
        counts = self.host.counts(student, teacher, target, weight)
        part = self.host.terms(student, teacher, target, sure.float() if weight is None else weight * sure)
        found: dict[str, Sum | Mean | Tensor] = {}
        for name, term in part.items():
            assert isinstance(term, Sum)
            found[name] = replace(term, count=counts[name])
        return found

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None = None,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        return Objective.forward(self, student_logits, teacher_logits, target, weight)

    def logged(self) -> dict[str, float]:
        seen, left = self.seen.tolist()
        return {**self.host.logged(), **({"unsure": left / seen} if seen else {})}


def leave_out(objective: WeightedSum, minimum: float) -> None:
    """Have the terms that listen to the teacher leave out what it is not sure of.

    Raises ConfigError for a term that is no mean over samples.
    """
    for name in objective.terms:
        term = objective.objective(name)
        if "teacher" not in term.needs:
            continue
        if not isinstance(_innermost(term), LogitObjective):
            raise ConfigError(
                f"teacher.minimum_confidence leaves out samples, and objective.{name} is no mean over them: leave out "
                "either."
            )
        objective.terms[name] = Confident(term, minimum)


def left_out(objective: WeightedSum) -> tuple[int, int] | None:
    """How many samples were seen, and how many of them were left out; None where all teach."""
    for name in objective.terms:
        term = objective.objective(name)
        if isinstance(term, Confident):
            seen, left = term.seen.tolist()
            return seen, left
    return None


def _innermost(term: Objective) -> Objective:
    while isinstance(term, Wrapper):
        term = term.host
    return term
