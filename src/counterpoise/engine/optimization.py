"""The optimizer, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from counterpoise import config
from counterpoise.engine import learning

ONE_CYCLE_START = 1 / 25
"""First learning rate of one_cycle as a share of its peak (Smith and Topin 2018; the default of torch's OneCycleLR)."""


def build_optimizer(
    modules: Iterable[nn.Module], options: config.Optimizer, device: torch.device | None = None
) -> torch.optim.Optimizer:
    """SGD or AdamW over all trainable parameters; see `learning.groups` for which decay, and which learn at which rate.

    On CUDA in one kernel, which reads the learning rate from a tensor: a CUDA graph of it may be used at any rate.
    """
    groups = learning.groups(list(modules), options)
    fused = True if device is not None and device.type == "cuda" else None
    rate = options.learning_rate
    for group in groups:  # a tensor of its own for each: they are set in place
        own = learning.scaled(group, rate)
        group["lr"] = torch.tensor(own, dtype=torch.float32, device=device) if fused else own
    if options.name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=options.betas, fused=fused)
    return torch.optim.SGD(groups, lr=rate, momentum=options.momentum, nesterov=options.nesterov, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all groups this learning rate, times each one's own factor; where it is a tensor, in place."""
    for group in optimizer.param_groups:
        own = learning.scaled(group, rate)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


@contextmanager
def capturable(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Let AdamW be captured in a graph, where that is what is done. Fused, it computes the same either way."""
    capturing = torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    groups = [group for group in optimizer.param_groups if capturing and "capturable" in group]
    for group in groups:
        group["capturable"] = True
    yield
    for group in groups:
        group["capturable"] = False


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
        passed = sum(step >= round(m * steps_per_epoch) for m in schedule.milestone_epochs(epochs))
        return peak * schedule.gamma**passed
    return peak


def never_reached(train: config.Train) -> str | None:
    """What is wrong with milestones that lie beyond the run, or a warm-up of all of it; None where neither is so."""
    schedule, epochs = train.schedule, train.epochs
    if schedule.name != "one_cycle" and schedule.warmup_epochs >= epochs:
        return (
            f"train.schedule.warmup_epochs: {schedule.warmup_epochs:g} epochs of rise are all of the run, which has "
            f"{epochs}, so train.optimizer.learning_rate never comes. Give fewer than {epochs}."
        )
    late = [f"{epoch:g}" for epoch in schedule.milestone_epochs(epochs) if epoch >= epochs]
    if not late:
        return None
    return (
        f"train.schedule.milestones: {', '.join(late)} lie beyond the run, which has "
        f"{epochs} epochs, so the learning rate never falls there. Give shares of the run, such as "
        f"0.625 0.75 0.875, or epochs below {epochs}."
    )


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
