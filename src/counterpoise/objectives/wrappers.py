"""What objectives that work through another one have in common: the host, and what is handed on to it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from counterpoise.errors import ObjectiveError, unknown
from counterpoise.objectives.base import Objective, find
from counterpoise.outputs import Outputs


class Wrapper(Objective):
    """An objective with a host.

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

    def set_argument(self, name: str, value: float) -> None:
        self.host.set_argument(name, value)

    def set_progress(self, progress: float) -> None:
        self.host.set_progress(progress)

    def set_batch(self, indices: Tensor) -> None:
        self.host.set_batch(indices)

    def prepare(self, student: Outputs, teacher: Outputs | None, samples: int) -> None:
        self.host.prepare(student, teacher, samples)

    def logged(self) -> dict[str, float]:
        return self.host.logged()
