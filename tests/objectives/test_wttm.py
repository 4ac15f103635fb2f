"""Weighted transformed teacher matching against the paper's formula."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from counterpoise.objectives.forward_kl import ForwardKL
from counterpoise.objectives.ttm import TransformedTeacherMatching
from counterpoise.objectives.wttm import WeightedTransformedTeacherMatching


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, shape))


@given(st.integers(0, 2**31), st.floats(0.05, 2))
@settings(max_examples=30)
def test_value_is_the_papers_formula(seed: int, gamma: float) -> None:
    student, teacher = draw(seed, 5, 7), draw(seed + 1, 5, 7)
    powers = softmax(teacher.numpy(), 1) ** gamma
    power_sum = powers.sum(1)
    kl = rel_entr(powers / power_sum[:, None], softmax(student.numpy(), 1)).sum(1)
    values = WeightedTransformedTeacherMatching(gamma, reduction="none")(student, teacher)
    np.testing.assert_allclose(values.numpy(), power_sum * kl, rtol=1e-8, atol=1e-10)


def test_at_gamma_1_it_is_forward_kl() -> None:
    student, teacher = draw(0, 5, 7), draw(1, 5, 7)
    loss = WeightedTransformedTeacherMatching(1.0)(student, teacher)
    torch.testing.assert_close(loss, ForwardKL(1.0)(student, teacher))


def test_samples_weigh_from_1_where_the_teacher_is_sure_to_a_power_of_the_classes_where_it_knows_nothing() -> None:
    teacher = torch.zeros(2, 16)
    teacher[0, 3] = 1e4
    student = draw(0, 2, 16).float()
    ratio = [
        kind(0.5, reduction="none")(student, teacher)
        for kind in (WeightedTransformedTeacherMatching, TransformedTeacherMatching)
    ]
    torch.testing.assert_close(ratio[0] / ratio[1], torch.tensor([1.0, 16**0.5]))
