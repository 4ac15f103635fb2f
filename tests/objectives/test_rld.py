"""Refined logits: dkd where the teacher is right, and what is left of its word where it errs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import means
from counterpoise.objectives.dkd import DecoupledDistillation
from counterpoise.objectives.rld import RefinedLogits
from counterpoise.outputs import Outputs

RANDOM = np.random.default_rng(0)
STUDENT, TEACHER = (torch.from_numpy(RANDOM.normal(0, 3, (6, 5))) for _ in range(2))


def value_and_gradient(objective: DecoupledDistillation, target: Tensor) -> tuple[Tensor, Tensor]:
    student = STUDENT.clone().requires_grad_()
    loss = objective(student, TEACHER, target)
    return loss.detach(), torch.autograd.grad(loss, student)[0]


@given(st.integers(0, 2**31), st.floats(0.5, 20), st.floats(0, 10), st.floats(0, 10))
@settings(max_examples=30)
def test_value_is_the_papers_formula(seed: int, tau: float, alpha: float, beta: float) -> None:
    random = np.random.default_rng(seed)
    student, teacher, target = random.normal(0, 3, (4, 7)), random.normal(0, 3, (4, 7)), random.integers(0, 7, 4)
    expected = []
    for s, t, label in zip(student, teacher, target, strict=True):
        p, q = softmax(t / tau), softmax(s / tau)
        sure, of_label = p.max(), q[label]
        pair = sure * np.log(sure / of_label) + (1 - sure) * np.log((1 - sure) / (1 - of_label))
        below = t < t[label]
        p, q = (softmax(logits[below] / tau) if below.any() else np.ones(1) for logits in (t, s))
        expected.append(tau**2 * (alpha * pair + beta * (p * np.log(p / q)).sum()))
    values = RefinedLogits(alpha, beta, tau, reduction="none")(*map(torch.from_numpy, (student, teacher, target)))
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("tau", [0.5, 4.0])
def test_where_the_teacher_is_right_it_is_dkd(tau: float) -> None:
    right = TEACHER.argmax(1)
    found = value_and_gradient(RefinedLogits(0.7, 3.0, tau), right)
    torch.testing.assert_close(found, value_and_gradient(DecoupledDistillation(0.7, 3.0, tau), right), rtol=0, atol=0)


def test_classes_that_the_teacher_ranks_above_the_label_teach_nothing() -> None:
    ranking = TEACHER.argsort(1, descending=True)
    _, gradient = value_and_gradient(RefinedLogits(alpha=0.0), ranking[:, 2])
    by_rank = gradient.gather(1, ranking)
    assert (by_rank[:, :3] == 0).all()
    assert (by_rank[:, 3:] != 0).all()


def test_where_the_label_is_last_only_the_pair_is_left() -> None:
    parts = means(RefinedLogits().terms(Outputs(STUDENT), Outputs(TEACHER), TEACHER.argmin(1)))
    assert parts["others"] == 0
    assert parts["target"] > 0


def test_a_class_that_ties_with_the_label_is_left_out_like_one_above_it() -> None:
    teacher = torch.tensor([[2.0, 2.0, 1.0, 0.0]])
    student = torch.randn(1, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    RefinedLogits(alpha=0.0)(student, teacher, torch.tensor([0])).backward()
    assert student.grad is not None
    assert (student.grad[0, :2] == 0).all()
    assert (student.grad[0, 2:] != 0).all()


def test_a_student_that_is_as_sure_of_the_label_as_its_teacher_of_its_class_has_arrived() -> None:
    teacher, target = torch.tensor([[3.0, 1.0, 0.0, -1.0]]).double(), torch.tensor([1])
    student = teacher[:, [1, 0, 2, 3]]  # the two classes swapped: as sure, of the label, and the rest in its place
    torch.testing.assert_close(RefinedLogits()(student, teacher, target), torch.zeros(()).double())


def test_gradient_is_the_loss_derivative() -> None:
    student, target = STUDENT.clone().requires_grad_(), torch.tensor([0, 4, 2, 2, 1, 3])
    assert torch.autograd.gradcheck(lambda s: RefinedLogits(0.7, 1.3, 2.0)(s, TEACHER, target), (student,))


def test_it_warms_up_as_dkd_does_and_names_itself() -> None:
    objective, target = RefinedLogits(), TEACHER.argmin(1)
    full = objective(STUDENT, TEACHER, target)
    objective.set_progress(10 / 240)
    torch.testing.assert_close(objective(STUDENT, TEACHER, target), full / 2)
    with pytest.raises(ObjectiveError, match="rld needs a target"):
        objective(STUDENT, TEACHER, None)
