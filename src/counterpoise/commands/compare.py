"""`counterpoise compare` and `counterpoise search`."""

from __future__ import annotations

import json as json_format
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise.commands import flags
from counterpoise.errors import CounterpoiseError

LEFT = 3
"""Exit code where time was up before the work was done, so that a loop knows whether to call again."""


def compare(
    compare_file: Path,
    /,
    *,
    out: Path | None = None,
    minutes: float | None = None,
    jobs: int = 1,
    on: str = "processes",
    cluster: dict[str, str] | None = None,
    pool: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Train methods over seeds and pairs, and tell which differences there are.

    The same command goes on with what was stopped or killed. Exit code 3: time was up, and runs are left.

    Args:
        compare_file: YAML: run, methods, pairs, seeds, baseline, primary
        out: folder of runs and tables, instead of the file's
        minutes: stop at a checkpoint after this time, and say what is left
        jobs: runs at once
        on: processes of this machine, ray or slurm
        cluster: options of Ray or Slurm, such as --cluster.num_gpus 0.25
        pool: take runs of several machines or versions of the code as one table
        json: print the tables as JSON
        quiet: no progress
    """
    from counterpoise.studies import report
    from counterpoise.studies.compare import compare as run

    result = run(compare_file, out=out, fanout=_fanout(minutes, jobs, on, cluster, pool, quiet))
    values = {
        "out": str(result.out),
        "metric": result.report.metric,
        "table": result.report.table,
        "differences": result.report.differences,
        "notes": result.report.notes,
        "left": result.left,
    }
    _show(values, json, report.tables(result.report, result.out))
    return ended(result.left, result.errors, json, said=not quiet)


def search(
    search_file: Path,
    /,
    *,
    out: Path | None = None,
    minutes: float | None = None,
    jobs: int = 1,
    on: str = "processes",
    cluster: dict[str, str] | None = None,
    final: bool = True,
    pool: bool = False,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Give every method the same chance to find its values, on training images held out; then compare the winners.

    The same command goes on with what was stopped or killed. Exit code 3: time was up, and runs are left.

    Args:
        search_file: YAML: run, ranges, methods, trials, rungs, seeds, val_images, final
        out: folder of trials and tables, instead of the file's
        minutes: stop at a checkpoint after this time, and say what is left
        jobs: runs at once
        on: processes of this machine, ray or slurm
        cluster: options of Ray or Slurm, such as --cluster.num_gpus 0.25
        final: train each method's winner on all training images and test it; --no-final stops before
        pool: take final runs of several machines or versions of the code as one table
        json: print the tables as JSON
        quiet: no progress
    """
    from counterpoise.studies import report
    from counterpoise.studies.search import search as run
    from counterpoise.studies.search import tables

    result = run(search_file, out=out, final=final, fanout=_fanout(minutes, jobs, on, cluster, pool, quiet))
    finals = result.final
    values = {
        "out": str(result.out),
        "budget": result.budget,
        "winners": result.winners,
        "table": [] if finals is None else finals.report.table,
        "differences": [] if finals is None else finals.report.differences,
        "left": result.left,
    }
    shown = list(tables(result)) + ([] if finals is None else list(report.tables(finals.report, finals.out)))
    _show(values, json, shown)
    return ended(result.left, result.errors, json, said=not quiet)


def _fanout(
    minutes: float | None, jobs: int, on: str, cluster: Mapping[str, str] | None, pool: bool, quiet: bool
) -> Any:
    from counterpoise.studies.compare import Fanout

    options = {key: flags.parse(value) for key, value in (cluster or {}).items()}
    return Fanout(minutes, jobs, on, options, pool, show=not quiet)


def _show(values: Any, as_json: bool, tables: Iterable[Any]) -> None:
    if as_json:
        print(json_format.dumps(values, indent=2, default=str))
        return
    from counterpoise.commands.tables import print_all

    print_all(tables)


def ended(left: Sequence[str], errors: Mapping[str, str], as_json: bool, said: bool) -> int:
    """The exit code. Raises CounterpoiseError where runs cannot go on, with the reasons unless they were `said`."""
    if errors and said:
        raise CounterpoiseError(
            f"{len(errors)} runs cannot go on, as said above: {_few(list(errors))}. The others are done as far as said."
        )
    if errors:
        messages: dict[str, list[str]] = {}
        for name, message in errors.items():
            messages.setdefault(message, []).append(name)
        lines = "".join(f"\n- {_few(names)}: {message}" for message, names in messages.items())
        raise CounterpoiseError(f"{len(errors)} runs cannot go on; the others are done as far as said above:{lines}")
    if left and not as_json:
        print(f"Time is up, and {len(left)} runs are left ({_few(left)}). The same command goes on.")
    return LEFT if left else 0


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
