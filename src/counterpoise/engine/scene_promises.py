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
from counterpoise.engine import betting, promising, promising_scenes
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
    shown: ImageSet,
    scenes: Callable[[ImageSet], Iterator[tuple[int, Scene]]],
    data: str,
    risk: float,
    confidence: float,
) -> ScenePromise:
    """Choose it on scenes with masks, by what answers them.

    Args:
        scenes: of some of these scenes, by index, what is answered; one that cannot be read is left out.
        data: fingerprint of the scenes.

    Raises:
        DataError: too few scenes, none with a mask, or no threshold keeps it.
    """
    owners = shown.owners().numpy()
    units, _ = betting.divided(int(owners.max()) + 1)
    first = torch.from_numpy(np.sort(betting.members(owners, units)))
    drawn = torch.Generator().manual_seed(0)
    sampled = [_drawn(*piece, drawn) for _, scene in scenes(shown.subset(first)) for piece in scene]
    temperature = 1.0
    if len(first):  # else there are too few, as `choose` says
        if not any(len(labels) for _, labels in sampled):
            raise DataError("The masks of these scenes know no pixel, so that nothing tells which answers are wrong.")
        logits, labels = (torch.cat(side).numpy() for side in zip(*sampled, strict=True))
        temperature = promising.fitted_temperature(logits.astype(np.float64), labels)
    counts = np.zeros((2, len(shown), len(EDGES)), np.int64)
    by_class = np.zeros((len(shown.classes), len(EDGES)), np.int64)
    for index, scene in scenes(shown):
        found = reduce(Marks.plus, (marks(values, truth, temperature) for values, truth in scene))
        counts[:, index] = found.right, found.wrong
        by_class += found.by_class.numpy()
    right, wrong = counts
    marked = promising_scenes.Marked(right, wrong, by_class)
    chose = promising_scenes.choose(marked, EDGES.double().numpy(), risk, confidence, owners=owners)
    unsure = {
        name: float(share) for name, share in zip(shown.classes, chose.unsure, strict=True) if not math.isnan(share)
    }
    return ScenePromise(
        risk=risk,
        confidence=confidence,
        temperature=temperature,
        pictures=int((right + wrong).any(1).sum()),
        unsure=unsure,
        data=data,
        **{name: value for name, value in chose._asdict().items() if name != "unsure"},
    )


def whole(logits: Tensor, truth: Tensor) -> Scene:
    """A scene at once, of logits [C, h, w] and a mask [H, W]."""
    return iter([known(upsample(logits[None], (truth.shape[0], truth.shape[1]))[0], truth)])


def _scenes(
    images: ImageSet, network: VisionModel, section: config.Data, at_once: int, device: torch.device
) -> Iterator[tuple[int, Scene]]:
    """What a student answers of one scene after the other, by index."""
    loader = tasks.get(network.task).eval_loader(images, network, section, batch_size=at_once)
    for number, (batch, logits) in enumerate(judged(network, loader, device)):
        if number == 0 and network.answers_probabilities(batch.shown):
            raise ModelError(f"{network.name} {SOFT} Then its answers tell how sure it is.")
        if isinstance(logits, Tensor):
            assert isinstance(batch, Batch)
            for index, own, truth in zip(batch.indices.tolist(), logits, batch.target, strict=True):
                yield index, whole(own, truth)
        else:
            truth = logits.truth
            pieces = (known(piece.logits, truth(piece.rows, piece.columns)[0]) for piece in logits.pieces)
            yield int(batch.indices[0]), pieces


def _drawn(logits: Tensor, labels: Tensor, drawn: torch.Generator) -> tuple[Tensor, Tensor]:
    """Logits [M, C] and classes [M] of some pixels."""
    some = torch.randperm(len(labels), generator=drawn)[:FITTED_PIXELS]
    return logits[:, some.to(logits.device)].T.cpu(), labels.cpu()[some]
