"""Which terms of a run go through one kernel together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.objectives.balance import BalanceDivergence
from counterpoise.objectives.base import Objective
from counterpoise.objectives.cross_entropy import CrossEntropy
from counterpoise.objectives.forward_kl import ForwardKL
from counterpoise.objectives.kernels.compiling import Compiler
from counterpoise.objectives.kernels.function import fused
from counterpoise.objectives.kernels.mixture import Divergence, Inputs, Labels, Mixture
from counterpoise.objectives.logits import widen
from counterpoise.objectives.reverse_kl import ReverseKL
from counterpoise.objectives.targets import Sum, Target


class Fused(NamedTuple):
    """Terms that were computed together."""

    total: Tensor
    parts: dict[str, dict[str, Tensor]]
    """By term, then by part; weights included."""


def fuse(
    terms: Mapping[str, tuple[Objective, float]],
    inputs: Inputs,
    counts: Mapping[str, Mapping[str, Tensor]] | None = None,
    compiler: Compiler | None = None,
) -> Fused | None:
    """Compute at once what a fast form covers of `terms` (objective, weight); None where that is nothing.

    `counts`: what to divide each part by, by term, then by part; None: what is counted here.
    `compiler`: as of `Mixture`.
    """
    mixture, places = gather(terms, inputs.target)
    if not places:
        return None
    if compiler is not None:
        mixture = replace(mixture, compiler=compiler)
    if counts is not None:
        by_kind = {kind: counts[name][part] for name, own in places.items() for kind, part in _parts(own).items()}
        some = next(iter(by_kind.values()))  # in the place of a kind that is not there
        divergence = by_kind.get("forward", by_kind.get("reverse", some))
        mixture = replace(mixture, counts=torch.stack([divergence, by_kind.get("labels", some)]))
    result = fused(mixture, inputs)
    if result is None:
        return None
    total, values = result
    found = dict(zip(_kinds(mixture), values.unbind(), strict=True))
    parts = {name: {part: found[kind] for kind, part in _parts(own).items()} for name, own in places.items()}
    return Fused(total, parts)


def fused_counts(
    terms: Mapping[str, tuple[Objective, float]],
    positions: Sequence[int],
    target: Tensor | None,
    weight: Tensor | None,
    like: Tensor,
) -> dict[str, dict[str, Sum]]:
    """What `fuse` would divide by, of each term that it may cover: sums of ones.

    `positions`: the shape [N, ...] of the target; `like` says dtype and device.
    """
    _, places = gather(terms, target)
    ones = widen(like[:0]).new_ones(tuple(positions)) if places else like
    return {
        name: {
            part: Target(
                target, weight, own.labels.ignore_index if kind == "labels" and own.labels else own.ignore_index
            ).sum(ones, own.reduction)
            for kind, part in _parts(own).items()
        }
        for name, own in places.items()
    }


def _kinds(mixture: Mixture) -> list[str]:
    return [kind for kind in ("forward", "reverse", "labels") if getattr(mixture, kind) is not None]


def _parts(own: Mixture) -> dict[str, str]:
    """The kinds of an objective's mixture, and what it calls these parts."""
    return {kind: kind if own.size > 1 else "" for kind in _kinds(own)}


def gather(terms: Mapping[str, tuple[Objective, float]], target: Tensor | None) -> tuple[Mixture, dict[str, Mixture]]:
    """All terms that can be fused (objective, weight) as one mixture, and by name what each gave."""
    mixture = Mixture()
    places: dict[str, Mixture] = {}
    for name, (objective, factor) in terms.items():
        own = mixture_of(objective, factor)
        # Labels that are probabilities are for the reference; so is a second term of a kind.
        if own is None or (own.labels is not None and target is not None and target.is_floating_point()):
            continue
        merged = _merge(mixture, own) if places else own
        if merged is not None:
            mixture = merged
            places[name] = own
    return mixture, places


def mixture_of(objective: Objective, factor: float = 1.0) -> Mixture | None:
    """`factor` times an objective as a mixture, where it is one. By exact class: a subclass may compute anything."""
    kind = type(objective)
    if isinstance(objective, BalanceDivergence):
        return objective.mixture(factor)
    if isinstance(objective, CrossEntropy) and kind is CrossEntropy:
        by_class = objective.class_weight is not None or objective.class_prior is not None
        if objective.ignore_index is None or by_class:
            return None
        labels = Labels(factor, objective.ignore_index, objective.label_smoothing)
        return Mixture(labels=labels, reduction=objective.reduction)
    if isinstance(objective, ForwardKL | ReverseKL) and kind in (ForwardKL, ReverseKL):
        divergence = Divergence(factor, objective.temperature)
        base = Mixture(ignore_index=objective.ignore_index, reduction=objective.reduction)
        return replace(base, forward=divergence) if kind is ForwardKL else replace(base, reverse=divergence)
    return None


def _merge(one: Mixture, other: Mixture) -> Mixture | None:
    """Both as one, unless they hold a term of one kind or count differently."""
    for kind in ("forward", "reverse", "labels"):
        if getattr(one, kind) is not None and getattr(other, kind) is not None:
            return None
    if one.reduction != other.reduction:
        return None
    if one.needs_teacher and other.needs_teacher and one.ignore_index != other.ignore_index:
        return None
    return Mixture(
        forward=one.forward or other.forward,
        reverse=one.reverse or other.reverse,
        labels=one.labels or other.labels,
        ignore_index=(one if one.needs_teacher else other).ignore_index,
        reduction=one.reduction,
    )
