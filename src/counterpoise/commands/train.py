"""`counterpoise train` and `distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from counterpoise import config
from counterpoise.commands import flags
from counterpoise.commands.flags import Flags, Options, RunFile


class Start(Flags):
    """Flags of `train` and `distill`, beside the run file's keys."""

    resume: bool = Field(False, description="go on with the run in --out from its last checkpoint")
    overwrite: bool = Field(False, description="replace the run in --out")
    extend: Path | None = Field(
        None,
        description="a finished run from which this one goes on to more epochs, with its options, in another --out",
    )
    json_: bool = Field(False, description="print the result as JSON")
    quiet: bool = Field(False, description="no progress")


def train(run_file: RunFile = None, /, *, options: Options = None, start: Start | None = None) -> None:
    """Train a network on labels alone: a teacher, or a student to compare with."""
    _fit("train", run_file, options, start or Start())


def distill(run_file: RunFile = None, /, *, options: Options = None, start: Start | None = None) -> None:
    """Train a student that imitates a teacher.

    Flags of the objective are laid over the run file's terms. Where it has none, the terms that flags name are all
    there are; without any, cross_entropy and balance, each with weight 1.
    """
    _fit("distill", run_file, options, start or Start())


def _fit(verb: Literal["train", "distill"], run_file: Path | None, options: config.Run | None, start: Start) -> None:
    run = flags.resolved(run_file, options, start.resume, start.extend)

    from counterpoise.commands.tables import result_table
    from counterpoise.engine import runs

    show = not start.quiet and flags.is_first()
    result = getattr(runs, verb)(run, resume=start.resume, overwrite=start.overwrite, show=show, extend=start.extend)
    if flags.is_first():
        flags.show(runs.summary(result), start.json_, lambda: result_table(runs.summary(result)))
