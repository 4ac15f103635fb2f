"""The promise of a student that segments scenes: which of their pixels it answers, chosen on scenes with masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from counterpoise import config, tasks
from counterpoise.data.epochs import Batch
from counterpoise.data.sources.base import ImageSet
from counterpoise.engine import promising, promising_scenes
from counterpoise.engine.evaluator import SOFT, in_classes_of, judged
from counterpoise.errors import DataError, ModelError
from counterpoise.models.network import VisionModel
from counterpoise.models.promise import ScenePromise
from counterpoise.tasks.confusion import upsample
from counterpoise.tasks.surety import EDGES, Marks, known, marks

Scene = Iterator[tuple[Tensor, Tensor]]
"""Of one scene, in pieces, logits [C, M] and classes [M] of the pixels that its mask knows."""
FITTED_PIXELS = 1_000
"""Of each scene, drawn at random, that fit the temperature."""


def chosen(
    network: VisionModel,
    images: ImageSet,
    section: config.Data,
    at_once: int,
    device: torch.device,
    risk: float,
    confidence: float,
) -> ScenePromise:
    """Choose it on scenes with masks.

    Raises:
        ModelError: the network answers probabilities, which no temperature divides.
        DataError: too few scenes, none with a mask, or no threshold keeps it.
    """
    network.to(device)
    shown = in_classes_of(network, images)
    return by_answers(
        shown,
        lambda some: _scenes(some, network, section, at_once, device),
        images.fingerprint(),
        risk,
        confidence,
    )


def by_answers(
    shown: ImageSet, scenes: Callable[[ImageSet], Iterator[Scene]], data: str, risk: float, confidence: float
) -> ScenePromise:
    """Choose it on scenes with masks, by what answers them.

    Args:
        scenes: of some of these scenes, in order, what is answered.
        data: fingerprint of the scenes.

    Raises:
        DataError: too few scenes, none with a mask, or no threshold keeps it.
    """
    first = torch.from_numpy(np.sort(promising_scenes.divided(len(shown))[0]))
    drawn = torch.Generator().manual_seed(0)
    sampled = [_drawn(*piece, drawn) for scene in scenes(shown.subset(first)) for piece in scene]
    logits, labels = (torch.cat(side).numpy() for side in zip(*sampled, strict=True))
    if not len(labels):
        raise DataError("The masks of these scenes know no pixel, so that nothing tells which answers are wrong.")
    temperature = promising.fitted_temperature(logits.astype(np.float64), labels)
    rows = [
        reduce(Marks.plus, (marks(values, truth, temperature) for values, truth in scene)) for scene in scenes(shown)
    ]
    right, wrong, by_class = (torch.stack(side).numpy() for side in zip(*rows, strict=True))
    marked = promising_scenes.Marked(right, wrong, by_class.sum(0))
    found = promising_scenes.choose(marked, EDGES.double().numpy(), risk, confidence)
    unsure = {
        name: float(share) for name, share in zip(shown.classes, found.unsure, strict=True) if not math.isnan(share)
    }
    return ScenePromise(
        risk=risk,
        confidence=confidence,
        temperature=temperature,
        pictures=int((right + wrong).any(1).sum()),
        unsure=unsure,
        data=data,
        **{name: value for name, value in found._asdict().items() if name != "unsure"},
    )


def whole(logits: Tensor, truth: Tensor) -> Scene:
    """A scene at once, of logits [C, h, w] and a mask [H, W]."""
    return iter([known(upsample(logits[None], (truth.shape[0], truth.shape[1]))[0], truth)])


def _scenes(
    images: ImageSet, network: VisionModel, section: config.Data, at_once: int, device: torch.device
) -> Iterator[Scene]:
    """What a student answers of one scene after the other."""
    loader = tasks.get(network.task).eval_loader(images, network, section, batch_size=at_once)
    for number, (batch, logits) in enumerate(judged(network, loader, device)):
        if number == 0 and network.answers_probabilities(batch.shown):
            raise ModelError(f"{network.name} {SOFT} Then its answers tell how sure it is.")
        if isinstance(logits, Tensor):
            assert isinstance(batch, Batch)
            for own, truth in zip(logits, batch.target, strict=True):
                yield whole(own, truth)
        else:
            truth = logits.truth
            yield (known(piece.logits, truth(piece.rows, piece.columns)[0]) for piece in logits.pieces)


def _drawn(logits: Tensor, labels: Tensor, drawn: torch.Generator) -> tuple[Tensor, Tensor]:
    """Logits [M, C] and classes [M] of some pixels."""
    some = torch.randperm(len(labels), generator=drawn)[:FITTED_PIXELS]
    return logits[:, some.to(logits.device)].T.cpu(), labels.cpu()[some]
