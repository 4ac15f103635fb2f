"""`counterpoise probe`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from counterpoise.commands import flags
from counterpoise.commands.flags import Flags, Options, RunFile
from counterpoise.errors import ConfigError


class How(Flags):
    """Flags of `probe`, beside the run file's keys."""

    overwrite: bool = Field(False, description="replace what is in --out")
    json_: bool = Field(False, description="print what was found as JSON")
    quiet: bool = Field(False, description="no progress")


def probe(run_file: RunFile = None, /, *, options: Options = None, how: How | None = None) -> None:
    """Make a teacher of a network without classes, or with others: a linear classifier on its features.

    --data names labeled images, --teacher.model and --teacher.pretrained or --teacher.checkpoint the network, --out the
    folder that --teacher.checkpoint takes afterwards.
    """
    how = how or How()
    if options is not None:
        said = [*({"student", "objective"} & options.model_fields_set)]
        said += [f"train.{key}" for key in options.train.model_fields_set - {"device"}]
        if said:
            raise ConfigError(
                f"--{min(said)} says nothing of a probe, which fits a classifier on a teacher's features."
            )
    run = flags.resolved(run_file, options)

    from counterpoise.engine import probing

    if run.out is None:
        raise ConfigError("probe needs a folder for the teacher: give --out.")
    found = probing.probe(run, out=run.out, overwrite=how.overwrite, show=not how.quiet)
    flags.show(found, how.json_, lambda: _lines(found))


def _lines(found: dict[str, Any]) -> list[str]:
    near = ", ".join(f"{value:.2f} of {count}" for count, value in found["neighbors"].items())
    return [
        *found["notes"],
        f"{found['images']:,} labeled images, {found['features']} features each; penalty {found['penalty']:g}, "
        "chosen on a fifth of them",
        f"val: top1 {found['top1']:.2f} by the classifier; by nearest neighbors {near}  ({found['val']:,} images)",
        f"The teacher: --teacher.checkpoint {found['folder']}",
    ]
