"""`counterpoise report`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def report(
    *paths: Path,
    out: Path | None = None,
    predictions: bool = True,
    images: int | None = None,
    device: str = "auto",
    model: str | None = None,
    overwrite: bool = False,
    epoch: Literal["last", "best"] | None = None,
) -> None:
    """Make a page to look at: is the student good, where does it fail, what does it cost. One file, without a network.

    A run that is still being written, or lacks something, gets a page of what there is.

    Args:
        paths: run folders; folders of runs, as of compare or a demo; exports; files of measure and fit
        out: the file; default: report.html in the folder, where one is given, else in this one
        predictions: ask student and teacher about the evaluation images; --no-predictions tells what the folders hold
        images: ask about so many of them; default: all
        device: auto, cpu, cuda, cuda:1 or mps
        model: the student's network where it is code of your own, file.py:function
        overwrite: replace the file
        epoch: whose students it is about, last or best; default: those that ship
    """
    import counterpoise

    written = counterpoise.report(
        paths, out, predictions=predictions, images=images, device=device, model=model, overwrite=overwrite, epoch=epoch
    )
    print(f"open {written}")
