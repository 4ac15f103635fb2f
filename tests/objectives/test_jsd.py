"""Generalized Jensen-Shannon divergence against numpy, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.forward_kl import ForwardKL
from counterpoise.objectives.jsd import JensenShannon
from counterpoise.objectives.reverse_kl import ReverseKL


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, shape))


@given(st.integers(0, 2**31), st.floats(0.5, 8), st.floats(0, 1))
@settings(max_examples=30)
def test_value_is_the_papers_formula(seed: int, tau: float, beta: float) -> None:
    student, teacher = draw(seed, 5, 7), draw(seed + 1, 5, 7)
    p, q = softmax(teacher.numpy() / tau, 1), softmax(student.numpy() / tau, 1)
    mixture = beta * p + (1 - beta) * q
    expected = beta * rel_entr(p, mixture).sum(1) + (1 - beta) * rel_entr(q, mixture).sum(1)
    values = JensenShannon(beta, tau, reduction="none")(student, teacher)
    np.testing.assert_allclose(values.numpy(), tau**2 * expected, rtol=1e-8, atol=1e-10)


def test_in_the_middle_it_is_the_divergence_of_jensen_and_shannon() -> None:
    student, teacher = draw(0, 5, 7), draw(1, 5, 7)
    values = JensenShannon(reduction="none")(student, teacher)
    np.testing.assert_allclose(values, jensenshannon(softmax(teacher, 1), softmax(student, 1), axis=1) ** 2)
    torch.testing.assert_close(values, JensenShannon(reduction="none")(teacher, student))


def test_at_both_ends_it_vanishes_and_its_slope_is_forward_and_reverse_kl() -> None:
    student, teacher = draw(0, 5, 7), draw(1, 5, 7)
    for end in (0.0, 1.0):
        logits = student.clone().requires_grad_()
        loss = JensenShannon(end, 2.0)(logits, teacher)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert abs(loss.item()) < 1e-12
        assert gradient.abs().max() < 1e-12
    near = 1e-6
    for beta, share, limit in ((near, near, ForwardKL(2.0)), (1 - near, near, ReverseKL(2.0))):
        slope = JensenShannon(beta, 2.0)(student, teacher) / share
        torch.testing.assert_close(slope, limit(student, teacher), rtol=1e-3, atol=0)


@given(st.floats(0, 1), st.sampled_from([1.0, 100.0, 1e4]))
@settings(max_examples=20)
def test_it_is_never_above_log_2(beta: float, scale: float) -> None:
    student, teacher = scale * draw(0, 5, 7).float(), scale * draw(1, 5, 7).float()
    assert JensenShannon(beta, reduction="none")(student, teacher).max() <= np.log(2) + 1e-5


def test_gradient_is_the_loss_derivative() -> None:
    student, teacher = draw(0, 3, 5).requires_grad_(), draw(1, 3, 5)
    assert torch.autograd.gradcheck(lambda s: JensenShannon(0.3, 2.0)(s, teacher), (student,))


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_beta_is_a_share(beta: float) -> None:
    with pytest.raises(ObjectiveError, match="beta must be in"):
        JensenShannon(beta)
