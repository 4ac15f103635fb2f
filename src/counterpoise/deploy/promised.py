"""What a student has promised, of an export of it: float keeps it, and 8 bits choose it anew by their own answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from counterpoise.deploy import agreement, base, pictures
from counterpoise.deploy.job import ExportJob
from counterpoise.engine.promises import chosen
from counterpoise.errors import DataError
from counterpoise.models.promise import Promise

KEPT = ("float32",)
"""Precisions in which answers are the student's but for the last digits."""


def of_export(job: ExportJob, runtime: base.Runtime | None) -> tuple[Promise | None, dict[str, str]]:
    """The promise of an export, and a note where it has none though its student has.

    Args:
        runtime: of the export; None where it does not run here.
    """
    if job.student.scene_promise is not None:
        return None, {"promise": "The student's promise is not kept: an export of scenes answers every pixel."}
    own = job.student.promise
    if own is None or job.request.precision in KEPT:
        return own, {}
    again = "so run.py answers every picture. With these pictures (--data) the export chooses a promise of its own."
    if runtime is None:
        return None, {"promise": f"The student's promise is not kept: this file does not run here, {again}"}
    if job.data is None or job.data.val.fingerprint() != own.data:
        what = "it was chosen on other pictures than those that this file was compared on"
        return None, {"promise": f"The student's promise is not kept: {what}, {again}"}
    try:
        return chosen(_answers(job, runtime), own.data, own.risk, own.confidence, own.coverage), {}
    except DataError as error:
        return None, {"promise": f"The student's promise is not kept by this file. {error}"}


def _answers(job: ExportJob, runtime: base.Runtime) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and labels of all validation pictures."""
    assert job.data is not None
    for pair in pictures.pairs(job.data.val, job.student, job.section, job.request):
        pixels = pair.fed.contiguous().numpy()
        found = np.ascontiguousarray(agreement.answer(runtime, pixels, job.request.batch))
        yield torch.from_numpy(found).float(), pair.target
