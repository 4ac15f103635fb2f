"""What a student has promised, of an export of it: float keeps it, and 8 bits choose it anew by their own answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from counterpoise.data.sources.base import ImageSet
from counterpoise.deploy import agreement, base, pictures
from counterpoise.deploy.job import ExportJob
from counterpoise.engine import scene_promises
from counterpoise.engine.evaluator import in_classes_of
from counterpoise.engine.promises import Answered, chosen
from counterpoise.errors import DataError
from counterpoise.models.promise import Promise, ScenePromise

KEPT = ("float32",)
"""Precisions in which answers for a picture are the student's but for the last digits."""


def of_export(
    job: ExportJob, runtime: base.Runtime | None
) -> tuple[Promise | None, ScenePromise | None, dict[str, str]]:
    """The promise of an export, for pictures or for scenes, and a note where it has none though its student has.

    A promise for scenes is chosen anew in each precision: a file takes scenes of one size, and its student of any.

    Args:
        runtime: of the export, as run.py asks it; None where it does not run here.
    """
    own = job.student.scene_promise or job.student.promise
    if own is None:
        return None, None, {}
    if isinstance(own, Promise) and job.request.precision in KEPT:
        return own, None, {}
    told = "The student's promise is not kept"
    every = "picture" if isinstance(own, Promise) else "pixel"
    again = f"so run.py answers every {every}. With these pictures (--data) the export chooses a promise of its own."
    if runtime is None:
        return None, None, {"promise": f"{told}: this file does not run here, {again}"}
    if job.data is None or job.data.val.fingerprint() != own.data:
        what = "it was chosen on other pictures than those that this file was compared on"
        return None, None, {"promise": f"{told}: {what}, {again}"}
    images, asked = job.data.val, (own.risk, own.confidence)
    try:
        if isinstance(own, Promise):
            answers = (
                Answered(torch.from_numpy(found), pair.target, indices)
                for found, pair, indices in _answers(job, runtime, images)
            )
            return chosen(answers, images, *asked, own.coverage), None, {}
        shown = in_classes_of(job.student, images)
        return None, scene_promises.by_answers(shown, lambda some: _scenes(job, runtime, some), own.data, *asked), {}
    except DataError as error:
        return None, None, {"promise": f"{told} by this file. {error}"}


def _answers(
    job: ExportJob, runtime: base.Runtime, images: ImageSet
) -> Iterator[tuple[base.Logits, pictures.Pair, torch.Tensor]]:
    """Logits float32 of pictures, in batches, and the indices of these."""
    for pair in pictures.pairs(images, job.student, job.section, job.request):
        found = agreement.answer(runtime, pair.fed.contiguous().numpy(), job.at_once)
        assert pair.indices is not None
        yield np.ascontiguousarray(found, np.float32), pair, pair.indices


def _scenes(job: ExportJob, runtime: base.Runtime, images: ImageSet) -> Iterator[tuple[int, scene_promises.Scene]]:
    """What an export answers of one scene after the other, by index."""
    for found, pair, indices in _answers(job, runtime, images):
        answered = pair.answers(torch.from_numpy(found))
        for index, logits, truth in zip(indices.tolist(), answered, pair.target, strict=True):
            yield index, scene_promises.whole(logits, truth)
