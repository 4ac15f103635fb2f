"""What the terms of a run are shown, and what their sums over a batch are divided by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from counterpoise.objectives.kernels.upsampling import upsample
from counterpoise.objectives.targets import Mean, Sum
from counterpoise.outputs import Outputs


class View(NamedTuple):
    """What some terms are shown."""

    names: list[str]
    student: Outputs
    teacher: Outputs | None
    target: Tensor | None
    size: tuple[int, int] | None = None
    """Height and width at which logits are compared, where that is not their own."""

    @property
    def positions(self) -> tuple[int, ...]:
        """Shape [N, ...] of what the logits give a value for."""
        shape = self.student.logits.shape
        return (shape[0], *(shape[2:] if self.size is None else self.size))

    def resampled(self, teacher_too: bool) -> View:
        """The same with logits at that size; the teacher's only where they are needed."""
        if self.size is None:
            return self
        teacher = self.teacher if teacher_too else None
        return self._replace(
            student=self.student._replace(logits=resample(self.student.logits, self.size)),
            teacher=None if teacher is None else teacher._replace(logits=resample(teacher.logits, self.size)),
            size=None,
        )


@dataclass
class InParts:
    """A batch, or a process's share of one, that is taken in parts, one after the other.

    Attributes:
        later: the targets of all but the first.
        divisors: what each part of each term is divided by, once the first has been taken.
    """

    later: Sequence[Tensor]
    divisors: dict[str, dict[str, Tensor]] | None = None


class Counts(NamedTuple):
    """Of a step that is taken in parts, by several processes or one after the other."""

    terms: dict[str, dict[str, Sum | Mean]]
    """By term, then by part: those that no fast form can cover."""
    divisors: dict[str, dict[str, Tensor]]
    """What to divide each part by: what is counted in all of the batch, by the number of processes."""


def resample(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Logits [N, C, h, w] as float32 (float64 stays) [N, C, *size]; as they are where they have that size."""
    if tuple(logits.shape[-2:]) == tuple(size):
        return logits
    return upsample(logits, (size[0], size[1]))


def as_tensor(count: Tensor | int | None, one: Tensor) -> Tensor:
    """A count as a scalar of the dtype of `one`; 1 of a sum, which nothing divides."""
    return count.to(one.dtype) if isinstance(count, Tensor) else one.new_full((), 1 if count is None else count)
