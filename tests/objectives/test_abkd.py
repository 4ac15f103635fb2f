"""Alpha-beta divergence against numpy, its limits on both axes, and its accuracy close to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.abkd import AlphaBetaDivergence
from counterpoise.objectives.forward_kl import ForwardKL
from counterpoise.objectives.reverse_kl import ReverseKL


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, shape))


@given(st.integers(0, 2**31), st.floats(0.5, 8), st.floats(0.05, 2), st.floats(0.05, 2))
@settings(max_examples=40)
def test_value_is_the_papers_formula(seed: int, tau: float, alpha: float, beta: float) -> None:
    student, teacher = draw(seed, 5, 7), draw(seed + 1, 5, 7)
    p, q = softmax(teacher.numpy() / tau, 1), softmax(student.numpy() / tau, 1)
    both = alpha + beta
    terms = p**alpha * q**beta - alpha / both * p**both - beta / both * q**both
    values = AlphaBetaDivergence(alpha, beta, tau, reduction="none")(student, teacher)
    np.testing.assert_allclose(values.numpy(), tau**2 * -terms.sum(1) / (alpha * beta), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("alpha", "beta", "plain"), [(1.0, 0.0, ForwardKL), (0.0, 1.0, ReverseKL)])
@pytest.mark.parametrize("near", [0.0, 1e-300, 1e-12, 1e-7])
def test_it_is_forward_kl_at_1_0_and_reverse_kl_at_0_1(
    alpha: float, beta: float, plain: type[ForwardKL], near: float
) -> None:
    student, teacher = draw(0, 5, 7).requires_grad_(), draw(1, 5, 7)
    loss = AlphaBetaDivergence(max(alpha, near), max(beta, near), 2.0)(student, teacher)
    limit = plain(2.0)(student, teacher)
    torch.testing.assert_close(loss, limit, rtol=1e-5, atol=0)
    gradients = [torch.autograd.grad(value, student)[0] for value in (loss, limit)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("near", [1e-50, 1e-8, 1e-5, 3e-4, 4e-4, 1e-2])
def test_close_to_an_axis_float32_still_sees_the_divergence(near: float) -> None:
    student, teacher = draw(0, 50, 7), draw(1, 50, 7)
    for point in ((near, 0.9), (0.9, near)):
        exact = AlphaBetaDivergence(*point, 2.0)(student, teacher)
        single = AlphaBetaDivergence(*point, 2.0)(student.float(), teacher.float())
        assert single.item() == pytest.approx(exact.item(), rel=3e-3)


@given(st.floats(0, 2), st.floats(0, 2))
@example(0.0, 1.2e-7)  # both close to 0, where a difference of powers is rounding alone
@settings(max_examples=30)
def test_it_is_never_below_0_and_swapping_sides_swaps_alpha_and_beta(alpha: float, beta: float) -> None:
    alpha += 0.01
    student, teacher = draw(0, 5, 7), draw(1, 5, 7)
    values = AlphaBetaDivergence(alpha, beta, reduction="none")(student, teacher)
    assert values.min() > 0
    torch.testing.assert_close(AlphaBetaDivergence(beta, alpha, reduction="none")(teacher, student), values)
    same = AlphaBetaDivergence(alpha, beta)(teacher, teacher)
    assert abs(same.item()) < 1e-12


@pytest.mark.parametrize("point", [(0.8, 0.3), (0.0, 0.7), (0.7, 0.0)])
def test_gradient_is_the_loss_derivative(point: tuple[float, float]) -> None:
    student, teacher = draw(0, 3, 5).requires_grad_(), draw(1, 3, 5)
    assert torch.autograd.gradcheck(lambda s: AlphaBetaDivergence(*point, 2.0)(s, teacher), (student,))


@pytest.mark.parametrize("point", [(-0.1, 1.0), (1.0, -0.1), (0.0, 0.0), (float("nan"), 1.0)])
def test_points_where_it_is_unbounded_are_refused(point: tuple[float, float]) -> None:
    with pytest.raises(ObjectiveError, match="alpha and beta must be at least 0"):
        AlphaBetaDivergence(*point)
