"""The students that a fit chooses among: names, patterns, arguments, input sizes, precisions."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from counterpoise import config
from counterpoise.config.validation_errors import validated
from counterpoise.errors import ConfigError


class Network(config.Section):
    """A network, or several that differ in arguments."""

    model: str = Field(description="name or pattern, such as timm/mobilenetv3_small_* or digits/cnn_8_16")
    arguments: dict[str, Any] = Field(default_factory=dict, description="arguments of all of them")
    vary: dict[str, list[Any]] = Field(
        default_factory=dict, description="further arguments, such as widths or depths: each with the values to try"
    )


class Candidates(config.Section):
    """A candidates file."""

    students: list[str | Network] = Field(description="names, patterns, or networks with arguments")
    sizes: list[int] | None = Field(None, description="input sizes in pixels; default: each network's own")
    precisions: list[str] | None = Field(None, description="float32, float16, int8; default: float32")


@dataclass(frozen=True)
class Candidate:
    """A student, and how it would be deployed.

    Attributes:
        size: edge of its input in pixels; None is the network's own.
    """

    model: str
    precision: str
    size: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def student(self) -> str:
        """The name of what is trained, as that of a folder: the same in any precision."""
        name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", self.model).strip("-.")
        if self.size is not None:
            name += f"-{self.size}"
        for key, value in self.arguments.items():
            name += f"-{key}-{value}"
        plain = re.sub(r"[^A-Za-z0-9_.+-]+", "_", name)
        if plain == name:
            return name
        digest = hashlib.sha256(json.dumps([self.model, dict(self.arguments)], default=str).encode()).hexdigest()
        return f"{plain}-{digest[:6]}"

    @property
    def name(self) -> str:
        """What a person calls it; a name for a folder as well."""
        return f"{self.student}-{self.precision}"

    def section(self) -> dict[str, Any]:
        """Its part of a run file."""
        return {
            "model": self.model,
            "arguments": dict(self.arguments),
            **({} if self.size is None else {"input_size": self.size}),
        }


def read(path: Path) -> Candidates:
    """A candidates file. Raises ConfigError for whatever is wrong with it."""
    return validated(Candidates, config.read(path), f"candidates file {path}")


def expand(asked: Candidates) -> list[Candidate]:
    """All candidates, in the order that they are named. Raises ConfigError for what stands for none."""
    for size in asked.sizes or ():
        if size < 1:
            raise ConfigError(f"An input size is 1 pixel or more, got {size}.")
    found = [
        Candidate(model, precision, size, arguments)
        for student in asked.students
        for model, arguments in _networks(student)
        for size in (asked.sizes or [None])  # type: ignore[list-item]
        for precision in asked.precisions or ["float32"]
    ]
    if not found:
        raise ConfigError("There are no candidates: name some students, such as --students 'timm/mobilenetv3_small_*'.")
    return list({candidate.name: candidate for candidate in found}.values())


def _networks(student: str | Network) -> list[tuple[str, dict[str, Any]]]:
    network = Network(model=student) if isinstance(student, str) else student
    both = sorted(network.arguments.keys() & network.vary.keys())
    if both:
        raise ConfigError(f"{network.model}: {', '.join(both)} is among arguments and vary: give it once.")
    grid = [dict(zip(network.vary, values, strict=True)) for values in itertools.product(*network.vary.values())]
    return [(model, {**network.arguments, **point}) for model in _matching(network.model) for point in grid]


def _matching(pattern: str) -> Sequence[str]:
    """The networks that a pattern means; a name is itself."""
    if not any(sign in pattern for sign in "*?["):
        return [pattern]
    from counterpoise.models import catalog

    family, slash, _ = pattern.partition("/")
    if not slash or any(sign in family for sign in "*?["):
        raise ConfigError(f"'{pattern}' names no family: write such as timm/{pattern.rpartition('/')[2]}.")
    found = fnmatch.filter(catalog.names(family), pattern)
    if not found:
        raise ConfigError(f"No network is called like '{pattern}': see counterpoise list models.")
    return found
