"""The command `counterpoise watch`."""

from __future__ import annotations

from pathlib import Path


def watch(run: Path, /, *, terminal: bool | None = None, port: int = 0) -> None:
    """See a run while it goes on: its report in a browser, or its curves in the terminal.

    It only reads, and may be started and stopped whenever one likes.

    Args:
        run: the run's folder
        terminal: in the terminal; default: where no browser can be opened here
        port: of the page, on this machine alone; default: any free one
    """
    from counterpoise.pages.watching import watch as show

    show(run, terminal=terminal, port=port)
