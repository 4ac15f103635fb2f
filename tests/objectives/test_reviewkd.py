"""ReviewKD against numpy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import means
from counterpoise.objectives.reviewkd import ReviewKD
from counterpoise.outputs import Outputs

NAMES = ("@-2", "@-1")


def outputs(channels: tuple[int, int], edges: tuple[int, int], seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    features: dict[str, Tensor] = {}
    for name, count, edge in zip(NAMES, channels, edges, strict=True):
        features[name] = torch.randn(3, count, edge, edge, generator=generator, dtype=torch.float64)
    return Outputs(torch.zeros(3, 10), features)


def make(student: Outputs, teacher: Outputs, **arguments: Any) -> ReviewKD:
    torch.manual_seed(0)
    objective = ReviewKD(NAMES, NAMES, **arguments)
    objective.prepare(student, teacher, 100)
    return objective


def conv(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Same-size convolution of [N, C, H, W]."""
    pad = weight.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
    return np.einsum("nihwkl,oikl->nohw", windows, weight)


def norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)


def nearest(x: np.ndarray, edge: int) -> np.ndarray:
    rows = np.arange(edge) * x.shape[2] // edge
    return x[:, :, rows][:, :, :, rows]


def pool(x: np.ndarray, edge: int) -> np.ndarray:
    step = x.shape[2] // edge
    return x.reshape(*x.shape[:2], edge, step, edge, step).mean((3, 5))


def expected(objective: ReviewKD, student: Outputs, teacher: Outputs, pooled: bool) -> float:
    state = {name: value.numpy() for name, value in objective.state_dict().items()}
    pairs = [(student.features[name].numpy(), teacher.features[name].numpy()) for name in reversed(NAMES)]
    if pooled:
        pairs.insert(0, (pool(pairs[0][0], 1), pool(pairs[0][1], 1)))
    total = 0.0
    for index, (s, t) in enumerate(pairs):
        block = f"fusion.blocks.{index}"
        x = norm(conv(s, state[f"{block}.enter.0.weight"]))
        if index > 0:
            later = nearest(later, x.shape[2])  # noqa: F821 - of the round before
            both = conv(np.concatenate([x, later], 1), state[f"{block}.attention.weight"])
            gate = 1 / (1 + np.exp(-both - state[f"{block}.attention.bias"][:, None, None]))
            x = gate[:, :1] * x + gate[:, 1:] * later
        later = nearest(x, t.shape[2])
        prediction = norm(conv(later, state[f"{block}.leave.0.weight"]))
        error, mass, weight = ((prediction - t) ** 2).mean(), 1.0, 1.0
        for edge in (4, 2, 1):
            if edge < t.shape[2]:
                weight /= 2
                mass += weight
                error += weight * ((pool(prediction, edge) - pool(t, edge)) ** 2).mean()
        total += error / mass
    return total


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("edges", [((8, 4), (8, 4)), ((8, 4), (16, 8)), ((16, 8), (8, 2))], ids=str)
def test_value_is_that_of_the_formula(edges: tuple[tuple[int, int], tuple[int, int]], pooled: bool) -> None:
    student, teacher = outputs((3, 5), edges[0], 0), outputs((4, 6), edges[1], 1)
    objective = make(student, teacher, pooled=pooled)
    loss = means(objective.terms(student, teacher, None))[""]
    assert loss.item() == pytest.approx(expected(objective, student, teacher, pooled), rel=1e-9)


def test_an_early_stage_of_the_teacher_teaches_all_later_ones_of_the_student() -> None:
    student, teacher = outputs((3, 5), (8, 4), 0), outputs((4, 6), (8, 4), 1)
    objective = make(student, teacher, pooled=False)
    for feature in student.features.values():
        feature.requires_grad_()
    for name, moved in (("@-2", {"@-2", "@-1"}), ("@-1", {"@-1"})):
        gradients = []
        for factor in (1.0, 2.0):  # only this stage of the teacher differs
            changed = Outputs(teacher.logits, {**teacher.features, name: factor * teacher.features[name]})
            loss = means(objective.terms(student, changed, None))[""]
            gradients.append(torch.autograd.grad(loss, list(student.features.values())))
        differ = {key for key, a, b in zip(student.features, *gradients, strict=True) if not torch.allclose(a, b)}
        assert differ == moved


def test_the_loss_rises_over_the_warm_up() -> None:
    student, teacher = outputs((3, 5), (8, 4), 0), outputs((4, 6), (8, 4), 1)
    objective = make(student, teacher, warmup=0.2)
    whole = means(objective.terms(student, teacher, None))[""].item()
    for progress, share in ((0.0, 0.0), (0.05, 0.25), (0.2, 1.0), (1.0, 1.0)):
        objective.set_progress(progress)
        assert means(objective.terms(student, teacher, None))[""].item() == pytest.approx(share * whole)
    at_once = make(student, teacher, warmup=0.0)
    at_once.set_progress(0.0)
    assert means(at_once.terms(student, teacher, None))[""].item() == pytest.approx(whole)


def test_a_warm_up_beyond_the_run_is_refused() -> None:
    with pytest.raises(ObjectiveError, match="share of the run"):
        ReviewKD(warmup=20.0)
