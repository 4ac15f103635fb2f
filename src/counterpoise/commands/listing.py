"""`counterpoise list`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from counterpoise.commands import flags
from counterpoise.errors import ConfigError, unknown


def list_(what: str, /, *, json: bool = False) -> None:
    """Show what there is to choose from.

    Args:
        what: objectives, models, sources or scores
        json: print JSON
    """
    from counterpoise.commands.tables import listing_table

    rows = list(what)
    flags.show(rows, json, lambda: listing_table(what, rows))


def list(what: str) -> Sequence[dict[str, Any]]:
    """Rows of `list objectives|models|sources|scores`."""
    if what == "objectives":
        from counterpoise.objectives.base import entries

        return [
            {
                "name": entry.name,
                "summary": entry.summary,
                "needs": sorted(entry.kind.needs),
                "defaults": entry.defaults,
                "paper": entry.paper,
                "year": entry.year,
            }
            for entry in entries().values()
        ]
    if what == "models":
        from counterpoise.models import catalog

        return [{"name": name} for name in catalog.names()]
    if what == "sources":
        from counterpoise.data import sources

        options = sources.options()
        return [
            {"name": name, "summary": summary, "options": options[name]}
            for name, summary in sources.summaries().items()
        ]
    if what == "scores":
        from counterpoise.tasks.scores import all_scores

        return [{"name": name, "summary": kind.scores[name]} for name, kind in all_scores().items()]
    raise ConfigError(unknown("List", what, ["objectives", "models", "sources", "scores"]))
