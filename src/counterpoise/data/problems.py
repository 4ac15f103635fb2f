"""What is wrong with a folder of data, as values: what, where, and the way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from counterpoise.errors import DataError

SHOWN = 5


@dataclass(frozen=True)
class Problem:
    """One finding.

    Attributes:
        what: a sentence that says what was found.
        way_out: a sentence that says what to do about it.
        where: the first few files or folders that it is about.
        count: how many there are in all.
        severity: an error stops training; a warning is said before it.
    """

    what: str
    way_out: str = ""
    where: tuple[str, ...] = ()
    count: int = 0
    severity: Literal["error", "warning"] = "error"

    @property
    def sentence(self) -> str:
        """What was found, and the way out."""
        return f"{self.what} {self.way_out}".strip()

    def values(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "where": list(self.where)}


def warning(what: str, way_out: str = "", where: Sequence[str] = ()) -> Problem:
    """A finding that stops nothing. `where`: all the files or folders that it is about; the first few are kept."""
    return Problem(what, way_out, tuple(where[:SHOWN]), len(where), "warning")


def fault(what: str, way_out: str = "", where: Sequence[str] = ()) -> Problem:
    """A finding that stops training; as `warning`."""
    return Problem(what, way_out, tuple(where[:SHOWN]), len(where))


def of_corrupt(what: str, way_out: str, where: Sequence[str], on_corrupt: str) -> Problem:
    """A finding that stops training unless `on_corrupt` leaves such pictures out."""
    if on_corrupt == "skip":
        return warning(what, "They are left out (data.on_corrupt: skip).", where)
    return fault(what, way_out, where)


def raise_first(problems: Iterable[Problem]) -> None:
    """Raises DataError for the first error among them, which says how many more there are."""
    faults = [problem for problem in problems if problem.severity == "error"]
    if not faults:
        return
    more = len(faults) - 1
    hint = f" ({more} more: `counterpoise check` names all.)" if more else ""
    raise DataError(faults[0].sentence + hint)
