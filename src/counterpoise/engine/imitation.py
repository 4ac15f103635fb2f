"""Scores of a run: those of its task, or of a student that learns features alone, how much of these it explains."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from counterpoise.engine.evaluator import quick_score
from counterpoise.engine.gauging import EvaluationGauge, said
from counterpoise.engine.parts import Parts
from counterpoise.engine.processes import Processes, errors_explained
from counterpoise.models.network import VisionModel
from counterpoise.objectives.feature_imitation import FeatureImitation
from counterpoise.objectives.features import built
from counterpoise.outputs import Outputs, in_eval_mode
from counterpoise.system.machine import as_double
from counterpoise.tasks import AGREEMENT, leading

EXPLAINED = "explained"


def headline(parts: Parts, found: Mapping[str, Any]) -> str:
    """The metric that picks the best epoch, as `found` scores call it."""
    if parts.objective.of_features_alone:
        return EXPLAINED
    return leading(parts.run.train.best_by or parts.task.headline, found)


def better(parts: Parts, found: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
    """Whether these scores are better than the best so far; where there are none, what is newer counts as such.

    NaN is worse than any number.
    """
    name = headline(parts, found) if found else ""
    if name not in best:
        return True
    sign = -1 if parts.task.less_is_better(name.removeprefix(AGREEMENT)) and name != EXPLAINED else 1
    now, before = (sign * float(scores.get(name, math.nan)) for scores in (found, best))
    return now > before or (math.isnan(before) and not math.isnan(now))


def scores(
    parts: Parts,
    student: VisionModel,
    processes: Processes,
    gauge: EvaluationGauge | None,
    compare: bool = False,
) -> dict[str, float]:
    """The quick score of a student of this run on its val images.

    `gauge` knows what the teacher says of these, and with `compare` is shown the student's answers.

    Nothing of the run trains the classifier of a student of features alone, so its answers are not scored.
    """
    if parts.objective.of_features_alone:
        return _explained(parts, student, processes)
    watch = gauge.compare if compare and gauge is not None else None
    return quick_score(
        student, parts.val, parts.task, processes, said(gauge), watch=watch, further=parts.run.train.scores
    )


@errors_explained()
def _explained(parts: Parts, student: VisionModel, processes: Processes) -> dict[str, float]:
    """The share of the variance of the teacher's features that the student's explain, in percent.

    The squared correlation of what the projector makes of the student's with the teacher's, over images and places: the
    mean over channels, and over terms. Nothing where no term has a projector of this kind.
    """
    objective, teacher = parts.objective, parts.teacher
    terms = [term for name in objective.terms if isinstance(term := objective.objective(name), FeatureImitation)]
    assert teacher is not None
    if not terms:
        return {}
    moments = [torch.zeros(6, built(term.standardized).num_features, dtype=torch.float64) for term in terms]
    with in_eval_mode(student, objective), teacher.model.together(), torch.inference_mode():
        for batch in parts.val:
            images = batch.images.to(processes.device, non_blocking=True)
            mine, other = student(images, objective.student_features), teacher(images, objective.teacher_features)
            assert isinstance(mine, Outputs)
            for sums, term in zip(moments, terms, strict=True):
                sums += _moments(*term.sides(mine, other))
    shares = [_share(processes.add(each)) for each in moments]
    return {EXPLAINED: 100 * sum(shares) / len(shares)}


def _moments(one: Tensor, other: Tensor) -> Tensor:
    """Of two maps [N, C, h, w] what their correlations follow from: float64 [6, C], which add up."""
    one, other = (as_double(side.transpose(0, 1).flatten(1)) for side in (one, other))
    count = torch.full_like(one[:, 0], one.shape[1])
    sums = (count, one.sum(1), other.sum(1), one.square().sum(1), other.square().sum(1), (one * other).sum(1))
    return torch.stack(sums).cpu()


def _share(moments: Tensor) -> float:
    """The mean squared correlation of channels by their moments; a channel that does not move has none."""
    count, one, other, one_square, other_square, both = moments
    variances = (count * one_square - one.square()) * (count * other_square - other.square())
    moving = variances > 0
    covariance = (count * both - one * other)[moving]
    return float((covariance.square() / variances[moving]).mean()) if bool(moving.any()) else 0.0
