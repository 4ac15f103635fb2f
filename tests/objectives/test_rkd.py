"""Relational distillation against numpy in float64, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import means
from counterpoise.objectives.rkd import RelationalDistillation
from counterpoise.outputs import Outputs

STUDENT = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TEACHER = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def parts(student: Tensor, teacher: Tensor, **arguments: float) -> dict[str, Tensor]:
    logits = torch.zeros(len(student), 10)
    objective = RelationalDistillation(**arguments)
    return means(objective.terms(Outputs(logits, {"@-1": student}), Outputs(logits, {"@-1": teacher}), None))


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) <= 1 else abs(x) - 0.5


def test_value_is_that_of_the_formula() -> None:
    def relations(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = len(x)
        distance = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        mu = distance.sum() / (count * (count - 1))
        angle = np.zeros((count,) * 3)
        for i, j, k in np.ndindex(count, count, count):
            if i != j and k != j:
                first, second = x[i] - x[j], x[k] - x[j]
                angle[i, j, k] = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        return distance / mu, angle

    (d_s, a_s), (d_t, a_t) = relations(STUDENT.numpy()), relations(TEACHER.numpy())
    found = parts(STUDENT, TEACHER, distance_weight=2.0, angle_weight=3.0)
    assert found["distance"].item() == pytest.approx(2 * np.vectorize(huber)(d_s - d_t).mean(), rel=1e-12)
    assert found["angle"].item() == pytest.approx(3 * np.vectorize(huber)(a_s - a_t).mean(), rel=1e-12)


def test_maps_are_averaged_over_positions() -> None:
    maps = STUDENT[:, :, None, None] + torch.tensor([[1.0, -1.0], [2.0, -2.0]], dtype=torch.float64)
    for name, value in parts(maps, TEACHER).items():
        torch.testing.assert_close(value, parts(STUDENT, TEACHER)[name])


def test_only_relations_count() -> None:
    rotation = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64)).Q
    moved = 0.3 * TEACHER @ rotation + 5.0
    for name, value in parts(STUDENT, moved).items():
        torch.testing.assert_close(value, parts(STUDENT, TEACHER)[name])
    assert sum(parts(moved, TEACHER).values()).item() == pytest.approx(0.0, abs=1e-12)


def test_equal_embeddings_have_a_finite_gradient() -> None:
    student = torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]], requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 5.0]])
    sum(parts(student, teacher).values()).backward()
    assert student.grad is not None
    assert 0 < student.grad.abs().max() < 1e3


def test_one_sample_has_no_relations() -> None:
    assert all(value == 0 for value in parts(STUDENT[:1], TEACHER[:1]).values())


def test_weights_of_samples_are_refused() -> None:
    outputs = Outputs(torch.zeros(5, 10), {"@-1": STUDENT})
    with pytest.raises(ObjectiveError, match="takes no weights of samples"):
        means(RelationalDistillation().terms(outputs, outputs, None, torch.ones(5)))
