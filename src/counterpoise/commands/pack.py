"""`counterpoise pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from counterpoise.commands import flags
from counterpoise.commands.flags import EACH, Options
from counterpoise.engine.options import Pack


def pack(
    data: Path, /, *, how: Annotated[Pack, EACH], options: Options = None, json: bool = False, quiet: bool = False
) -> None:
    """Write a set once into tar shards with an index beside them, which later runs read fast and in any order.

    The pack takes its place: --data PACK. The same command goes on with a pack that was stopped; `counterpoise verify
    PACK` finds what has changed in it since.

    Args:
        data: data folder or run file; flags of the data section override it
        json: print what was packed as JSON
        quiet: no progress
    """
    from counterpoise.commands.tables import facts_table
    from counterpoise.engine import packing

    facts = packing.pack(flags.data_of(data, options), **flags.given(how), show=not quiet)
    flags.show(facts, json, lambda: facts_table(facts))
