"""What a user can get wrong, said so that they can mend it: what was given, what was expected, the nearest choice."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CounterpoiseError(Exception):
    """Base of every error meant for the person at the keyboard; the command line prints it and exits with 2."""


class ConfigError(CounterpoiseError):
    """The run file or a flag says something impossible: unknown key, wrong type, value out of range."""


class DataError(CounterpoiseError):
    """Data is missing, unreadable or not of the kind that was asked for."""


class ModelError(CounterpoiseError):
    """A model cannot be built, or weights do not fit it."""


class ObjectiveError(CounterpoiseError, ValueError):
    """An objective was given tensors or arguments that do not fit."""


class RunError(CounterpoiseError):
    """A run cannot start, go on or be saved: folder in use, disk full, loss not finite."""


class DivergedError(RunError):
    """The loss or a weight of a run is no longer finite."""


class MissingExtraError(CounterpoiseError):
    """An optional package is needed; says which extra brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'counterpoise[{extra}]'")


def nearest(given: str, choices: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the choice nearest to what was given, or an empty string."""
    close = difflib.get_close_matches(given, sorted(choices), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def unknown(kind: str, given: str, choices: Iterable[str]) -> str:
    """One sentence for an unknown name: the name, the nearest choice, and all choices where they are few."""
    choices = sorted(choices)
    shown = ", ".join(choices) if len(choices) <= 40 else f"{', '.join(choices[:20])}, ... ({len(choices)} in all)"
    return f"{kind} '{given}' is unknown.{nearest(given, choices)} Available: {shown}."
