"""Logit standardization: any logit objective on z-scores, blind to how large either side's logits are."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import find, register
from counterpoise.objectives.divergence import check_temperature
from counterpoise.objectives.logits import check_logits, may_be_out, widen
from counterpoise.objectives.wrappers import Wrapper
from counterpoise.outputs import Outputs

SMALLEST_DEVIATION = 1e-2  # the gradient grows without bound where a student's logits are all alike


@register(
    "standardized",
    summary="another objective (of: ...) on logits that are first brought to mean 0 and deviation 1",
    paper="Sun et al., Logit standardization in knowledge distillation, arXiv 2403.01427",
    year=2024,
)
class Standardized(Wrapper):
    r"""Logit standardization as a wrapper around another logit objective.

    .. math:: L = L_{host}(Z(s), Z(t)), \quad Z(x) = (x - mean_c(x)) / std_c(x)

    for each sample or pixel, over its classes, both sides each by its own mean and standard deviation; the host then
    works at the base temperature. In a run file: `{objective: standardized, of: forward_kl, weight: 9}`.

    Sun et al. 2024: base temperature 2; weight 9 beside cross-entropy at 0.1, the host's factor tau^2 included in
    neither (forward_kl brings it along). DKD and others keep the weights that they have without it. The standard
    deviation divides by C, as in the paper; the authors' code divides by C - 1.

    Args:
        of: the host: an objective of logits, by name or as path/to/file.py:Class.
        temperature: base temperature. The host takes it for each of its temperatures that is not given; a host without
            any is given z-scores divided by it. (mlkd keeps its list.)
        **arguments: for the host.
    """

    def __init__(self, of: str = "forward_kl", temperature: float = 2.0, **arguments: Any) -> None:
        self.temperature = check_temperature("temperature", temperature)
        parameters = inspect.signature(find(of).kind).parameters
        self._based = [
            name
            for name in parameters
            if (name == "temperature" or name.endswith("_temperature")) and name not in arguments
        ]
        self._divides = not any("temperature" in name for name in parameters)
        super().__init__("standardized", of, arguments, dict.fromkeys(self._based, temperature))
        if "teacher" not in self.host.needs or "features" in self.host.needs:
            raise ObjectiveError(f"standardized works on an objective of both sides' logits, which {of} is not.")

    def set_argument(self, name: str, value: float) -> None:
        if name != "temperature":
            self.host.set_argument(name, value)
            return
        self.temperature = value
        for based in self._based:
            self.host.set_argument(based, value)

    def prepare(self, student: Outputs, teacher: Outputs | None, samples: int) -> None:
        self.host.prepare(*self.adapted(student, teacher, None, None)[:2], samples)

    def adapted(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None
    ) -> tuple[Outputs, Outputs | None, Tensor | None, Tensor | None]:
        check_logits(student.logits, None if teacher is None else teacher.logits)
        assert teacher is not None
        divisor = self.temperature if self._divides else 1.0
        sides = widen(student.logits), widen(teacher.logits.detach())
        out = (sides[0] == -torch.inf) | (sides[1] == -torch.inf) if any(map(may_be_out, sides)) else None
        with torch.autocast(student.logits.device.type, enabled=False):
            mine, other = (standardize(logits, out) / divisor for logits in sides)
        return student._replace(logits=mine), teacher._replace(logits=other), target, weight


def standardize(logits: Tensor, out: Tensor | None = None) -> Tensor:
    """z-scores over dim 1 of logits [N, C, ...] in float32 or float64; 0 where all logits are alike.

    `out`: bool of that shape, the classes that have no part in mean and deviation, and are at -inf afterwards.
    """
    logits = widen(logits)
    if out is None:
        centered = logits - logits.mean(1, keepdim=True)
        variance = centered.square().mean(1, keepdim=True)
        return centered / variance.clamp_min(SMALLEST_DEVIATION**2).sqrt()
    count = (~out).sum(1, keepdim=True).clamp(min=1)
    logits = logits.masked_fill(out, 0.0)
    centered = (logits - logits.sum(1, keepdim=True) / count).masked_fill(out, 0.0)
    variance = centered.square().sum(1, keepdim=True) / count
    return (centered / variance.clamp_min(SMALLEST_DEVIATION**2).sqrt()).masked_fill(out, -torch.inf)
