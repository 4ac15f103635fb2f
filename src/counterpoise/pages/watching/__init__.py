"""A run while it goes on, in a terminal or a browser. Reads its folder and writes nothing there."""

from __future__ import annotations

from pathlib import Path


def watch(run: str | Path, *, terminal: bool | None = None, port: int = 0) -> None:
    """Show a run until it has finished (terminal) or until Ctrl-C (page).

    Args:
        run: the run's folder; it may be made later.
        terminal: as a table in the terminal; False: as a page; None: a page where a browser can be opened here.
        port: of the page, on 127.0.0.1; 0 is any free one.

    Raises RunError where `run` is no run folder, ConfigError where the port cannot be had.
    """
    from counterpoise.pages.watching.following import Follower

    follower = Follower(Path(run))
    if terminal is None:
        from counterpoise.pages.watching.terminal import has_browser

        terminal = not has_browser()
    if terminal:
        from counterpoise.pages.watching.terminal import follow

        try:
            follow(follower)
        except KeyboardInterrupt:
            print("Stopped watching; the run goes on.")
    else:
        from counterpoise.pages.watching.page import show

        show(follower, port)
