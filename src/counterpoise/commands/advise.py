"""`counterpoise advise`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from counterpoise.commands import flags
from counterpoise.commands.compare import ended
from counterpoise.commands.flags import EACH
from counterpoise.studies.advising.options import AdviseOptions
from counterpoise.studies.fanout import Fanout, Sitting


def advise(
    run_file: Path,
    /,
    *,
    options: Annotated[AdviseOptions | None, EACH] = None,
    sitting: Annotated[Sitting | None, EACH] = None,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Say which objective, temperature and weight to begin with, from short runs on the data of a run file.

    Divergences at several temperatures are given gradients of the same strength, and the better part of them goes on
    from rung to rung, on training images held out; the best two are compared with the run file's objective over fresh
    seeds. The same command goes on with what was stopped or killed. Exit code 3: time was up, and runs are left.

    Args:
        run_file: YAML: data, teacher or its store, student, objective, train
        json: print the result as JSON
        quiet: no progress
    """
    from counterpoise.studies.advising import advise as advising

    fanout = Fanout(**flags.given(sitting), show=not quiet)
    result = advising.advise(run_file, **flags.given(options), fanout=fanout)
    flags.show(asdict(result), json, lambda: advising.tables(result))
    return ended(result.left, result.errors, json, said=not quiet)
