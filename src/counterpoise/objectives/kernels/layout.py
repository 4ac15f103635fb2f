"""Logits as [N, C, P] (samples, classes, positions), wherever they lie, without a copy; and the share of a position."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from counterpoise.objectives.kernels.mixture import Inputs, Mixture


def flat(logits: Tensor) -> Tensor | None:
    """A view [N, C, P] of logits [N, C, ...], or None where their strides allow none."""
    if logits.ndim == 2:
        return logits.unsqueeze(2)
    try:
        return logits.view(*logits.shape[:2], -1)
    except RuntimeError:
        return None


def by_position(mixture: Mixture, inputs: Inputs, like: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """Target and weight as [N, P], where they are looked at, and `shares`; `like` says dtype and device."""
    samples, *rest = inputs.positions
    width = math.prod(rest)
    target, weight = (
        None if one is None else one.unsqueeze(1).expand(-1, width) if one.ndim == 1 else one.reshape(samples, -1)
        for one in (inputs.target if mixture.needs_target else None, inputs.weight)
    )
    return target, weight, shares(mixture, target, weight, samples * width, like)


def shares(mixture: Mixture, target: Tensor | None, weight: Tensor | None, positions: int, like: Tensor) -> Tensor:
    """[2]: what one counted position of weight 1 adds to the mean of a divergence, and of cross-entropy.

    `target`, `weight`: [N, P]; `positions`: N * P; `like` says dtype and device. Stays on the device: no waiting.
    """
    if mixture.counts is not None:
        return mixture.counts.to(like).reciprocal()
    ignored = (mixture.ignore_index, None if mixture.labels is None else mixture.labels.ignore_index)
    if mixture.reduction == "sum":
        return like.new_ones(2)
    if weight is None and (target is None or ignored == (None, None)):
        return like.new_full((2,), 1 / positions)
    counts: dict[int | None, Tensor] = {}
    for ignore in set(ignored):
        if ignore is None or target is None:
            counts[ignore] = like.new_full((), positions) if weight is None else weight.sum(dtype=like.dtype)
        elif weight is None:
            counts[ignore] = (target != ignore).sum().to(like.dtype)
        else:
            counts[ignore] = weight.masked_fill(target == ignore, 0.0).sum(dtype=like.dtype)
    counted = torch.stack([counts[ignore] for ignore in ignored])
    return torch.where(counted == 0, 1.0, counted).reciprocal()
