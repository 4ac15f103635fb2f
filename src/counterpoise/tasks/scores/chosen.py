"""Which scores are meant by their names."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from counterpoise.errors import ConfigError, MissingExtraError, unknown
from counterpoise.tasks.scores.base import Kind, all_scores
from counterpoise.tasks.scores.overlap import OVERLAP


def kinds_of(names: Sequence[str], classes: int) -> list[Kind]:
    """Overlap, which is always told, and the further kinds that scores of these names are of.

    Raises ConfigError for a name that is none, or a score of two classes where there are more; MissingExtraError.
    """
    known = all_scores()
    found: list[Kind] = [OVERLAP]
    for name in names:
        if name not in known:
            raise ConfigError(unknown("Score", name, known))
        kind = known[name]
        if kind.two_classes and classes != 2:
            raise ConfigError(f"Score {name} is for two classes, and there are {classes}.")
        missing = [package for package in kind.packages if find_spec(package) is None]
        if missing:
            raise MissingExtraError(f"Score {name}", "medical")
        if kind not in found:
            found.append(kind)
    return found
