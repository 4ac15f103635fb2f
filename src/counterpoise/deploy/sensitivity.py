"""Which layers to keep in float: the most sensitive ones, as many as it takes, judged on training images."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise import tasks
from counterpoise.data.sources.base import ImageSet
from counterpoise.deploy import agreement, pictures
from counterpoise.deploy.base import Calibration
from counterpoise.deploy.fake_quantization import fake_quantized, layers_of
from counterpoise.deploy.job import ExportJob, make
from counterpoise.engine import inputs
from counterpoise.errors import ConfigError, DisagreementError, ExportError, MissingExtraError

RANKED_ON = 64
"""Images behind the ranking of layers."""
JUDGED_ON = 10_000
"""Training images behind the loss at most, none of them a calibration image where there are others. Where a tenth of
the answers change, as in depthwise nets, the loss on 2,000 images is off by half a point for chance alone."""
JUDGED_BYTES = 1 << 29
"""Memory of those images at most."""


AIMED_AT = 95.0
"""Percent of the answers on those images that layers kept in float unasked are to leave the same."""


class Trial(NamedTuple):
    """One 8-bit file: how many layers were kept in float, by how many points its metric was below the float's, and how
    many percent of the answers were the same."""

    kept: int
    loss: float
    same: float


def sensitivities(
    network: nn.Module, pixels: Tensor | Sequence[Tensor], largest: int, sigmoid: bool = False
) -> list[tuple[str, float]]:
    """By layer, the most sensitive first, what rounding it alone does: KL (nats) of the answers from those in float.

    Args:
        network: as deployed, in eval mode.
        pixels: uint8 [N, 3, H, W]; of several sizes, N times [3, H, W].
        largest: magnitude of the integers that weights become, the format's `largest_weight`.
        sigmoid: whether each logit is a question of its own.
    """

    def answered(part: Tensor) -> Tensor:
        logits = agreement.student_answer(network, part)
        # A coin's sides are a softmax over (x, 0).
        return F.log_softmax(torch.stack([logits, torch.zeros_like(logits)], 1) if sigmoid else logits, 1)

    parts = [pixels] if isinstance(pixels, Tensor) else [picture[None] for picture in pixels]
    before = [answered(part) for part in parts]
    found = []
    for name in layers_of(network):
        with fake_quantized(network, [name], largest=largest):
            after = [answered(part) for part in parts]
        apart = ((one.exp() * (one - other)).sum(1).mean() for one, other in zip(before, after, strict=True))
        found.append((name, sum(map(float, apart)) / len(parts)))
    return sorted(found, key=lambda item: -item[1])


def choose(job: ExportJob, calibration: Calibration, within: float) -> tuple[Calibration, list[Trial]]:
    """The fewest layers kept in float, of a ranking by sensitivity, with which the loss is at most `within` points, and
    as many answers are the same as an export must have (`job.min_same`); with it the files that were tried.

    Each trial is quantized and run by the runtime itself. Beyond the layers that `calibration` keeps anyway, 0, 1, 2, 4
    and so on are kept until the loss is small enough, and then the smallest such number is sought between the last two.

    Raises:
        ConfigError: `within` is negative, or there are no labeled training images.
        ExportError: not even with all layers in float.
    """
    if not within >= 0:
        raise ConfigError(f"within must be 0 or more points, got {within}.")
    least = agreement.LIMITS["int8"].same if job.min_same is None else job.min_same
    judged = list(_judged(job, len(calibration.pixels)))
    remembered = agreement.Remembered(job.network)
    sigmoid = tasks.get(job.student.task).sigmoid
    ranked = sensitivities(job.network, calibration.pixels[:RANKED_ON], job.format.largest_weight, sigmoid)
    ranking = [name for name, _ in ranked if name not in calibration.keep]
    trials: list[Trial] = []

    def settings(kept: int) -> Calibration:
        return Calibration(calibration.pixels, calibration.method, (*calibration.keep, *ranking[:kept]))

    def fits(kept: int) -> bool:
        trial = Trial(kept, *_judge(job, settings(kept), remembered, judged))
        trials.append(trial)
        return trial.loss <= within and trial.same >= least

    low, high = -1, 0
    while not fits(high):
        if high == len(ranking):
            best = min(trials, key=lambda trial: trial.loss)
            raise ExportError(
                f"{job.format.name} loses more than {within} points in 8 bits, or answers otherwise in more than "
                f"{100 - least:g}%, whatever is kept in float: the best lost {best.loss:.2f} points, {best.same:.2f}% "
                f"of the answers the same, with {best.kept} of {len(ranking)} layers kept. Allow more (--within, "
                "--min_same), or fine-tune."
            )
        low, high = high, min(len(ranking), max(1, 2 * high))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return settings(high), trials


def relieved(
    job: ExportJob, calibration: Calibration, refusal: DisagreementError
) -> tuple[Calibration, dict[str, Any]]:
    """The calibration with the layers in float that it takes, and how they were found. Raises the refusal if none."""
    within = agreement.LIMITS["int8"].loss
    try:
        settings, trials = choose(job._replace(min_same=AIMED_AT), calibration, within)
    except (ConfigError, MissingExtraError, ExportError) as error:
        raise refusal from error
    return settings, {"within": within, "without": refusal.why, "trials": [trial._asdict() for trial in trials]}


def _judged(job: ExportJob, calibrated: int) -> Iterator[pictures.Pair]:
    if job.data is None:
        raise ConfigError("within is judged on labeled training images, and none are given: --data PATH.")
    size = job.request.size
    count = min(JUDGED_ON, JUDGED_BYTES // (3 * size[0] * size[1]))
    others = _others(job.data.train, max(1, count), calibrated)
    for pair in pictures.pairs(others, job.student, job.section, job.request):
        yield pair._replace(seen=pair.fed)  # what rounding costs, not what resizing does


def _others(images: ImageSet, count: int, calibrated: int) -> ImageSet:
    """At most `count` images, spread evenly over those that did not calibrate, or over all where all did."""
    left = torch.ones(inputs.positive("training images", len(images)), dtype=torch.bool)
    left[pictures.spread_indices(len(images), calibrated)] = False
    rest = (left if left.any() else ~left).nonzero().flatten()
    return images.subset(rest[pictures.spread_indices(len(rest), count)])


def _judge(
    job: ExportJob, calibration: Calibration, student: nn.Module, judged: list[pictures.Pair]
) -> tuple[float, float]:
    """Loss, and percent of the answers that are the same."""
    task = tasks.get(job.student.task)
    with tempfile.TemporaryDirectory() as folder:
        make(job, Path(folder), calibration)
        runtime: Any = job.opened(Path(folder))
        found = agreement.compare(student, runtime, judged, task, job.student.num_classes, job.at_once, resamples=0)
        del runtime
    if found.loss is None or math.isnan(found.loss):
        raise ConfigError("within is judged on labeled training images, and these have no labels.")
    return found.loss, found.same
