"""A student that says when it is not sure: the promise is chosen on labeled pictures, and kept in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from counterpoise import config, tasks
from counterpoise.config.options import Place, keywords_after
from counterpoise.data.sources.base import UNLABELED, ImageSet, Splits
from counterpoise.engine import inputs, promising, scene_promises
from counterpoise.engine.evaluator import SOFT, answers, has_labels, in_classes_of
from counterpoise.engine.options import Promised
from counterpoise.engine.processes import choose_device
from counterpoise.engine.student import as_json, load_student
from counterpoise.engine.trained_on import looked_up, noted
from counterpoise.errors import ConfigError, DataError, ModelError
from counterpoise.models import folder
from counterpoise.models.network import VisionModel
from counterpoise.models.promise import Promise, ScenePromise
from counterpoise.system.files import write_text


class Answered(NamedTuple):
    """Logits [N, C] of pictures, their labels [N], and their indices [N] within the set."""

    logits: Tensor
    labels: Tensor
    indices: Tensor


@keywords_after("data", Promised)
def promise(student: Place, options: Promised) -> dict[str, Any]:
    """Choose from which probability on a student answers, so that few answers are wrong; kept in its folder.

    Of the answers that are given at most `risk` are wrong, as sure as `confidence`; a picture whose largest
    probability is below the threshold is not answered. Probabilities are those of logits divided by a temperature that
    is fitted, too. The set of classes that is named of a picture holds the true one in a share of `coverage`. Of
    scenes, each pixel is answered or not, and of those that are at most `risk` is wrong, as a mean over scenes. All of
    it holds for pictures that are drawn as those were on which it was chosen. Where these are of groups (a patient, a
    video), groups are what is drawn, and each counts as much as any other. `engine.promising` and
    `engine.promising_scenes` say how it is chosen.

    Args:
        student: student folder, or a run's folder. Its student.json is replaced: exports that are made from then on
            carry the promise; those that are there do not.

    Returns:
        What student.json says of it, see `models.promise.Promise` and `ScenePromise`; and `notes`.

    Raises:
        ConfigError: the student answers something else than one class a picture or a pixel.
        ModelError: the network answers probabilities, where logits are expected.
        DataError: too few pictures, none with a label, or some that it was trained on; no threshold keeps the promise.
            What the student promised before then stays, and the error says so.
    """
    path = folder.find(Path(student))
    network = load_student(path, model=options.model)
    if network.task not in ("classification", "segmentation"):
        raise ConfigError(f"A promise is for one class a picture or a pixel, and {student} answers {network.task}.")
    images, section = inputs.evaluated(Path(student), options.data, options.split, options.data_set)
    unknown = unseen(student, images, section, options.data_set)
    at_once, device = inputs.batch_size(Path(student), options.batch_size), choose_device(options.device)
    before = network.description.scene_promise or network.description.promise
    try:
        if network.task == "segmentation":
            if "coverage" in options.model_fields_set:
                raise ConfigError("coverage is of sets of classes for a picture, and pixels have none: leave it out.")
            asked = (options.risk, options.confidence)
            found: Promise | ScenePromise = scene_promises.chosen(network, images, section, at_once, device, *asked)
            description = network.description.model_copy(update={"scene_promise": found})
        else:
            told = list(answered(student, network, images, section, at_once, device))
            found = chosen(told, images, options.risk, options.confidence, options.coverage)
            description = network.description.model_copy(update={"promise": found})
    except DataError as error:
        if before is None:
            raise
        raise DataError(
            f"{error} What {path} promised before stays: at most {before.risk:.2%} wrong, at {before.confidence:.1%} "
            "confidence."
        ) from None
    write_text(path / folder.DESCRIPTION, as_json(description.values()).decode())
    notes = [
        *_notes(network.description, images, found, Path(student)),
        *inputs.without_groups(Path(student), images),
        *unknown,
    ]
    return {"folder": str(path), **found.model_dump(), "notes": notes}


def unseen(network: Place, images: ImageSet, section: config.Data, data_set: Splits | None) -> list[str]:
    """Notes on what cannot be known of whether a network was trained on pictures.

    Raises DataError unless these have labels, and none is known to have been trained on.
    """
    if not has_labels(images):
        raise DataError("The pictures have no labels, so that nothing tells which answers are wrong (--data).")
    seen, unknown = looked_up(Path(network), images, section if data_set is None else None)
    if seen:
        raise DataError(
            f"{seen:,} of {len(images):,} pictures are among those that {network} was trained on, where it errs less "
            "than elsewhere: give others (--data)."
        )
    return [f"{what} All this holds if these pictures are none of those." for what in unknown]


def answered(
    place: Place, network: VisionModel, images: ImageSet, section: config.Data, at_once: int, device: torch.device
) -> Iterator[Answered]:
    """In batches, the labels by the classes of the network that lies at `place`.

    Raises ModelError where it answers probabilities, which no temperature divides.
    """
    shown = in_classes_of(network, images)
    loader = tasks.get(network.task).eval_loader(shown, network, section, batch_size=at_once)
    for number, (batch, logits) in enumerate(answers(network.to(device), loader, device)):
        if number == 0 and network.answers_probabilities(batch.shown):
            raise ModelError(f"{place} {SOFT} Then its answers tell how sure it is.")
        yield Answered(logits.cpu(), batch.target.cpu(), batch.indices)


def chosen(answered: Iterable[Answered], images: ImageSet, risk: float, confidence: float, coverage: float) -> Promise:
    """From answers to pictures of a set, in batches. Raises DataError."""
    logits, labels, indices = (torch.cat(side) for side in zip(*answered, strict=True))
    known = labels != UNLABELED
    values, classes = logits[known].double().numpy(), labels[known].numpy().astype(np.int64)
    owners = images.owners()[indices[known]].numpy()
    found = promising.choose(values, classes, risk, confidence, coverage, owners=owners)
    return Promise(
        risk=risk,
        confidence=confidence,
        coverage=coverage,
        **found._asdict(),
        pictures=int(known.sum()),
        data=images.fingerprint(),
    )


def _notes(
    description: folder.Description, images: ImageSet, found: Promise | ScenePromise, student: Path
) -> list[str]:
    """What is to be said of the pictures on which it was chosen."""
    notes = []
    if found.groups is not None:
        one = "Pictures" if isinstance(found, Promise) else "Scenes"
        notes.append(f"{one} of one group err together, so that each of the {found.groups:,} groups counted once.")
    epoch = description.provenance.get("epoch")
    by = epoch.get("by") if isinstance(epoch, dict) and epoch.get("ships") == "best" else None
    chose = description.provenance.get("val_fingerprint", noted(student, "val"))
    if by is not None and chose in (None, images.fingerprint()):
        notes.append(
            f"These pictures may have chosen the student's epoch, by {by}: others would tell more honestly (--data)."
        )
    return notes
