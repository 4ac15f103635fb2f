"""Skewed KL against numpy, its bound, and the plain KL it comes from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.forward_kl import ForwardKL
from counterpoise.objectives.reverse_kl import ReverseKL
from counterpoise.objectives.skewed_kl import SkewedForwardKL, SkewedReverseKL

KINDS = [SkewedForwardKL, SkewedReverseKL]


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, shape))


@given(st.integers(0, 2**31), st.floats(0.5, 8), st.floats(0, 0.99))
@settings(max_examples=30)
def test_value_is_the_papers_formula(seed: int, tau: float, skew: float) -> None:
    student, teacher = draw(seed, 5, 7), draw(seed + 1, 5, 7)
    p, q = softmax(teacher.numpy() / tau, 1), softmax(student.numpy() / tau, 1)
    forward = SkewedForwardKL(skew, tau, reduction="none")(student, teacher)
    reverse = SkewedReverseKL(skew, tau, reduction="none")(student, teacher)
    expected = rel_entr(p, skew * p + (1 - skew) * q).sum(1), rel_entr(q, (1 - skew) * p + skew * q).sum(1)
    np.testing.assert_allclose(forward.numpy(), tau**2 * expected[0], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(reverse.numpy(), tau**2 * expected[1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("kind", "plain"), [(SkewedForwardKL, ForwardKL), (SkewedReverseKL, ReverseKL)])
def test_without_skew_it_is_plain_kl_and_tends_to_it(kind: type[SkewedForwardKL], plain: type[ForwardKL]) -> None:
    student, teacher = draw(0, 5, 7), draw(1, 5, 7)
    limit = plain(2.0)(student, teacher)
    torch.testing.assert_close(kind(0.0, 2.0)(student, teacher), limit)
    torch.testing.assert_close(kind(1e-9, 2.0)(student, teacher), limit, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_never_above_minus_log_of_the_skew(kind: type[SkewedForwardKL]) -> None:
    student, teacher = 1e4 * draw(0, 50, 7).float(), 1e4 * draw(1, 50, 7).float()
    values = kind(0.1, reduction="none")(student, teacher)
    assert values.max().item() == pytest.approx(-np.log(0.1), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skew", [0.0, 0.1, 0.9])
def test_gradient_is_the_loss_derivative(kind: type[SkewedForwardKL], skew: float) -> None:
    student, teacher = draw(0, 3, 5).requires_grad_(), draw(1, 3, 5)
    assert torch.autograd.gradcheck(lambda s: kind(skew, 2.0)(s, teacher), (student,))


@pytest.mark.parametrize("skew", [-0.1, 1.0])
def test_skew_leaves_some_of_the_other_side(skew: float) -> None:
    with pytest.raises(ObjectiveError, match="skew must be in"):
        SkewedForwardKL(skew)
