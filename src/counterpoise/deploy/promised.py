"""What a student has promised, of an export of it: float keeps it, and 8 bits choose it anew by their own answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from counterpoise.data.sources.base import ImageSet
from counterpoise.deploy import agreement, base, folder, pictures
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
            found: Promise | ScenePromise = chosen(answers, images, *asked, own.coverage)
        else:
            shown = in_classes_of(job.student, images)
            found = scene_promises.by_answers(shown, lambda some: _scenes(job, runtime, some), own.data, *asked)
    except DataError as error:
        return None, None, {"promise": f"{told} by this file. {error}"}
    if found.groups != own.groups:
        what = f"it was chosen on {_groups(own)}, and these data have {_groups(found)}"
        way = "Say as then what belongs together: a run file as --data, with data.options.group."
        return None, None, {"promise": f"{told}: {what}, so run.py answers every {every}. {way}"}
    return (found, None, {}) if isinstance(found, Promise) else (None, found, {})


def _groups(promise: Promise | ScenePromise) -> str:
    return "no groups" if promise.groups is None else f"{promise.groups:,} groups"


def differs(own: Promise | ScenePromise | None, export: folder.Description) -> str | None:
    """What an export promises otherwise than its student, which it is as old or older than; None where they agree."""
    its = export.scene_promise or export.promise
    if own is None:
        return None if its is None else "it makes a promise, and its student makes none"
    if its is None:  # one that could not keep it says so
        return None if "promise" in export.notes else "it makes no promise, and its student does"
    if isinstance(own, Promise) and export.precision in KEPT:
        return None if its == own else "it promises otherwise than its student"
    asked = [(one.risk, one.confidence, getattr(one, "coverage", None), one.data) for one in (own, its)]
    return None if asked[0] == asked[1] else "it promises otherwise than its student, or by other pictures"


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
