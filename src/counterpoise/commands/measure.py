"""`counterpoise measure`."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from counterpoise.commands import flags
from counterpoise.errors import ConfigError


def measure(
    *paths: Path,
    threads: list[int] | None = None,
    batch: list[int] | None = None,
    rounds: int = 9,
    seconds: float = 0.2,
    size: tuple[int, int] | None = None,
    model: str | None = None,
    epoch: Literal["last", "best"] | None = None,
    bundle: Path | None = None,
    from_: Annotated[Path | None, Parameter(name="--from")] = None,
    out: Path | None = None,
    overwrite: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """See what students and exports cost: bytes, parameters, multiply-adds, memory and latency.

    All are measured in turn, each in a fresh process of its own runtime; a student folder by PyTorch.

    Args:
        paths: student folders, runs, exports, or ONNX files of any origin
        threads: numbers of threads; default: one, and all processors
        batch: pictures at once; default: 1 and 8
        rounds: turns of each, 6 or more, over which the median has its interval
        seconds: of calls in each turn
        size: height and width of pictures, for what takes any
        model: the network of student folders where it is code of your own, file.py:function
        epoch: of runs: the students of its last or of its best epoch; default: those that ship
        bundle: instead, write a folder to take to an Android phone: exports, and the commands that measure them there
        from_: instead, read what ExecuTorch's executor_runner or LiteRT's benchmark_model has printed
        out: file to write the result to, as JSON
        overwrite: replace that file
        json: print the result as JSON
        quiet: no progress
    """
    from counterpoise.deploy.measuring import measure as measuring
    from counterpoise.deploy.measuring import phones
    from counterpoise.system.files import write_text

    if [bundle is not None, from_ is not None].count(True) == 2 or (from_ is not None and paths):
        raise ConfigError("measure takes things to measure, or --from FILE; --bundle goes with the former.")
    if epoch is not None and (bundle is not None or from_ is not None):
        raise ConfigError("--epoch is of runs that are measured here: leave it out with --bundle and --from.")
    if out is not None and out.exists() and not overwrite:
        raise ConfigError(f"{out} is there already: give --overwrite, or another --out.")
    if bundle is not None:
        files = measuring.bundle(paths, bundle, threads=threads or (1,), rounds=rounds)
        told = {"bundle": str(bundle), "files": [file.name for file in files], "command": f"sh {bundle}/measure.sh"}
        flags.show(told, json, lambda: _bundled(bundle))
        return
    if from_ is not None:
        result = phones.read_output(from_)
    else:
        result = measuring.measure(
            paths,
            threads=threads,
            batches=batch or (1, 8),
            rounds=rounds,
            seconds=seconds,
            size=size,
            model=model,
            epoch=epoch,
            tell=_progress(quiet),
        )
    if out is not None:
        write_text(out, json_format.dumps(result, indent=2) + "\n")
    flags.show(result, json, lambda: measuring.tables(result))


def _progress(quiet: bool) -> Callable[[str], None]:
    return lambda text: None if quiet else print(text, file=sys.stderr)


def _bundled(folder: Path) -> list[str]:
    from counterpoise.deploy.measuring.phones import RESULTS, SCRIPT

    commands = (folder / SCRIPT).read_text(encoding="utf-8")
    return [
        commands,
        f"These commands are in {folder}/{SCRIPT}. With the phone at hand: sh {folder}/{SCRIPT}, and then "
        f"counterpoise measure --from {folder}/{RESULTS}",
    ]
