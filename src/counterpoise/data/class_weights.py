"""Weights of classes as a run file speaks of them: by their frequency, or by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.labels import absences
from counterpoise.data.sources.base import IGNORE, UNLABELED, ImageSet
from counterpoise.errors import ConfigError, CorruptImage, DataError, nearest

KEY, OF_LABELS = "class_weight", "pos_weight"


def with_class_weights(terms: Mapping[str, config.Term], images: ImageSet | None) -> dict[str, config.Term]:
    """Terms whose class_weight is numbers, one a class: "frequency" and names are replaced by what `images` give.

    So is the pos_weight of several labels an image. Without images they are left out. Raises ConfigError for names that
    are no class.
    """
    return {
        name: _with_weights(name, _with_weights(name, term, images, OF_LABELS), images) for name, term in terms.items()
    }


def label_weights(images: ImageSet) -> Tensor:
    """Weights by which each label's yes counts as much as all its no: absent / present, of the labels that are known.

    A label that is never there, or always, has weight 1.

    Returns:
        float32 [C].
    """
    if not images.multilabel:
        raise ConfigError("pos_weight: frequency is for images that may have several labels, and these have one.")
    there, absent = (torch.tensor(found) for found in (images.per_class(), absences(images.labels)))
    both = (there > 0) & (absent > 0)
    return torch.where(both, absent / there.clamp(min=1), 1.0).float()


def frequency_weights(images: ImageSet) -> Tensor:
    """Weights by which rare classes count more in cross-entropy: median frequency balancing.

    weight[c] = median(frequency) / frequency[c], where frequency[c] is how many images are of c, or of scenes the share
    of c among the pixels (void left out) of those in which c occurs. The median is over the classes that occur; one
    that never does has weight 1. Of an even number of frequencies the median is the mean of the middle two.

    Paper: Eigen and Fergus 2015, "Predicting depth, surface normals and semantic labels", arXiv:1411.4734.

    Returns:
        float32 [C].
    """
    own, around = class_counts(images)
    occurs = own > 0
    if not occurs.any():
        none = "masks holds" if images.masked else "images has"
        raise DataError(f"None of the {len(images)} {none} a class, so that class weights mean nothing.")
    frequency = own[occurs].double() / around[occurs]
    weights = torch.ones(len(own))
    weights[occurs] = (frequency.quantile(0.5) / frequency).float()
    return weights


def class_counts(images: ImageSet) -> tuple[Tensor, Tensor]:
    """How often each class occurs, and among how many: int64 [C] each.

    Of scenes, pixels of each class, and pixels that are not void in those where it occurs: reads every mask once. One
    that cannot be read tells nothing; it is named later. Else images of each class, and 1.
    """
    if (counted := images.per_class()) is not None:
        own = torch.tensor(counted, dtype=torch.int64)
        return own, torch.ones_like(own)
    classes = len(images.classes)
    own, around = torch.zeros(2, classes, dtype=torch.int64)
    for index in torch.nonzero(images.labels != UNLABELED).flatten().tolist():
        try:
            counts = torch.bincount(images.read_mask(index).flatten(), minlength=IGNORE + 1)[:classes]
        except CorruptImage:
            continue
        own += counts
        around += counts.sum() * (counts > 0)
    return own, around


def _with_weights(name: str, term: config.Term, images: ImageSet | None, key: str = KEY) -> config.Term:
    given = term.arguments.get(key)
    if given != "frequency" and not isinstance(given, Mapping):
        return term
    weights: list[float] | None = None
    if images is not None:
        by_frequency = frequency_weights if key == KEY else label_weights
        named = f"objective.{name}.{key}"
        weights = by_frequency(images).tolist() if given == "frequency" else _by_name(named, given, images.classes)
    return config.Term.model_validate({**term.model_dump(), key: weights})


def _by_name(where: str, given: Mapping[Any, Any], classes: tuple[str, ...]) -> list[float]:
    """A number for each class: those that are not named have weight 1."""
    weights = dict.fromkeys(classes, 1.0)
    for key, value in given.items():
        if str(key) not in weights:
            raise ConfigError(f"{where}: '{key}' is no class.{nearest(str(key), classes)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{where}: the weight of '{key}' must be a number, got {value!r}.")
        weights[str(key)] = float(value)
    return list(weights.values())
