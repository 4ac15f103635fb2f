"""DIST against Pearson's correlation in numpy, and what it must not feel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from counterpoise.objectives.base import means
from counterpoise.objectives.dist import Dist, correlation
from counterpoise.outputs import Outputs


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, shape))


@given(st.integers(0, 2**31), st.floats(0.5, 8), st.floats(0, 3), st.floats(0, 3))
@settings(max_examples=30)
def test_value_is_the_papers_formula(seed: int, tau: float, inter: float, intra: float) -> None:
    student, teacher = draw(seed, 6, 5), draw(seed + 1, 6, 5)
    q, p = softmax(student.numpy() / tau, 1), softmax(teacher.numpy() / tau, 1)
    rows = np.mean([1 - np.corrcoef(q[i], p[i])[0, 1] for i in range(6)])
    columns = np.mean([1 - np.corrcoef(q[:, c], p[:, c])[0, 1] for c in range(5)])
    loss = Dist(inter, intra, tau, epsilon=0.0)(student, teacher)
    assert loss.item() == pytest.approx(tau**2 * (inter * rows + intra * columns), rel=1e-7, abs=1e-9)


@given(st.integers(0, 2**31), st.floats(0.1, 10), st.floats(-5, 5))
@settings(max_examples=30)
def test_scale_and_shift_of_what_is_correlated_are_not_felt(seed: int, scale: float, shift: float) -> None:
    q, p = draw(seed, 6, 5), draw(seed + 1, 6, 5)
    weight = torch.ones(6, 5, dtype=torch.float64)
    for dim in (0, 1):
        plain = correlation(q, p, weight, dim, epsilon=0.0)
        torch.testing.assert_close(correlation(scale * q + shift, p, weight, dim, epsilon=0.0), plain)
        torch.testing.assert_close(correlation(q, scale * p + shift, weight, dim, epsilon=0.0), plain)
        torch.testing.assert_close(correlation(-scale * q + shift, p, weight, dim, epsilon=0.0), -plain)


def test_epsilon_silences_a_class_that_is_likely_nowhere() -> None:
    student, teacher = draw(0, 6, 5), draw(1, 6, 5)
    for logits in (student, teacher):
        logits[:, 2] -= 20
    heard = Dist(0.0, 5.0, 1.0, epsilon=0.0)(student, teacher)
    silenced = Dist(0.0, 5.0, 1.0)(student, teacher)
    q, p = student.softmax(1).numpy()[:, 2], teacher.softmax(1).numpy()[:, 2]
    assert (silenced - heard).item() == pytest.approx(np.corrcoef(q, p)[0, 1], abs=1e-4)


def test_loss_and_gradient_vanish_where_student_equals_teacher() -> None:
    teacher = draw(0, 6, 5)
    student = teacher.clone().requires_grad_()
    loss = Dist()(student, teacher)
    (gradient,) = torch.autograd.grad(loss, student)
    assert abs(loss.item()) < 1e-4
    assert gradient.abs().max() < 1e-5


def test_gradient_is_the_loss_derivative() -> None:
    student = draw(0, 2, 4, 3).requires_grad_()
    target = torch.tensor([[0, 255, 1], [2, 3, 255]])
    objective = Dist(0.7, 1.3, 2.0, ignore_index=255)
    assert torch.autograd.gradcheck(lambda s: objective(s, draw(1, 2, 4, 3), target), (student,))


def test_ignored_positions_are_as_if_they_were_not_there() -> None:
    student, teacher = draw(0, 8, 5), draw(1, 8, 5)
    target = torch.tensor([0, 255, 2, 3, 255, 4, 1, 0])
    kept = target != 255
    objective = Dist(ignore_index=255)
    student[1] = float("nan")
    torch.testing.assert_close(objective(student, teacher, target), objective(student[kept], teacher[kept]))


def test_a_weight_of_2_is_a_sample_that_comes_twice() -> None:
    student, teacher = draw(0, 4, 5), draw(1, 4, 5)
    twice = [0, 0, 1, 2, 3]
    loss = Dist()(student, teacher, None, torch.tensor([2.0, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(loss, Dist()(student[twice], teacher[twice]))


def test_dense_logits_are_a_batch_of_positions() -> None:
    student, teacher = draw(0, 2, 5, 3, 4), draw(1, 2, 5, 3, 4)
    rows = [tensor.movedim(1, -1).reshape(-1, 5) for tensor in (student, teacher)]
    torch.testing.assert_close(Dist()(student, teacher), Dist()(*rows))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_student_that_knows_nothing_gets_a_finite_gradient(dtype: torch.dtype) -> None:
    student = torch.zeros(2, 100, dtype=dtype, requires_grad=True)
    Dist(temperature=20.0)(student, draw(0, 2, 100).to(dtype)).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() > 0


def test_parts_are_named_and_sum_to_the_loss() -> None:
    student, teacher = draw(0, 4, 5), draw(1, 4, 5)
    parts = means(Dist().terms(Outputs(student), Outputs(teacher), None))
    assert list(parts) == ["inter", "intra"]
    torch.testing.assert_close(sum(parts.values()), Dist()(student, teacher))
