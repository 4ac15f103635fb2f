"""Generalized KL against the paper's double sum, and as what both KLs tend to at high temperature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import means
from counterpoise.objectives.forward_kl import ForwardKL
from counterpoise.objectives.gkl import GeneralizedKL
from counterpoise.objectives.reverse_kl import ReverseKL
from counterpoise.outputs import Outputs

STUDENT, TEACHER = (torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (6, 5))) for seed in range(2))
CONTROL = GeneralizedKL(power=0.0, soft_weight=0.0)


@given(st.integers(0, 2**31), st.floats(0, 3), st.floats(0.5, 20), st.floats(0, 2))
@settings(max_examples=30)
def test_value_is_the_papers_double_sum_over_pairs_of_classes(seed: int, power: float, tau: float, soft: float) -> None:
    random = np.random.default_rng(seed)
    student, teacher = random.normal(0, 3, (2, 4, 7))
    expected = []
    for s, t in zip(student, teacher, strict=True):
        p, q = softmax(t / tau), softmax(s / tau)
        weights = np.outer(p**power, p**power)
        pairs = (np.subtract.outer(t, t) - np.subtract.outer(s, s)) ** 2
        expected.append(0.25 * (weights * pairs).sum() / weights.sum() + soft * (p * np.log(p / q)).sum())
    values = GeneralizedKL(power, tau, soft, reduction="none")(*map(torch.from_numpy, (student, teacher)))
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", [ForwardKL, ReverseKL])
def test_at_equal_weights_it_is_what_either_kl_tends_to_at_high_temperature(kind: type) -> None:
    found = []
    for objective in (CONTROL, *(kind(temperature=tau) for tau in (10.0, 100.0, 1000.0))):
        student = STUDENT.clone().requires_grad_()
        loss = objective(student, TEACHER)
        found.append((loss.detach(), torch.autograd.grad(loss, student)[0]))
    (limit, slope), *softened = found
    errors = [((value - limit) / limit).abs().item() for value, _ in softened]
    slopes = [((gradient - slope).norm() / slope.norm()).item() for _, gradient in softened]
    for nearer, farther in ((1, 0), (2, 1)):  # ten times the temperature: a tenth of the error
        assert errors[nearer] == pytest.approx(errors[farther] / 10, rel=0.5)
        assert slopes[nearer] == pytest.approx(slopes[farther] / 10, rel=0.5)
    assert errors[-1] < 2e-3
    assert slopes[-1] < 5e-3


def test_equal_weights_are_half_the_plain_variance() -> None:
    expected = (TEACHER - STUDENT).var(1, correction=0).mean() / 2
    torch.testing.assert_close(CONTROL(STUDENT, TEACHER), expected)


def test_a_shift_costs_nothing_and_one_class_has_nothing_to_say() -> None:
    torch.testing.assert_close(CONTROL(TEACHER + 5, TEACHER), torch.zeros(()).double())
    assert GeneralizedKL()(STUDENT[:, :1], TEACHER[:, :1]) == 0


def test_a_class_that_is_left_out_does_not_weigh_at_equal_weights_either() -> None:
    student, teacher = STUDENT.clone(), TEACHER.clone()
    student[:, 1], teacher[:, 3] = -torch.inf, -torch.inf
    kept = [0, 2, 4]
    torch.testing.assert_close(CONTROL(student, teacher), CONTROL(STUDENT[:, kept], TEACHER[:, kept]))


def test_gradient_is_the_loss_derivative_and_both_parts_are_told_apart() -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: GeneralizedKL(0.7, 2.0, 0.5)(s, TEACHER), (student,))
    assert set(means(GeneralizedKL().terms(Outputs(STUDENT), Outputs(TEACHER), None))) == {"difference", "soft"}


@pytest.mark.parametrize("power", [-1.0, float("inf")])
def test_a_power_that_means_nothing_is_refused(power: float) -> None:
    with pytest.raises(ObjectiveError, match="power must be at least 0 and finite"):
        GeneralizedKL(power)
