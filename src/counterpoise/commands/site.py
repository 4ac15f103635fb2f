"""The command `counterpoise try`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from counterpoise.commands import flags
from counterpoise.errors import ConfigError


def try_(
    student: Path,
    /,
    *,
    out: Path | None = None,
    serve: bool = False,
    port: int | None = None,
    samples: list[Path] | None = None,
    evaluation_pictures: int = 0,
    data: Path | None = None,
    model: str | None = None,
    overwrite: bool = False,
    epoch: Literal["last", "best"] | None = None,
    json: bool = False,
) -> None:
    """Make a page on which anyone can show the student a picture; it answers in their own browser.

    The folder is a static site: it works on any web host, and with --serve on this machine.

    Args:
        student: student folder, or a run's folder; with --serve also a site that was made before
        out: folder of the site; default: sites/NAME
        serve: show it from this machine until Ctrl-C
        port: of --serve; default: one of the site's own
        samples: pictures, or folders of them, that the page offers; default: drawn ones
        evaluation_pictures: how many pictures of the student's evaluation data the page offers
        data: data folder or run file to calibrate 8 bits with; default: the data of the run that the student lies in
        model: the student's network where it is code of your own, file.py:function
        overwrite: replace an older site in that folder
        epoch: of a run: the student of its last or of its best epoch; default: the one that ships
        json: print what was made as JSON
    """
    import counterpoise
    from counterpoise.commands.tables import site_lines
    from counterpoise.pages.site import site

    if site.is_site(student):
        if not serve:
            raise ConfigError(f"{student} is a site already; show it with --serve.")
        place = student
    else:
        made = counterpoise.try_(
            student,
            out=out,
            samples=samples or (),
            evaluation_pictures=evaluation_pictures,
            data=data,
            model=model,
            overwrite=overwrite,
            epoch=epoch,
        )
        flags.show(made, json, lambda: site_lines(made))
        place = Path(made["site"])
    if serve:
        from counterpoise.pages.site.serving import serve_site

        serve_site(place, port)
