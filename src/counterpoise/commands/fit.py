"""`counterpoise fit`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from counterpoise.commands import flags
from counterpoise.commands.compare import ended
from counterpoise.commands.flags import EACH
from counterpoise.studies.fanout import Fanout, Sitting
from counterpoise.studies.fitting.options import FitOptions

DOES_NOT_HOLD = 2
"""Exit code where no candidate keeps the budget, or the trained one does not."""


def fit(
    run_file: Path,
    /,
    *,
    options: Annotated[FitOptions, EACH],
    candidates_to: Path | None = None,
    sitting: Annotated[Sitting | None, EACH] = None,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Find the most accurate student that keeps a budget, by measurement on the runtime that is to run it.

    Candidates are measured untrained; those that keep the budget are distilled by successive halving on training images
    held out; the best is trained in full, exported and measured again. The same command goes on with what was stopped
    or killed. Exit code 2: nothing keeps the budget; 3: time was up, and runs are left.

    Args:
        run_file: YAML: data, teacher or its store, objective, train
        candidates_to: instead, write the untrained candidates and the commands that measure them on an Android phone
        json: print the result as JSON
        quiet: no progress
    """
    from counterpoise.studies.fitting import fit as fitting

    if candidates_to is not None:
        files = fitting.candidates_to(run_file, candidates_to, options)
        bundle = {"bundle": candidates_to, "files": [file.name for file in files]}
        way_on = (
            f"{len(files) - 2} candidates are in {candidates_to}. With the phone at hand: sh "
            f"{candidates_to}/measure.sh, and then this command again, with --measured {candidates_to}/results.txt "
            "instead of --candidates-to."
        )
        flags.show(bundle, json, lambda: [way_on])
        return 0
    fanout = Fanout(**flags.given(sitting), show=not quiet)
    result = fitting.fit(run_file, **flags.given(options), fanout=fanout)
    flags.show(asdict(result), json, lambda: fitting.tables(result))
    return ended(result.left, result.errors, json, said=not quiet) or (DOES_NOT_HOLD if result.holds is False else 0)
