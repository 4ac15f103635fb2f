"""Pair-wise distillation against its formula in numpy, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import means
from counterpoise.objectives.skd import StructuredDistillation
from counterpoise.outputs import Outputs


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(student: Tensor, teacher: Tensor, patch: int = 2) -> Tensor:
    sides = [Outputs(torch.zeros(len(student), 10), {"@-1": feature}) for feature in (student, teacher)]
    return means(StructuredDistillation(patch=patch).terms(sides[0], sides[1], None))[""]


def cosines(feature: np.ndarray, patch: int) -> np.ndarray:
    """[P, P] from one map [C, H, W]; the last patches may be smaller."""
    _, height, width = feature.shape
    patches = [
        feature[:, y : y + patch, x : x + patch].max((1, 2))
        for y in range(0, height, patch)
        for x in range(0, width, patch)
    ]
    vectors = np.stack(patches) / np.linalg.norm(patches, axis=1, keepdims=True)
    return vectors @ vectors.T


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_value_is_that_of_the_formula(patch: int) -> None:
    student, teacher = draw(0, 3, 4, 5, 6), draw(1, 3, 7, 5, 6)
    pairs = zip(student.numpy(), teacher.numpy(), strict=True)
    expected = np.mean([((cosines(s, patch) - cosines(t, patch)) ** 2).mean() for s, t in pairs])
    assert loss(student, teacher, patch).item() == pytest.approx(expected, rel=1e-10)


def test_the_larger_map_is_pooled_first() -> None:
    student, teacher = draw(0, 2, 4, 8, 8), draw(1, 2, 7, 4, 4)
    pooled = student.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
    torch.testing.assert_close(loss(student, teacher), loss(pooled, teacher))


def test_scale_and_turn_of_the_features_are_not_felt() -> None:
    student, teacher = draw(0, 2, 4, 4, 4), draw(1, 2, 4, 4, 4)
    turn = torch.linalg.qr(draw(2, 4, 4)).Q
    turned = 7 * torch.einsum("dc,nchw->ndhw", turn, student)
    torch.testing.assert_close(loss(turned, teacher, 1), loss(student, teacher, 1))
    assert loss(turned, student, 1).abs() < 1e-20


def test_dead_positions_and_the_ends_of_the_range_are_finite() -> None:
    for scale in (0.0, 1e-38, 1e30):
        student = (scale * draw(0, 2, 4, 4, 4)).float()
        student[0, :, :2] = 0.0
        student.requires_grad_()
        value = loss(student, draw(1, 2, 4, 4, 4).float())
        value.backward()
        assert value.isfinite()
        assert student.grad is not None
        assert student.grad.isfinite().all()


def test_a_patch_of_nothing_is_refused() -> None:
    with pytest.raises(ObjectiveError, match="patch must be a whole number above 0, got 0"):
        StructuredDistillation(patch=0)
