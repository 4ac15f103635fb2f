"""Demos: a teacher, then students of one small network each alone, with KD and with Balance, on embedded images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from counterpoise.demos import base, digits, multilabel, segmentation, vessels
from counterpoise.demos.base import Demo
from counterpoise.demos.digits import OBJECTIVES, TEACHER, TOTAL_WEIGHT, student_run
from counterpoise.errors import ConfigError, unknown

__all__ = ["DEMOS", "OBJECTIVES", "TEACHER", "TOTAL_WEIGHT", "demo", "find", "student_run"]

DEMOS = {
    "digits": digits.DEMO,
    "multilabel": multilabel.DEMO,
    "segmentation": segmentation.DEMO,
    "vessels": vessels.DEMO,
}


def find(what: str) -> Demo:
    """The demo of this name. Raises ConfigError, with the nearest, where there is none."""
    if what not in DEMOS:
        raise ConfigError(unknown("Demo", str(what), DEMOS))
    return DEMOS[what]


def demo(
    what: str = "digits",
    *,
    out: str | Path | None = None,
    seeds: int | None = None,
    overwrite: bool = False,
    show: bool = False,
) -> dict[str, Any]:
    """Train a teacher, then `seeds` students of one small network each alone, with KD, with Balance.

    Args:
        what: "digits" (classification: 600 digits to learn from), "multilabel" (which digits are on a canvas with two),
            "segmentation" (digits on photographs) or "vessels" (thin structures on drawn pictures of 12 patients, each
            held out once: three folds with a teacher each).
        out: folder for the runs, summary.json, report.html and, for segmentation, overlays/N.png: image, truth, and
            what the teacher and a student of each kind make of it; default: runs/demo, or runs/demo- and what it is.
        seeds: students of each kind, at least 2; default: 5 for digits, 1 in each fold of vessels, else 3.
        overwrite: replace an older demo in that folder.
        show: progress on stderr.

    Returns:
        {"teacher" | "alone" | "kd" | "balance":
            {METRIC: {"last" | "best": {"mean", "std"}}, "params", "bytes", "seconds"}},
        METRIC being "top1", "map" or "miou", in percent on images that nothing was trained on, seconds a run; also
        written to summary.json. Vessels have a "binary teacher" and "binary balance" as well, and rows have "by_case":
        {"cases", "dice" | "precision" | "recall": {"mean", "std"}}.

    Raises:
        ConfigError: unknown demo, fewer than two seeds. RunError: the folder holds an older demo, and not `overwrite`.
    """
    chosen = find(what)
    folder = Path(chosen.out if out is None else out)
    return base.run(chosen, folder, chosen.seeds if seeds is None else seeds, overwrite, show)
