"""`counterpoise compare` and `counterpoise search`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from counterpoise.commands import flags
from counterpoise.commands.flags import EACH
from counterpoise.errors import CounterpoiseError
from counterpoise.studies.fanout import Fanout, Spread

LEFT = 3
"""Exit code where time was up before the work was done, so that a loop knows whether to call again."""


def compare(
    compare_file: Path,
    /,
    *,
    out: Path | None = None,
    spread: Annotated[Spread | None, EACH] = None,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Train methods over seeds and pairs, and tell which differences there are.

    The same command goes on with what was stopped or killed. Exit code 3: time was up, and runs are left.

    Args:
        compare_file: YAML: run, methods, pairs, seeds, baseline, primary
        out: folder of runs and tables, instead of the file's
        json: print the tables as JSON
        quiet: no progress
    """
    from counterpoise.studies import report
    from counterpoise.studies.compare import compare as run

    result = run(compare_file, out=out, fanout=_fanout(spread, quiet))
    summary = {name: getattr(result.report, name) for name in ("metric", "table", "differences", "notes")}
    values = {"out": result.out, **summary, "left": result.left}
    flags.show(values, json, lambda: report.tables(result.report, result.out))
    return ended(result.left, result.errors, json, said=not quiet)


def search(
    search_file: Path,
    /,
    *,
    out: Path | None = None,
    final: bool = True,
    spread: Annotated[Spread | None, EACH] = None,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Give every method the same chance to find its values, on training images held out; then compare the winners.

    The same command goes on with what was stopped or killed. Exit code 3: time was up, and runs are left.

    Args:
        search_file: YAML: run, ranges, methods, trials, rungs, seeds, val_images, final
        out: folder of trials and tables, instead of the file's
        final: train each method's winner on all training images and test it; --no-final stops before
        json: print the tables as JSON
        quiet: no progress
    """
    from counterpoise.studies import report
    from counterpoise.studies.search import search as run
    from counterpoise.studies.search import tables

    result = run(search_file, out=out, final=final, fanout=_fanout(spread, quiet))
    finals = result.final
    values = {
        "out": result.out,
        "budget": result.budget,
        "winners": result.winners,
        "table": [] if finals is None else finals.report.table,
        "differences": [] if finals is None else finals.report.differences,
        "left": result.left,
    }
    shown = [*tables(result), *([] if finals is None else report.tables(finals.report, finals.out))]
    flags.show(values, json, lambda: shown)
    return ended(result.left, result.errors, json, said=not quiet)


def _fanout(spread: Spread | None, quiet: bool) -> Fanout:
    given = flags.given(spread)
    return Fanout(**{**given, "cluster": flags.parse(given.get("cluster"))}, show=not quiet)


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
