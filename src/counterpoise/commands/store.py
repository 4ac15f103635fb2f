"""`counterpoise record`, and `counterpoise store`: what is done to whole teacher stores."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App

from counterpoise.commands import flags
from counterpoise.commands.flags import EACH, Options, RunFile
from counterpoise.engine.options import Record
from counterpoise.errors import ConfigError, StoreError

app = App(name="store", help="Look at, check, extend, make smaller and join teacher stores.")


@app.command
def info(store: Path, /, *, json: bool = False) -> None:
    """Show what a store holds.

    Args:
        store: its folder
        json: print JSON
    """
    from counterpoise import store as stores

    _show(stores.info(store), json)


@app.command
def verify(store: Path, /, *, discard: bool = False, json: bool = False) -> None:
    """Compare every chunk with its checksum; exit code 2 where one is damaged, missing or cut off.

    Args:
        store: its folder
        discard: remove damaged chunks, so that recording again makes these and no others
        json: print JSON
    """
    from counterpoise import store as stores

    damages = stores.verify(store, discard=discard)
    if json:
        print(json_format.dumps([damage._asdict() for damage in damages], indent=2))
    if not damages:
        if not json:
            state = stores.info(store)["state"]
            print(f"{store} is whole." if state == "finished" else f"{store} ({state}): what is there is whole.")
        return
    listed = "".join(f"\n  - chunk {damage.chunk} {damage.problem}" for damage in damages)
    advice = "They are removed: record again." if discard else "Remove them with --discard, and record again."
    raise StoreError(f"Store {store} is damaged:{listed}\n{advice}")


@app.command
def extend(
    run_file: Path,
    /,
    *,
    options: Options = None,
    epochs: int | None = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Record further epochs into the store in --out, as many as --epochs in all.

    Args:
        run_file: the YAML run file that the store was recorded for
        epochs: of how many epochs views are there in the end; default: train.epochs
        json: print what the store holds as JSON
        quiet: no progress
    """
    from counterpoise import store as stores

    run = flags.resolved(run_file, options)
    _show(stores.extend(run, epochs=epochs, show=not quiet and flags.is_first()), json)


@app.command
def prune(
    store: Path,
    /,
    *,
    keep: str | None = None,
    precision: str | None = None,
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Make a store smaller: fewer views, or fewer bits.

    Args:
        store: its folder
        keep: the views or epochs to keep, such as 0-49 or 0,3,7-9
        precision: int8, int4 or float16, from a store in more bits
        out: folder of the smaller store; without one, views are dropped in place
        json: print JSON
    """
    from counterpoise import store as stores

    if keep is None and precision is None:
        raise ConfigError("prune needs --keep, which views to keep, or --precision, in how many bits.")
    kept = None if keep is None else _numbers(keep)
    _show(stores.prune(store, keep=kept, precision=precision, out=out), json)


@app.command
def merge(*sources: Path, out: Path, json: bool = False) -> None:
    """Join parts that were recorded in folders of their own.

    Args:
        sources: the folders
        out: folder of the whole store
        json: print JSON
    """
    from counterpoise import store as stores

    _show(stores.merge(*sources, out=out), json)


def record(
    run_file: RunFile = None,
    /,
    *,
    options: Options = None,
    how: Annotated[Record | None, EACH] = None,
    json: bool = False,
    quiet: bool = False,
) -> None:
    """Record what a teacher says of the views that students will see; train from it with --teacher.store.

    The same command goes on with a recording that was stopped. --out is the folder of the store.

    Args:
        json: print what was recorded as JSON
        quiet: no progress
    """
    from counterpoise.engine import recording

    run = flags.resolved(run_file, options)
    _show(recording.record(run, **flags.given(how), show=not quiet and flags.is_first()), json)


def _numbers(text: str) -> list[int]:
    """0-4,7 as 0, 1, 2, 3, 4, 7. Raises ConfigError."""
    found: list[int] = []
    for piece in text.split(","):
        first, dash, last = piece.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal()) or max(len(first), len(last)) > 6 or int(first) > int(last):
            raise ConfigError(f"--keep takes numbers and ranges such as 0-49 or 0,3,7-9, got '{text}'.")
        found.extend(range(int(first), int(last) + 1))
    return found


def _show(facts: dict[str, Any], json: bool) -> None:
    from counterpoise.commands.tables import facts_table

    if flags.is_first():
        flags.show(facts, json, lambda: facts_table(facts))
