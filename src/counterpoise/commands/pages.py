"""`counterpoise report`, `watch` and `try`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from counterpoise.commands import flags
from counterpoise.commands.flags import EACH
from counterpoise.deploy.options import Try
from counterpoise.errors import ConfigError
from counterpoise.pages.report.options import Report


def report(*paths: Path, options: Annotated[Report | None, EACH] = None) -> None:
    """Make a page to look at: is the student good, where does it fail, what does it cost. One file, without a network.

    A run that is still being written, or lacks something, gets a page of what there is.

    Args:
        paths: run folders; folders of runs, as of compare or a demo; exports; files of measure and fit
    """
    from counterpoise.pages.report.writing import report

    print(f"open {report(paths, **flags.given(options))}")


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


def try_(
    student: Path,
    /,
    *,
    options: Annotated[Try | None, EACH] = None,
    serve: bool = False,
    port: int | None = None,
    json: bool = False,
) -> None:
    """Make a page on which anyone can show the student a picture; it answers in their own browser.

    The folder is a static site: it works on any web host, and with --serve on this machine.

    Args:
        student: student folder, or a run's folder; with --serve also a site that was made before
        serve: show it from this machine until Ctrl-C
        port: of --serve; default: one of the site's own
        json: print what was made as JSON
    """
    from counterpoise.commands.tables import site_lines
    from counterpoise.deploy.site import making, site

    folder, given = student, flags.given(options)
    if port is not None and not serve:
        raise ConfigError("--port is of --serve: give that, too, or leave it out.")
    if serve and site.is_site(student) and given:
        raise ConfigError(f"--{min(given)} is of a new site, and {student} is one that was made: leave it out.")
    if not site.is_site(student):
        site_facts = making.try_(student, **given)
        flags.show(site_facts, json, lambda: site_lines(site_facts))
        folder = Path(site_facts["site"])
    elif not serve:
        raise ConfigError(f"{student} is a site already; show it with --serve.")
    if serve:
        from counterpoise.deploy.site.serving import serve_site

        serve_site(folder, port)
