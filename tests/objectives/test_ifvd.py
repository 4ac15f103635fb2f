"""Intra-class feature variation against its formula in numpy, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import means
from counterpoise.objectives.ifvd import IntraClassVariation
from counterpoise.outputs import Outputs

VOID = 255
CLASSES = 4


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(student: Tensor, teacher: Tensor, target: Tensor | None, weight: Tensor | None = None) -> Tensor:
    sides = [Outputs(torch.zeros(len(student), CLASSES), {"@-1": feature}) for feature in (student, teacher)]
    return means(IntraClassVariation().terms(sides[0], sides[1], target, weight))[""]


def nearness(feature: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[positions that count] of one image: [C, H, W] and [H, W]."""
    found = []
    for y, x in np.argwhere((labels != VOID) & (labels >= 0)):
        mean = feature[:, labels == labels[y, x]].mean(1)
        pixel = feature[:, y, x]
        found.append(pixel @ mean / np.linalg.norm(pixel) / np.linalg.norm(mean))
    return np.array(found)


STUDENT, TEACHER = draw(0, 3, 5, 4, 6), draw(1, 3, 2, 4, 6)
TARGET = torch.randint(CLASSES - 1, (3, 4, 6), generator=torch.Generator().manual_seed(2))
TARGET[0, 0] = VOID
TARGET[1, 1:3] = -1


def test_value_is_that_of_the_formula() -> None:
    squares = [
        (nearness(s, labels) - nearness(t, labels)) ** 2
        for s, t, labels in zip(STUDENT.numpy(), TEACHER.numpy(), TARGET.numpy(), strict=True)
    ]
    assert loss(STUDENT, TEACHER, TARGET).item() == pytest.approx(np.concatenate(squares).mean(), rel=1e-10)
    weight = torch.tensor([2.0, 0.0, 1.0])
    expected = (2 * squares[0].sum() + squares[2].sum()) / (2 * len(squares[0]) + len(squares[2]))
    assert loss(STUDENT, TEACHER, TARGET, weight).item() == pytest.approx(expected, rel=1e-10)


def test_labels_at_full_size_are_taken_at_the_features() -> None:
    full = TARGET.repeat_interleave(8, 1).repeat_interleave(8, 2)
    torch.testing.assert_close(loss(STUDENT, TEACHER, full), loss(STUDENT, TEACHER, TARGET))


def test_gradient_is_that_of_the_loss() -> None:
    student = STUDENT[:2, :, :2, :2].clone().requires_grad_()
    teacher, target = TEACHER[:2, :, :2, :2], TARGET[:2, :2, :2]
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher, target), student)


def test_scale_and_turn_of_the_features_are_not_felt() -> None:
    turn = torch.linalg.qr(draw(2, 5, 5)).Q
    turned = 7 * torch.einsum("dc,nchw->ndhw", turn, STUDENT)
    torch.testing.assert_close(loss(turned, TEACHER, TARGET), loss(STUDENT, TEACHER, TARGET))
    assert loss(turned, STUDENT, TARGET).abs() < 1e-20


def test_void_may_hold_anything_but_nan() -> None:
    changed = torch.where((TARGET == VOID).unsqueeze(1), 50 * draw(5, 3, 5, 4, 6), STUDENT)
    torch.testing.assert_close(loss(changed, TEACHER, TARGET), loss(STUDENT, TEACHER, TARGET))


def test_nothing_but_void_is_zero() -> None:
    student = STUDENT.clone().requires_grad_()
    value = loss(student, TEACHER, torch.full_like(TARGET, VOID))
    (gradient,) = torch.autograd.grad(value, student)
    assert value == 0
    assert (gradient == 0).all()


def test_dead_positions_and_the_ends_of_the_range_are_finite() -> None:
    for scale in (0.0, 1e-38, 1e30):
        student = (scale * STUDENT).float()
        student[0, :, :2] = 0.0
        student.requires_grad_()
        value = loss(student, TEACHER.float(), TARGET)
        value.backward()
        assert value.isfinite()
        assert student.grad is not None
        assert student.grad.isfinite().all()


def test_missing_labels_are_named() -> None:
    with pytest.raises(ObjectiveError, match="ifvd needs labels, got none"):
        loss(STUDENT, TEACHER, None)
