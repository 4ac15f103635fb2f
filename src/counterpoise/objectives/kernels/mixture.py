"""What the fast forms compute: forward KL, reverse KL and cross-entropy of one pair of logits, each with a weight."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.objectives.cross_entropy import cross_entropy_values
from counterpoise.objectives.divergence import forward_kl_values, reverse_kl_values
from counterpoise.objectives.kernels.compiling import Compiler
from counterpoise.objectives.kernels.upsampling import upsample
from counterpoise.objectives.logits import remaining, widen
from counterpoise.objectives.targets import Reduction, Target


@dataclass(frozen=True)
class Divergence:
    """One of the two KL terms."""

    weight: float
    temperature: float


@dataclass(frozen=True)
class Labels:
    """Cross-entropy with labels int64 [N, ...]."""

    weight: float
    ignore_index: int
    smoothing: float = 0.0


@dataclass(frozen=True)
class Mixture:
    """weight * term, summed over the terms that are not None; each a mean (or sum) over the positions it counts."""

    forward: Divergence | None = None
    reverse: Divergence | None = None
    labels: Labels | None = None
    ignore_index: int | None = None
    """Target of the positions that the divergences leave out."""
    reduction: Reduction = "mean"
    counts: Tensor | None = field(default=None, compare=False)
    """[2]: what to divide a divergence and cross-entropy by, where that is not what is counted here."""

    compiler: Compiler | None = field(default=None, compare=False)
    """Of whoever asked for large logits to be computed by compiled code, on a CPU."""

    @property
    def size(self) -> int:
        """Number of terms."""
        return sum(term is not None for term in (self.forward, self.reverse, self.labels))

    @property
    def plain(self) -> bool:
        """Whether all weights and temperatures are numbers: a tensor may be learned."""
        terms = [d for d in (self.forward, self.reverse) if d is not None]
        return all(isinstance(number, int | float) for d in terms for number in (d.weight, d.temperature))

    @property
    def needs_teacher(self) -> bool:
        """Whether a divergence is among the terms."""
        return self.forward is not None or self.reverse is not None

    @property
    def needs_target(self) -> bool:
        """Whether the target is looked at."""
        return self.labels is not None or self.ignore_index is not None


class Inputs(NamedTuple):
    """What a mixture is computed from."""

    student: Tensor
    """Logits [N, C, ...]; [N, C, h, w] where there is a `size`."""
    teacher: Tensor | None = None
    """Logits of the same shape, or [N, C, h2, w2], needed by the divergences; receives no gradient."""
    target: Tensor | None = None
    """int64 [N, ...]."""
    weight: Tensor | None = None
    """[N] or [N, ...]."""
    size: tuple[int, int] | None = None
    """Height and width to which both sides are upsampled before they are compared."""

    @property
    def positions(self) -> tuple[int, ...]:
        """Shape [N, ...] of what is compared."""
        return (self.student.shape[0], *(self.student.shape[2:] if self.size is None else self.size))


def reference(mixture: Mixture, inputs: Inputs) -> Tensor:
    """The weighted terms, [size], in the order forward, reverse, labels: plain PyTorch, differentiable any times."""
    student, teacher, target, weight, size = inputs
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = widen(student), None if teacher is None else widen(teacher.detach())
        if size is not None:
            student, teacher = upsample(student, size), None if teacher is None else upsample(teacher, size)
        values = []
        mine, other = (student, None) if teacher is None else remaining(student, teacher)
        for divergence, compute in ((mixture.forward, forward_kl_values), (mixture.reverse, reverse_kl_values)):
            if divergence is not None:
                assert other is not None
                value = divergence.weight * compute(mine, other, divergence.temperature)
                values.append(_reduced(mixture, 0, value, Target(target, weight, mixture.ignore_index)))
        if mixture.labels is not None:
            assert target is not None
            ignore, smoothing = mixture.labels.ignore_index, mixture.labels.smoothing
            value = cross_entropy_values(student, target, ignore, smoothing)
            values.append(mixture.labels.weight * _reduced(mixture, 1, value, Target(target, weight, ignore)))
        return torch.stack(values)


def _reduced(mixture: Mixture, kind: int, values: Tensor, target: Target) -> Tensor:
    if mixture.counts is None:
        return target.reduce(values, mixture.reduction)
    return target.reduce(values, "sum") / mixture.counts[kind].to(values.dtype)
