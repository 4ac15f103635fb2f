"""Plackett-Luce distillation against the likelihood of a ranking, and the cases in which it is cross-entropy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.pld import PlackettLuce

RANDOM = np.random.default_rng(0)
STUDENT, TEACHER = (torch.from_numpy(RANDOM.normal(0, 3, (6, 5))) for _ in range(2))
TARGET = torch.tensor([0, 4, 2, 2, 1, 3])


@given(st.integers(0, 2**31), st.integers(1, 8))
@settings(max_examples=30)
def test_value_is_the_papers_formula(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    student, teacher = random.normal(0, 3, (2, 4, classes))
    target = random.integers(0, classes, 4)
    expected = []
    for s, t, label in zip(student, teacher, target, strict=True):
        ranking = [label, *(c for c in np.argsort(-t) if c != label)]
        choices = [logsumexp(s[ranking[k:]]) - s[ranking[k]] for k in range(classes)]
        expected.append(softmax(t)[ranking] @ choices)
    values = PlackettLuce(reduction="none")(*map(torch.from_numpy, (student, teacher, target)))
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_of_two_classes_it_is_cross_entropy_times_the_teachers_word_for_the_label() -> None:
    student, teacher, target = STUDENT[:, :2], TEACHER[:, :2], TARGET % 2
    share = teacher.softmax(1).gather(1, target[:, None])[:, 0]
    expected = share * F.cross_entropy(student, target, reduction="none")
    torch.testing.assert_close(PlackettLuce(reduction="none")(student, teacher, target), expected)


def test_of_one_class_there_is_nothing_to_learn() -> None:
    student = STUDENT[:, :1].clone().requires_grad_()
    loss = PlackettLuce()(student, TEACHER[:, :1], torch.zeros(6, dtype=torch.int64))
    loss.backward()
    assert student.grad is not None
    assert loss == 0
    torch.testing.assert_close(student.grad, torch.zeros_like(student))


def test_a_teacher_that_is_sure_of_the_label_leaves_cross_entropy() -> None:
    teacher = 1e3 * F.one_hot(TARGET, 5).double()
    torch.testing.assert_close(PlackettLuce()(STUDENT, teacher, TARGET), F.cross_entropy(STUDENT, TARGET))


def test_a_shift_of_either_sides_logits_costs_nothing() -> None:
    expected = PlackettLuce()(STUDENT, TEACHER, TARGET)
    torch.testing.assert_close(PlackettLuce()(STUDENT + 70, TEACHER - 40, TARGET), expected)


def test_it_is_convex_and_its_gradient_is_the_derivative() -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: PlackettLuce()(s, TEACHER, TARGET), (student,))
    other = STUDENT.flip(0)
    middle = PlackettLuce()((STUDENT + other) / 2, TEACHER, TARGET)
    assert middle <= (PlackettLuce()(STUDENT, TEACHER, TARGET) + PlackettLuce()(other, TEACHER, TARGET)) / 2


def test_a_student_learns_the_ranking_of_a_teacher_that_is_right_and_may_not_put_another_label_first() -> None:
    right = TEACHER.argmax(1)
    student = torch.zeros(6, 5, dtype=torch.float64, requires_grad=True)
    for _ in range(100):
        (gradient,) = torch.autograd.grad(PlackettLuce(reduction="sum")(student, TEACHER, right), student)
        student = (student - gradient).detach().requires_grad_()
    assert torch.equal(student.argsort(1, descending=True), TEACHER.argsort(1, descending=True))
    # The label's choice weighs as much as the teacher believes in it: the docstring says so.
    unlikely, student = TEACHER.argmin(1), TEACHER.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(PlackettLuce(reduction="sum")(student, TEACHER, unlikely), student)
    assert (gradient.gather(1, unlikely[:, None]).abs() < 0.05).all()


def test_classes_of_one_mind_are_ranked_in_their_order() -> None:
    values = PlackettLuce()(STUDENT, torch.zeros(6, 5), TARGET * 0)
    left = STUDENT.flip(1).logcumsumexp(1).flip(1)
    torch.testing.assert_close(values, ((left - STUDENT) / 5).sum(1).mean())


def test_it_needs_labels() -> None:
    with pytest.raises(ObjectiveError, match="pld needs a target"):
        PlackettLuce()(STUDENT, TEACHER)
