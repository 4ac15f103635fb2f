"""`counterpoise demo`."""

from __future__ import annotations

from pathlib import Path

from counterpoise.commands import flags


def demo(
    what: str = "digits",
    /,
    *,
    out: Path | None = None,
    seeds: int | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """See it work on embedded images: a teacher, and a student alone, with plain distillation and with Balance.

    Args:
        what: digits, multilabel: which digits are on a canvas with two, segmentation: digits on photographs, or
            vessels: thin structures on pictures of 12 patients
        out: folder for the runs, summary.json, report.html and overlays; default: runs/demo, or runs/demo-WHAT
        seeds: students of each kind; default: 5 for digits, 1 in each fold of vessels, else 3
        overwrite: replace an older demo in that folder
        json: print the summary as JSON
    """
    from counterpoise import demos
    from counterpoise.commands.tables import demo_table

    chosen = demos.find(what)
    folder = Path(chosen.out) if out is None else out
    summary = demos.demo(what, out=folder, seeds=seeds, overwrite=overwrite, show=True)
    flags.show(summary, json, lambda: demo_table(summary, folder, chosen.title, chosen.unit))
