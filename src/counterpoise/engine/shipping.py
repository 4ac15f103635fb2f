"""The student as it ships: the weights of which epoch, and what these score."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from counterpoise.engine.evaluator import quick_score
from counterpoise.errors import RunError
from counterpoise.models.network import VisionModel
from counterpoise.system.files import read_tensors

if TYPE_CHECKING:
    from counterpoise.engine.trainer import Trainer


class Shipment(NamedTuple):
    """What a finished run has to ship.

    Attributes:
        weights: of the epoch that `train.ship` names.
        last, best: the metrics of both epochs, and their numbers.
    """

    weights: dict[str, Tensor]
    last: dict[str, float]
    best: dict[str, float]


def shipment(trainer: Trainer) -> Shipment:
    """The weights that a trained run ships, and the scores of its last and its best epoch, as `evaluate` finds them.

    Raises RunError where the best weights are to ship and cannot be read.
    """
    progress = trainer.progress
    # Copies: below, the student gets other weights in their place.
    weights = {name: value.clone() for name, value in trainer.optimization.shipped_weights().items()}
    last = {**score(trainer, weights), "epoch": progress.last["epoch"]}
    if progress.best.get("epoch") == progress.last["epoch"]:
        return Shipment(weights, last, dict(last))
    best = _best_weights(trainer)
    if best is None:
        return Shipment(weights, last, progress.best)
    found = {**score(trainer, best), "epoch": progress.best["epoch"]}
    return Shipment(best if trainer.run.train.ship == "best" else weights, last, found)


def epoch_of(trainer: Trainer, shipped: Shipment) -> dict[str, Any]:
    """Of which epoch the weights are, and by what the best one was found: for the student's provenance."""
    run = trainer.run
    ships = run.train.ship
    headline = trainer.parts.task.headline
    number = (shipped.best if ships == "best" else shipped.last)["epoch"]
    best = {"best": shipped.best["epoch"], "by": headline} if headline in shipped.best else {}
    return {"ships": ships, "number": number, "of": run.train.epochs, **best, "own_test": _own_test(trainer)}


def _own_test(trainer: Trainer) -> bool:
    """Whether some images neither trained nor chose: the data's own val behind held-out images, or a test part."""
    unused = [note for note in trainer.parts.found.values.get("notes", []) if note.startswith("not used:")]
    return trainer.run.data.held_out > 0 or any(re.search(r"\btest(ing)?\b", note, re.IGNORECASE) for note in unused)


def score(trainer: Trainer, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """The quick score of the student with these weights, in the form in which it is loaded from its folder."""
    parts = trainer.parts
    student = parts.student
    student.net.load_state_dict(weights)
    student.net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    plain = VisionModel(**student.settings()).to(trainer.processes.device)  # not compiled
    with student.shipping():
        return quick_score(plain, parts.val, parts.task, trainer.processes, parts.teacher)


def _best_weights(trainer: Trainer) -> dict[str, Tensor] | None:
    """Those in the run folder; None where they are gone, and not needed."""
    trainer.processes.barrier()  # until the first process has written them
    path = trainer.folder.best
    try:
        return read_tensors(path)[0]
    except (OSError, SafetensorError, ValueError) as error:
        if trainer.run.train.ship != "best":
            return None
        raise RunError(
            f"The weights of the best epoch, {path}, cannot be read: {error}. Ship the last ones: --train.ship last."
        ) from None
