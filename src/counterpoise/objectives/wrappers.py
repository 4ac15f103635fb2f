"""What objectives that work through another one have in common: the host, and what is handed on to it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from counterpoise.errors import ObjectiveError, unknown
from counterpoise.objectives.base import Objective, find
from counterpoise.objectives.targets import Mean, Sum
from counterpoise.outputs import Outputs


class Wrapper(Objective):
    """An objective with a host, which is given what `adapted` makes of the arguments.

    Args:
        name: of the wrapper, for messages.
        of: the host, by name or as path/to/file.py:Class.
        arguments: for the host.
        defaults: values for those of the host's arguments that are among these names and not given.

    Raises:
        ObjectiveError: an argument that the host does not take.
    """

    def __init__(
        self, name: str, of: str, arguments: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        kind = find(of).kind
        parameters = inspect.signature(kind).parameters
        free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        for argument in arguments:
            if argument not in parameters and not free:
                raise ObjectiveError(f"{name}, of {of}: {unknown('Argument', argument, [*parameters, 'of'])}")
        self.host = kind(**{**(defaults or {}), **arguments})
        self.needs = self.host.needs  # type: ignore[misc]  # by instance: what the host needs

    def adapted(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None
    ) -> tuple[Outputs, Outputs | None, Tensor | None, Tensor | None]:
        """The arguments of `terms` as the host is given them."""
        return student, teacher, target, weight

    def terms(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> Mapping[str, Sum | Mean | Tensor]:
        return self.host.terms(*self.adapted(student, teacher, target, weight))

    def counts(
        self, student: Outputs, teacher: Outputs | None, target: Tensor | None, weight: Tensor | None = None
    ) -> dict[str, Tensor | int | None]:
        return self.host.counts(*self.adapted(student, teacher, target, weight))

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor | None = None,
        target: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The host's loss; the arguments are the host's."""
        sides = Outputs(student_logits), None if teacher_logits is None else Outputs(teacher_logits)
        student, teacher, target, weight = self.adapted(*sides, target, weight)
        loss: Tensor = self.host(student.logits, None if teacher is None else teacher.logits, target, weight)
        return loss

    def set_argument(self, name: str, value: float) -> None:
        self.host.set_argument(name, value)

    def set_progress(self, progress: float) -> None:
        self.host.set_progress(progress)

    def set_batch(self, indices: Tensor) -> None:
        self.host.set_batch(indices)

    def prepare(self, student: Outputs, teacher: Outputs | None, samples: int) -> None:
        self.host.prepare(student, teacher, samples)

    def set_classifier(self, rows: Tensor) -> None:
        self.host.set_classifier(rows)

    def logged(self) -> dict[str, float]:
        return self.host.logged()
