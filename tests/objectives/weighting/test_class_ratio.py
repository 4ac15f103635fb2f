"""ToDi against the paper's formula, and a value that it must have."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoise import BalanceDivergence
from counterpoise.objectives.weighting.base import Side
from counterpoise.objectives.weighting.class_ratio import ClassRatio

seeds = st.integers(0, 2**31)


def probabilities(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@given(seed=seeds, sharpness=st.floats(0, 5))
@settings(max_examples=30)
def test_value_and_gradient_are_the_papers(seed: int, sharpness: float) -> None:
    s, t = np.random.default_rng(seed).normal(size=(2, 4, 7)) * 2
    p, q = probabilities(t), probabilities(s)
    alpha = 1 / (1 + (q / p) ** sharpness)
    expected = (alpha * p * np.log(p / q) + (1 - alpha) * q * np.log(q / p)).sum(1)
    # d/ds with alpha held: sum_c dL/dq_c q_c (delta_ck - q_k)
    slope = -alpha * p / q + (1 - alpha) * (np.log(q / p) + 1)
    gradient = q * (slope - (slope * q).sum(1, keepdims=True))
    student = torch.from_numpy(s).requires_grad_()
    rule = {"rule": "class_ratio", "rule_arguments": {"sharpness": sharpness}}
    loss = BalanceDivergence(1, 1, 1, 1, reduction="none", **rule)(student, torch.from_numpy(t))
    loss.sum().backward()
    np.testing.assert_allclose(loss.detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), gradient, rtol=1e-8, atol=1e-11)


@given(seed=seeds, temperature=st.floats(0.5, 8))
@settings(max_examples=20)
def test_at_sharpness_one_and_one_temperature_the_value_is_forward_plus_reverse(seed: int, temperature: float) -> None:
    student, teacher = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 3, 6)))
    weighted = BalanceDivergence(1, 1, temperature, temperature, rule="class_ratio")(student, teacher)
    # sigma(log p/q) = p / (p + q), so that the two parts add up to sum (p - q) log p/q.
    torch.testing.assert_close(weighted, BalanceDivergence(1, 1, temperature, temperature)(student, teacher))


def test_forward_counts_where_the_student_gives_too_little() -> None:
    student, teacher = torch.tensor([[0.1, 0.9]]).log(), torch.tensor([[0.9, 0.1]]).log()
    forward, reverse = ClassRatio()(student, teacher, Side(1.0, 1.0), Side(1.0, 1.0))
    torch.testing.assert_close(forward, torch.tensor([[0.9, 0.1]]))
    torch.testing.assert_close(reverse, torch.tensor([[0.1, 0.9]]))
