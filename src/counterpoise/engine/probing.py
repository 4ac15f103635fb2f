"""A teacher from a network without classes: a linear classifier on its features, chosen on images held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from counterpoise import config, tasks
from counterpoise.config.options import keywords
from counterpoise.data import sources
from counterpoise.data.sources.base import UNLABELED, ImageSet
from counterpoise.data.sources.division import split_by_fraction
from counterpoise.engine import inputs, networks
from counterpoise.engine.assemble import evaluation_loader
from counterpoise.engine.evaluator import answers
from counterpoise.engine.export_student import commit, versions
from counterpoise.engine.inputs import RunLike
from counterpoise.engine.options import Probe
from counterpoise.engine.processes import Processes, join
from counterpoise.engine.progress import Pace
from counterpoise.engine.student import save_student
from counterpoise.errors import ConfigError, DataError, ModelError, RunError
from counterpoise.models import probing
from counterpoise.models.network import VisionModel

HELD_OUT = 0.2
"""Share of the labeled training images on which the penalty is chosen."""
FEWEST = 2


@keywords(Probe)
def probe(run: RunLike, options: Probe) -> dict[str, Any]:
    """Fit a linear classifier on the features of a network that has none, or others, and keep both as a teacher.

    The network's answers to the labeled training images are computed once. The penalty of the classifier is chosen on a
    fifth of them, then it is fitted on all; the validation images choose nothing. Nearest neighbors are told beside it.

    `run` is as for `distill`; only its data and teacher matter.

    Returns:
        Scores in percent, the penalty, what is to be said of the network's weights, and the folder, which
        `teacher.checkpoint` takes.

    Raises:
        DataError: too few labels or classes.
        ModelError: a network whose answers are not those of a linear layer.
    """
    resolved = inputs.resolve(run)
    if resolved.task != "classification":
        raise ConfigError(f"probe fits a classifier of pictures, and the task is {resolved.task}.")
    folder = Path(options.out)
    if folder.exists() and any(folder.iterdir()) and not options.overwrite:
        raise RunError(f"{folder} is not empty: give another --out, or replace it with --overwrite.")
    train, val = sources.load(resolved.data)
    labeled = _labeled(train)
    with join(resolved.train.device) as processes:
        if processes.world > 1:
            raise ConfigError("probe works in one process: start it without torchrun.")
        model = _network(resolved, labeled.classes, options.network).to(processes.device)
        task, share = tasks.get(resolved.task), tasks.Share(processes.rank, processes.world)
        task.ready(model, resolved)
        shown = task.decide(resolved, labeled, [model])
        classes, device = len(labeled.classes), processes.device
        views = task.train_loader(labeled, shown, num_classes=classes, share=share, device=device)
        task.fit([model], resolved.data, views)  # pictures are brought to the square as those of a run are
        model.reading = labeled.reading
        head, known, indices = _features(model, labeled, resolved, processes, options.show)
        penalty, chosen = _choose(labeled, known, indices)
        ((_, classifier),) = probing.fit(*known, len(labeled.classes), [penalty])
        with torch.no_grad():
            head.weight.copy_(classifier.weight)
            head.bias.copy_(classifier.bias)
        found: dict[str, Any] = {
            "penalty": penalty,
            "held_out": chosen,
            "notes": networks.beside_classifier(model.notes),
        }
        judged = _labeled(val, least=1)
        _, other, _ = _features(model, judged, resolved, processes, options.show)
    found["top1"] = probing.percent(classifier(other[0]).argmax(1), other[1])
    found["neighbors"] = {
        count: probing.percent(said, other[1])
        for count, said in probing.neighbors(known, other[0], len(labeled.classes), probing.NEIGHBORS).items()
    }
    origin = {"network": model.name, "images": len(known[1]), "data_fingerprint": labeled.fingerprint()}
    provenance = {"probe": {**origin, "penalty": penalty}, "versions": versions(), "commit": commit()}
    metrics = {"top1": found["top1"], "neighbors": {f"of {k}": value for k, value in found["neighbors"].items()}}
    save_student(model.cpu(), folder, classes=labeled.classes, metrics=metrics, provenance=provenance)
    return {"folder": str(folder), "images": len(known[1]), "features": head.in_features, "val": len(other[1]), **found}


def _labeled(images: ImageSet, least: int = FEWEST) -> ImageSet:
    """The labeled ones. Raises DataError where these, or their classes, are too few, or an image may have several."""
    if images.multilabel:
        raise DataError("probe fits a classifier of one class an image, and these images have several labels.")
    known = images.labels != UNLABELED
    classes = len(torch.unique(images.labels[known]))
    if classes < least:
        there = "none has a label" if not classes else f"all of them are {images.classes[int(images.labels[known][0])]}"
        raise DataError(
            f"probe needs labeled images of {least} classes or more; of the {len(images)} in "
            f"{images.origin or 'the set'} {there}."
        )
    return images if bool(known.all()) else images.subset(torch.nonzero(known).flatten())


def _network(run: config.Run, classes: tuple[str, ...], module: nn.Module | None) -> VisionModel:
    """The network, with a head for these classes. Raises ConfigError where none is named, or it has no weights."""
    section = run.teacher or config.Teacher()
    if module is None and section.model is None and section.checkpoint is None:
        raise ConfigError("teacher.model is missing: the network to probe, such as timm/vit_small_patch14_dinov2.")
    if module is None and section.checkpoint is None and not section.pretrained:
        raise ConfigError(
            "The network has no weights: give teacher.checkpoint (a file or a run) or teacher.pretrained."
        )
    channels = run.data.channels
    return networks.named(
        section, module, num_classes=len(classes), classes=classes, keep_head=False, channels=channels
    )


def _features(
    model: VisionModel, images: ImageSet, run: config.Run, processes: Processes, show: bool
) -> tuple[nn.Linear, tuple[Tensor, Tensor], Tensor]:
    """The head of the network, what it is given of each image, float32 [N, D], with the labels, and which images.

    Raises DataError where that takes more than data.memory_limit_gb.
    """
    loader = evaluation_loader(images, model, run, processes)
    head = probing.head_of(model, next(iter(loader)).images.to(processes.device))
    gigabytes = 4 * len(images) * head.in_features / 1e9
    if gigabytes > run.data.memory_limit_gb:
        raise DataError(
            f"Features of {len(images):,} images, {head.in_features} each, take {gigabytes:.3g} GB, and "
            f"data.memory_limit_gb is {run.data.memory_limit_gb:g}: allow more, or probe on fewer images."
        )
    pace, labels, indices = Pace(len(images), "images", show), [], []
    with probing.features_of(head) as caught:
        for batch, _ in answers(model, loader, processes.device):
            if caught[-1].ndim != 2:
                raise ModelError(f"{model.name}: its classifier takes {list(caught[-1].shape)}, expected [N, D].")
            labels.append(batch.target)
            indices.append(torch.as_tensor(batch.indices))
            pace.at(sum(map(len, labels)))
    return head, (torch.cat(caught), torch.cat(labels).to(processes.device)), torch.cat(indices)


def _choose(images: ImageSet, known: tuple[Tensor, Tensor], indices: Tensor) -> tuple[float, dict[float, float]]:
    """The penalty, chosen on images held out of every class; those that cannot be read are on neither side."""
    sides = []
    for part in split_by_fraction(images, HELD_OUT, seed=0):
        assert part.positions is not None
        where = torch.isin(indices, part.positions).to(known[1].device)
        sides.append((known[0][where], known[1][where]))
    return probing.choose(sides[0], sides[1], len(images.classes))
