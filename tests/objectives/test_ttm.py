"""Transformed teacher matching against the paper's formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.forward_kl import ForwardKL
from counterpoise.objectives.ttm import TransformedTeacherMatching


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, shape))


@given(st.integers(0, 2**31), st.floats(0.05, 2))
@settings(max_examples=30)
def test_value_is_the_papers_formula(seed: int, gamma: float) -> None:
    student, teacher = draw(seed, 5, 7), draw(seed + 1, 5, 7)
    powers = softmax(teacher.numpy(), 1) ** gamma
    expected = rel_entr(powers / powers.sum(1, keepdims=True), softmax(student.numpy(), 1)).sum(1)
    values = TransformedTeacherMatching(gamma, reduction="none")(student, teacher)
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-8, atol=1e-10)


def test_it_is_kd_at_gamma_1_and_leaves_the_student_its_temperature_elsewhere() -> None:
    student, teacher = draw(0, 5, 7), draw(1, 5, 7)
    torch.testing.assert_close(TransformedTeacherMatching(1.0)(student, teacher), ForwardKL(1.0)(student, teacher))
    perfect = (0.1 * teacher).requires_grad_()
    loss = TransformedTeacherMatching(0.1)(perfect, teacher)
    (gradient,) = torch.autograd.grad(loss, perfect)
    assert abs(loss.item()) < 1e-12
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("inf")])
def test_gamma_is_above_0(gamma: float) -> None:
    with pytest.raises(ObjectiveError, match="gamma must be above 0"):
        TransformedTeacherMatching(gamma)
