"""Weights of classes as a run file speaks of them: by their frequency, or by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.sources.base import ImageSet
from counterpoise.data.sources.masks import MaskedSet, class_weights
from counterpoise.errors import ConfigError, DataError, nearest

KEY = "class_weight"


def with_class_weights(terms: Mapping[str, config.Term], images: ImageSet | None) -> dict[str, config.Term]:
    """Terms whose class_weight is numbers, one a class: "frequency" and names are replaced by what `images` give.

    Without images they are left out. Raises ConfigError for names that are no class.
    """
    return {name: _with_weights(name, term, images) for name, term in terms.items()}


def frequency_weights(images: ImageSet) -> Tensor:
    """Weights by which rare classes count more: median frequency balancing.

    weight[c] = median(count) / count[c] over images, a class without any having weight 1; of masks see
    `masks.class_weights`.

    Returns:
        float32 [C].
    """
    if isinstance(images, MaskedSet):
        return class_weights(images)
    counts = torch.tensor(images.per_class() or [], dtype=torch.float64)
    occurs = counts > 0
    if not occurs.any():
        raise DataError(f"None of the {len(images)} images has a class, so that class weights mean nothing.")
    weights = torch.ones(len(counts))
    weights[occurs] = (counts[occurs].quantile(0.5) / counts[occurs]).float()
    return weights


def _with_weights(name: str, term: config.Term, images: ImageSet | None) -> config.Term:
    given = term.arguments.get(KEY)
    if given != "frequency" and not isinstance(given, Mapping):
        return term
    weights: list[float] | None = None
    if images is not None:
        weights = frequency_weights(images).tolist() if given == "frequency" else _by_name(name, given, images.classes)
    return config.Term.model_validate({**term.model_dump(), KEY: weights})


def _by_name(term: str, given: Mapping[Any, Any], classes: tuple[str, ...]) -> list[float]:
    """A number for each class: those that are not named have weight 1."""
    weights = dict.fromkeys(classes, 1.0)
    for key, value in given.items():
        if str(key) not in weights:
            raise ConfigError(f"objective.{term}.{KEY}: '{key}' is no class.{nearest(str(key), classes)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"objective.{term}.{KEY}: the weight of '{key}' must be a number, got {value!r}.")
        weights[str(key)] = float(value)
    return list(weights.values())
