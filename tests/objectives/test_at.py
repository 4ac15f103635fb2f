"""Attention transfer against numpy in float64, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.at import AttentionTransfer
from counterpoise.objectives.base import means
from counterpoise.outputs import Outputs

NAMES = ("a", "b")


def features(channels: int, edges: tuple[int, ...], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((4, channels * (k + 1), edge, edge) for k, edge in enumerate(edges))
    maps = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return dict(zip(NAMES, maps, strict=True))


def loss(student: dict[str, Tensor], teacher: dict[str, Tensor], power: float = 2.0) -> Tensor:
    logits = torch.zeros(4, 10)
    return means(
        AttentionTransfer(NAMES, NAMES, power).terms(Outputs(logits, student), Outputs(logits, teacher), None)
    )[""]


STUDENT = features(3, (6, 4), 0)
TEACHER = features(5, (6, 2), 1)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.5])
def test_value_is_that_of_the_formula(power: float) -> None:
    expected = 0.0
    for name in NAMES:
        s, t = STUDENT[name].numpy(), TEACHER[name].numpy()
        if name == "b":  # 4x4 beside 2x2
            s = s.reshape(4, -1, 2, 2, 2, 2).mean((3, 5))
        maps = [(np.abs(x) ** power).sum(1).reshape(4, -1) for x in (s, t)]
        unit = [m / np.sqrt((m**2).sum(1, keepdims=True)) for m in maps]
        expected += ((unit[0] - unit[1]) ** 2).mean()
    assert loss(STUDENT, TEACHER, power).item() == pytest.approx(expected, rel=1e-12)


def test_only_where_a_map_is_active_counts() -> None:
    changed = {
        name: (-7.0 * value).flip(1).repeat(1, 2, 1, 1) for name, value in STUDENT.items()
    }  # scale, sign, order and number of channels
    torch.testing.assert_close(loss(changed, TEACHER), loss(STUDENT, TEACHER))
    assert loss(changed, STUDENT).item() == pytest.approx(0.0, abs=1e-30)


def test_maps_at_the_end_of_the_range_are_finite() -> None:
    for scale in (0.0, 1e-38, 1e30):
        student = {name: (scale * value).float().requires_grad_() for name, value in STUDENT.items()}
        teacher = {name: value.float() for name, value in TEACHER.items()}
        value = loss(student, teacher)
        value.backward()
        assert value.isfinite()
        if scale == 1e30:
            torch.testing.assert_close(value.double(), loss(STUDENT, TEACHER), rtol=1e-5, atol=0)
        for feature in student.values():
            assert feature.grad is not None
            assert feature.grad.isfinite().all()


def test_a_power_below_one_is_refused() -> None:
    with pytest.raises(ObjectiveError, match="power must be at least 1"):
        AttentionTransfer(power=0.5)
