"""The optimizer, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from counterpoise import config

ONE_CYCLE_START = 1 / 25
"""First learning rate of one_cycle as a share of its peak (Smith and Topin 2018; the default of torch's OneCycleLR)."""


def build_optimizer(modules: Iterable[nn.Module], options: config.Optimizer) -> torch.optim.Optimizer:
    """SGD or AdamW over all trainable parameters; one- and zero-dimensional ones without decay unless decay_norms."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if options.decay_norms or p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if not options.decay_norms and p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if options.name == "adamw":
        return torch.optim.AdamW(groups, lr=options.learning_rate, betas=options.betas)
    return torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum, nesterov=options.nesterov)


def learning_rate(
    step: int, steps_per_epoch: int, epochs: int, peak: float, schedule: config.LearningRateSchedule
) -> float:
    """Learning rate of `step`, counted from 0.

    multistep: peak * gamma^(milestones passed). cosine: half a cosine from the peak to final * peak. one_cycle: half a
    cosine from peak / 25 up over the part `rise`, and half a cosine down to final * peak. poly: down to final * peak as
    (1 - share done)^power (Chen et al., arXiv 1606.00915). All but one_cycle start with `warmup_epochs` of linear rise.
    """
    total = steps_per_epoch * epochs
    warmup = schedule.warmup_epochs * steps_per_epoch
    if schedule.name == "one_cycle":
        top = max(schedule.rise * total - 1, 1)
        if step <= top:
            return peak * _cosine(ONE_CYCLE_START, 1.0, step / top)
        return peak * _cosine(1.0, schedule.final, (step - top) / max(total - 1 - top, 1))
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if schedule.name == "cosine":
        return peak * _cosine(1.0, schedule.final, (step - warmup) / max(total - warmup, 1))
    if schedule.name == "poly":
        left = 1 - (step - warmup) / max(total - warmup, 1)
        fallen: float = left**schedule.power
        return peak * (schedule.final + (1 - schedule.final) * fallen)
    if schedule.name == "multistep":
        return peak * schedule.gamma ** sum(step >= round(m * steps_per_epoch) for m in schedule.milestones)
    return peak


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
