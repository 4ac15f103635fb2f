"""Decoupled knowledge distillation against the paper's formula, and against forward KL, which it takes apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from counterpoise.config import Term
from counterpoise.errors import ConfigError, ObjectiveError
from counterpoise.objectives.base import means
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.dkd import DecoupledDistillation
from counterpoise.objectives.forward_kl import ForwardKL
from counterpoise.outputs import Outputs

RANDOM = np.random.default_rng(0)
STUDENT, TEACHER = (torch.from_numpy(RANDOM.normal(0, 3, (6, 5))) for _ in range(2))
TARGET = torch.tensor([0, 4, 2, 2, 1, 3])


def expected(student: np.ndarray, teacher: np.ndarray, target: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """Unweighted KL of the pair (target, others) and of the others among themselves, one value a row."""
    pair_kl, others_kl = [], []
    for s, t, label in zip(softmax(student / tau, 1), softmax(teacher / tau, 1), target, strict=True):
        pair_kl.append(
            t[label] * np.log(t[label] / s[label]) + (1 - t[label]) * np.log((1 - t[label]) / (1 - s[label]))
        )
        p, q = np.delete(t, label) / (1 - t[label]), np.delete(s, label) / (1 - s[label])
        others_kl.append((p * np.log(p / q)).sum())
    return np.array(pair_kl), np.array(others_kl)


@given(st.integers(0, 2**31), st.floats(0.5, 20), st.floats(0, 10), st.floats(0, 10))
@settings(max_examples=30)
def test_value_is_the_papers_formula(seed: int, tau: float, alpha: float, beta: float) -> None:
    random = np.random.default_rng(seed)
    student, teacher, target = random.normal(0, 3, (4, 7)), random.normal(0, 3, (4, 7)), random.integers(0, 7, 4)
    objective = DecoupledDistillation(alpha, beta, tau, reduction="none")
    values = objective(*map(torch.from_numpy, (student, teacher, target)))
    pair, others = expected(student, teacher, target, tau)
    np.testing.assert_allclose(values.numpy(), tau**2 * (alpha * pair + beta * others), rtol=1e-8, atol=1e-9)


@given(st.integers(0, 2**31), st.floats(0.5, 8))
@settings(max_examples=20)
def test_alpha_1_and_beta_what_the_teacher_leaves_the_others_is_forward_kl(seed: int, tau: float) -> None:
    random = np.random.default_rng(seed)
    student, teacher = (torch.from_numpy(random.normal(0, 3, (1, 6))) for _ in range(2))
    target = torch.tensor([2])
    beta = 1 - (teacher / tau).softmax(1)[0, 2].item()
    gradients = []
    for objective in (DecoupledDistillation(1.0, beta, tau), ForwardKL(tau)):
        student.requires_grad_(True)
        loss = objective(student, teacher, target)
        gradients.append((loss.detach(), *torch.autograd.grad(loss, student)))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_gradient_is_the_loss_derivative() -> None:
    student = STUDENT.clone().requires_grad_()
    objective = DecoupledDistillation(0.7, 1.3, 2.0)
    assert torch.autograd.gradcheck(lambda s: objective(s, TEACHER, TARGET), (student,))


def test_two_classes_leave_nothing_to_say_about_the_others() -> None:
    student, teacher, target = STUDENT[:, :2], TEACHER[:, :2], torch.tensor([0, 1, 0, 1, 0, 1])
    parts = means(DecoupledDistillation().terms(Outputs(student), Outputs(teacher), target))
    assert parts["others"] == 0
    torch.testing.assert_close(parts["target"], ForwardKL()(student, teacher))


def test_samples_without_a_label_are_not_counted() -> None:
    objective = DecoupledDistillation(ignore_index=3)
    student = STUDENT.clone().requires_grad_()
    target = torch.tensor([0, -1, 2, 2, -1, 3])
    loss = objective(student, TEACHER, target)
    counted = [0, 2, 3]
    torch.testing.assert_close(loss, objective(STUDENT[counted], TEACHER[counted], target[counted]))
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient[[1, 4, 5]].abs().max() == 0


def test_of_a_mixed_target_the_largest_probability_is_the_label() -> None:
    labels = torch.tensor([0, 4, 2, 2, 1, -1])
    mixed = 0.6 * F.one_hot(labels.clamp(min=0), 5) + 0.4 * F.one_hot((labels + 1) % 5, 5)
    mixed[5] = 0
    objective = DecoupledDistillation()
    torch.testing.assert_close(objective(STUDENT, TEACHER, mixed), objective(STUDENT, TEACHER, labels))


def test_dense_logits_are_positions() -> None:
    student, teacher = (torch.from_numpy(RANDOM.normal(0, 3, (2, 5, 3, 4))) for _ in range(2))
    target = torch.from_numpy(RANDOM.integers(0, 5, (2, 3, 4)))
    values = DecoupledDistillation(reduction="none")(student, teacher, target)
    rows = [tensor.movedim(1, -1).reshape(-1, 5) for tensor in (student, teacher)]
    flat = DecoupledDistillation(reduction="none")(*rows, target.flatten())
    torch.testing.assert_close(values.flatten(), flat)


def test_the_loss_rises_over_the_first_twelfth_of_a_run() -> None:
    objective = WeightedSum({"dkd": Term()})
    losses = {}
    for progress in (0.0, 10 / 240, 20 / 240, 0.5, 1.0):
        objective.set_progress(progress)
        losses[progress] = objective(Outputs(STUDENT), Outputs(TEACHER), TARGET).total.item()
    full = DecoupledDistillation()(STUDENT, TEACHER, TARGET).item()
    assert list(losses.values()) == pytest.approx([0, full / 2, full, full, full])
    unramped = WeightedSum({"dkd": Term(warmup=0.0)})
    assert unramped(Outputs(STUDENT), Outputs(TEACHER), TARGET).total.item() == pytest.approx(full)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "needs a target"),
        (torch.tensor([0, 1]), "must have shape"),
        (torch.tensor([0, 1, 2, 3, 4, 255]), "label 255.*5 classes"),
        (torch.zeros(6, 4), "logits' shape"),
    ],
)
def test_targets_that_do_not_fit_are_refused(target: torch.Tensor | None, message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        DecoupledDistillation()(STUDENT, TEACHER, target)


def test_warmup_is_a_share_and_not_a_count_of_epochs() -> None:
    with pytest.raises(ConfigError, match="share of the run"):
        WeightedSum({"dkd": Term(warmup=20.0)})
