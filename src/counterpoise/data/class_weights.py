"""Weights and priors of classes as a run file speaks of them: by what the training data hold, or by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.labels import absences
from counterpoise.data.sources import questions
from counterpoise.data.sources.base import IGNORE, UNLABELED, ImageSet
from counterpoise.errors import ConfigError, CorruptImage, DataError, nearest

WEIGHT, OF_LABELS, PRIOR = "class_weight", "pos_weight", "class_prior"
FREQUENCY, EFFECTIVE = "frequency", "effective"
USUAL_BETA = 0.999


def with_class_weights(terms: Mapping[str, config.Term], images: ImageSet | None) -> dict[str, config.Term]:
    """Terms whose class_weight and class_prior are numbers, one a class: words and names are replaced by what `images`
    give.

    So is the pos_weight of several labels an image. Without images they are left out. Raises ConfigError for names that
    are no class, and words that mean nothing.
    """
    return {name: _with_priors(name, _with_weights(name, term, images), images) for name, term in terms.items()}


def label_weights(images: ImageSet) -> Tensor:
    """Weights by which each label's yes counts as much as all its no: absent / present, of the labels that are known.

    A label that is never there, or always, has weight 1. Of scenes that are asked questions, pixels are counted.

    Returns:
        float32 [C].
    """
    if images.questions is not None:
        there, absent = questions.counts(images)
        return torch.where((there > 0) & (absent > 0), absent / there.clamp(min=1), 1.0).float()
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
    own, around = _some_counts(images)
    occurs = own > 0
    frequency = own[occurs].double() / around[occurs]
    weights = torch.ones(len(own))
    weights[occurs] = (frequency.quantile(0.5) / frequency).float()
    return weights


def effective_weights(images: ImageSet, beta: float = USUAL_BETA) -> Tensor:
    """Weights by which rare classes count more, but less so among those that have many images.

    weight[c] is in proportion to (1 - beta) / (1 - beta^n[c]), where n[c] is how many images are of c: 1 over the
    number of images that still tell something new. From beta 0, all alike, towards 1, the inverse frequency. The mean
    over the classes that occur is 1, as is the weight of one that never does.

    Paper: Cui et al. 2019, "Class-balanced loss based on effective number of samples", arXiv:1901.05555.

    Returns:
        float32 [C].
    """
    own, _ = _some_counts(images)
    occurs = own > 0
    # -expm1 and log keep what 1 - beta^n would round away.
    inverse = -1 / torch.expm1(own[occurs].double() * math.log(beta)) if beta > 0 else torch.ones(int(occurs.sum()))
    weights = torch.ones(len(own))
    weights[occurs] = (inverse / inverse.mean()).float()
    return weights


def class_prior(images: ImageSet) -> Tensor:
    """The share of each class among the labeled images, or among the pixels of masks that are not void: float64 [C].

    A class that never occurs counts as one image, or pixel: with a share of 0 no logit could make up for it.
    """
    own, _ = _some_counts(images)
    return own.clamp(min=1).double() / own.clamp(min=1).sum()


def _some_counts(images: ImageSet) -> tuple[Tensor, Tensor]:
    own, around = class_counts(images)
    if not own.any():
        none = "masks holds" if images.masked else "images has"
        raise DataError(f"None of the {len(images)} {none} a class, so that class weights mean nothing.")
    return own, around


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


def _with_weights(name: str, term: config.Term, images: ImageSet | None) -> config.Term:
    for key, by_frequency in ((WEIGHT, frequency_weights), (OF_LABELS, label_weights)):
        where, given = f"objective.{name}.{key}", term.arguments.get(key)
        if isinstance(given, Mapping):
            weights = None if images is None else _by_name(where, given, images.classes)
        elif given == FREQUENCY:
            weights = None if images is None else by_frequency(images).tolist()
        elif key == WEIGHT and isinstance(given, str) and given.startswith(EFFECTIVE):
            weights = _by_effective_number(where, given, images)
        else:  # for the objective to judge
            continue
        term = config.Term.model_validate({**term.model_dump(), key: weights})
    return term


def _by_effective_number(where: str, given: str, images: ImageSet | None) -> list[float] | None:
    word, colon, number = given.partition(":")
    try:
        beta = float(number) if colon else USUAL_BETA
    except ValueError:
        beta = -1.0
    if word != EFFECTIVE or not 0 <= beta < 1:
        raise ConfigError(
            f"{where}: expected {EFFECTIVE} or {EFFECTIVE}:BETA, a number from 0 to below 1, got '{given}'."
        )
    if images is not None and images.masked:
        raise ConfigError(f"{where}: {given} goes by numbers of images, and masks hold pixels: give {FREQUENCY}.")
    return None if images is None else effective_weights(images, beta).tolist()


def _with_priors(name: str, term: config.Term, images: ImageSet | None) -> config.Term:
    if term.arguments.get(PRIOR) != FREQUENCY:
        return term
    if images is not None and images.multilabel:
        raise ConfigError(f"objective.{name}.{PRIOR}: images that may have several labels have no share of each class.")
    prior = None if images is None else class_prior(images).tolist()
    return config.Term.model_validate({**term.model_dump(), PRIOR: prior})


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
