"""How strongly each term pulls at a student as it begins, so that terms can be given weights that pull alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from counterpoise.data.sources.base import Splits
from counterpoise.engine import inputs
from counterpoise.engine.assemble import assemble, resolve_auto
from counterpoise.engine.inputs import RunLike
from counterpoise.engine.parts import Parts
from counterpoise.engine.processes import join
from counterpoise.engine.pulling import part_of
from counterpoise.engine.step import Optimization
from counterpoise.errors import ConfigError
from counterpoise.outputs import Outputs


def gradient_norms(run: RunLike, *, data: Splits | None = None) -> dict[str, float]:
    r"""Euclidean norm of each term's gradient by all trained parameters of the student, at the first step of a run.

    .. math:: \left\| \nabla_\theta \, w_i L_i(\theta_0; B_1) \right\|_2

    with theta_0 the student's first weights, B_1 the first batch and w_i the weight that the run gives the term. Two
    terms whose norms are alike move the student alike at that step, which their weights alone do not say: a divergence
    times temperature squared, a sum over maps and a cross-entropy are of different scales. All norms are of one pass of
    the student, with batch norm as in training; nothing is trained and nothing written.

    Args:
        run: a run file's path, its values, or a resolved `Run`; `objective` holds the terms to measure.
        data: `Splits(train, val)` instead of `data.path`.

    Returns:
        The norm, by the term's name; 0 where a term has no gradient, as one that rises from zero (`warmup`).

    Raises:
        ConfigError: several processes.
        CounterpoiseError: whatever is wrong with the run, the data or the models, as in `distill`.
    """
    resolved = inputs.resolve(run)
    with join(resolved.train.device) as processes:
        if processes.world > 1:
            raise ConfigError("gradient_norms works in one process: start it without torchrun.")
        resolved = resolve_auto(resolved, processes.device)
        parts = assemble(resolved, processes, data=data)
        try:
            optimization = Optimization(parts.run, parts, processes)
            optimization.begin(0)
            return _norms(parts, optimization.precision)
        finally:
            parts.train.close()


def _norms(parts: Parts, precision: torch.dtype) -> dict[str, float]:
    parts.student.train()
    parts.objective.train()
    images, teacher, target = _first(parts)
    device = images.device.type
    with torch.autocast(device, precision, enabled=precision != torch.float32):
        wanted = parts.objective.student_features
        student = parts.student(images, wanted) if wanted else Outputs(parts.student(images))
    trained = [weights for weights in parts.student.parameters() if weights.requires_grad]
    found = {}
    for name in parts.objective.terms:
        total = part_of(parts.objective, [name])(student, teacher, target)[0]
        gradients = torch.autograd.grad(total, trained, retain_graph=True, allow_unused=True)
        squares = [float(one.double().square().sum()) for one in gradients if one is not None]
        found[name] = math.sqrt(math.fsum(squares))
    return found


def _first(parts: Parts) -> tuple[Tensor, Outputs | None, Tensor]:
    """Images, the teacher's answers and labels of the first batch, on the device of the run."""
    batches = parts.train.epoch(0)
    if parts.stored is not None:
        batch, recorded = next(parts.stored.follow(0, batches))
        batch = batch.on(parts.train.device)
        return batch.images, parts.stored.answer(batch.images, recorded), batch.target
    batch = next(batches).on(parts.train.device)
    answers = None if parts.teacher is None else parts.teacher(batch.images, parts.objective.teacher_features)
    return batch.images, answers, batch.target
