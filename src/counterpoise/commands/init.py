"""`counterpoise init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from counterpoise.commands import flags
from counterpoise.commands.flags import EACH
from counterpoise.studies.first_run_options import Init


def init(data: Path, /, *, options: Annotated[Init | None, EACH] = None, json: bool = False) -> None:
    """Write a run file for a data folder, after a look at it, with the reason beside each choice.

    Args:
        data: data folder, table or other data on disk
        json: print what was found and written as JSON
    """
    from counterpoise.studies import first_run

    found = first_run.init(data, **flags.given(options))
    flags.show(
        found, json, lambda: [*found["found"], f"Wrote {found['out']}. Next:", *(f"  {one}" for one in found["next"])]
    )
