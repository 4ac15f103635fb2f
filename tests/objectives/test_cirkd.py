"""Cross-image relations against numpy in float64; the memories of pixels and regions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import means
from counterpoise.objectives.cirkd import CrossImageRelations
from counterpoise.outputs import Outputs

VOID = 255
CLASSES, CHANNELS = 3, 4


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def side(feature: Tensor) -> Outputs:
    return Outputs(torch.zeros(len(feature), CLASSES), {"@-1": feature})


STUDENT, TEACHER = side(draw(0, 2, 5, 2, 3)), side(draw(1, 2, CHANNELS, 2, 3))
TARGET = torch.tensor([[[0, 0, 2], [2, VOID, 0]], [[2, 2, 2], [-1, 2, 0]]])


def make(**arguments: Any) -> CrossImageRelations:
    torch.manual_seed(0)
    small = {"pixel_memory": 50, "region_memory": 20, "pixel_contrast": 29, "region_contrast": 14}
    objective = CrossImageRelations(**(small | arguments))
    objective.prepare(STUDENT, TEACHER, 9)
    return objective


def unit(x: np.ndarray, axis: int) -> np.ndarray:
    return x / np.linalg.norm(x, axis=axis, keepdims=True)


def kl(student: np.ndarray, teacher: np.ndarray, tau: float) -> np.ndarray:
    log_q, log_p = log_softmax(student / tau, -1), log_softmax(teacher / tau, -1)
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


def expected_across(student: np.ndarray, teacher: np.ndarray, tau: float) -> float:
    s, t = (unit(x.reshape(len(x), x.shape[1], -1), 1) for x in (student, teacher))
    return float(np.mean([kl(s[n].T @ s[m], t[n].T @ t[m], tau).mean() for n in range(len(s)) for m in range(len(s))]))


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_images_are_compared_as_in_the_formula(tau: float) -> None:
    parts = means(make(temperature=tau, mini_batch_weight=3.0, memory=False).terms(STUDENT, TEACHER, None))
    expected = expected_across(STUDENT.features["@-1"].numpy(), TEACHER.features["@-1"].numpy(), tau)
    assert list(parts) == ["mini_batch"]
    assert parts["mini_batch"].item() == pytest.approx(3 * expected, rel=1e-9)


def test_patches_may_be_averaged_before() -> None:
    student, teacher = side(draw(0, 2, 5, 4, 6)), side(draw(1, 2, 4, 4, 6))
    pooled = [
        side(outputs.features["@-1"].unflatten(3, (3, 2)).unflatten(2, (2, 2)).mean((3, 5)))
        for outputs in (student, teacher)
    ]
    found = means(make(memory=False, pool=2).terms(student, teacher, None))["mini_batch"]
    torch.testing.assert_close(found, means(make(memory=False).terms(pooled[0], pooled[1], None))["mini_batch"])


def test_memories_are_compared_with_as_in_the_formula() -> None:
    objective = make(temperature=0.3, pixel_weight=2.0, region_weight=5.0).eval()
    torch.manual_seed(3)
    found = means(objective.terms(STUDENT, TEACHER, TARGET))
    torch.manual_seed(3)
    assert objective.head is not None
    s = unit(objective.head(STUDENT.features["@-1"]).detach().movedim(1, -1).reshape(-1, CHANNELS).numpy(), 1)
    t = unit(TEACHER.features["@-1"].movedim(1, -1).reshape(-1, CHANNELS).numpy(), 1)
    labels = TARGET.flatten().numpy()
    counted = (labels >= 0) & (labels != VOID)
    for name, weight, size, count in (("pixel", 2.0, 50, 29 // 3 + 1), ("region", 5.0, 20, 14 // 3 + 1)):
        memory = getattr(objective, f"{name}s").numpy()
        drawn = memory[:, torch.randperm(size)[:count].numpy()].reshape(-1, CHANNELS)
        expected = weight * kl(s @ drawn.T, t @ drawn.T, 0.3)[counted].mean()
        assert found[name].item() == pytest.approx(expected, rel=1e-9)


def test_memories_are_queues_of_the_teachers_pixels_and_regions() -> None:
    objective = make()
    before = objective.pixels.clone(), objective.regions.clone()
    objective.terms(STUDENT, TEACHER, TARGET)
    pixels = unit(TEACHER.features["@-1"].movedim(1, -1).numpy(), -1)
    labels = TARGET.numpy()
    assert objective.pixels_next.tolist() == [4, 0, 6]
    assert objective.regions_next.tolist() == [2, 0, 2]
    for label, pixel_count, region_count in ((0, 4, 2), (1, 0, 0), (2, 6, 2)):
        kept = objective.pixels[label, :pixel_count].numpy()
        assert {tuple(row.round(9)) for row in kept} == {tuple(row.round(9)) for row in pixels[labels == label]}
        means = [unit(pixels[n][labels[n] == label].mean(0), 0) for n in range(2) if (labels[n] == label).any()]
        if means:
            np.testing.assert_allclose(objective.regions[label, :region_count].numpy(), means, rtol=1e-9)
        assert objective.pixels[label, pixel_count:].equal(before[0][label, pixel_count:])
        assert objective.regions[label, region_count:].equal(before[1][label, region_count:])


def test_a_full_queue_begins_again_and_keeps_the_last() -> None:
    objective = make(pixel_memory=3, region_memory=3)
    for step in range(3):
        objective.terms(STUDENT, side(draw(10 + step, 2, CHANNELS, 2, 3)), TARGET)
    assert objective.pixels_next.tolist() == [12 % 3, 0, 18 % 3]
    assert objective.regions_next.tolist() == [6 % 3, 0, 6 % 3]
    norms = objective.pixels.norm(dim=2)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    last = unit(draw(12, 2, CHANNELS, 2, 3).movedim(1, -1).numpy(), -1)[TARGET.numpy() == 2]
    assert {tuple(row.round(9)) for row in objective.pixels[2].numpy()} <= {tuple(row.round(9)) for row in last}


def test_of_a_large_class_some_pixels_are_kept() -> None:
    objective = make()
    student, teacher = side(draw(0, 2, 5, 8, 8)), side(draw(1, 2, CHANNELS, 8, 8))
    objective.terms(student, teacher, torch.ones(2, 64, 64, dtype=torch.int64))
    assert objective.pixels_next.tolist() == [0, 32, 0]
    assert len(torch.unique(objective.pixels[1, :32], dim=0)) == 32


def test_evaluation_leaves_the_memories_alone() -> None:
    objective = make().eval()
    before = objective.pixels.clone()
    objective.terms(STUDENT, TEACHER, TARGET)
    assert objective.pixels.equal(before)


def test_state_goes_on_where_it_was_saved() -> None:
    whole, other = make(), make()
    for objective in (whole, other):
        torch.manual_seed(1)
        objective.terms(STUDENT, TEACHER, TARGET)
    again = make()
    again.load_state_dict(other.state_dict())
    found = []
    for objective in (whole, again):
        torch.manual_seed(2)
        found.append(means(objective.terms(STUDENT, side(draw(7, 2, CHANNELS, 2, 3)), TARGET)))
    assert found[0] == found[1]


def test_nothing_but_void_moves_by_the_images_alone() -> None:
    objective = make()
    parts = means(objective.terms(STUDENT, TEACHER, torch.full_like(TARGET, VOID)))
    assert parts["mini_batch"] > 0
    assert parts["pixel"] == 0
    assert parts["region"] == 0
    assert objective.pixels_next.tolist() == [0, 0, 0]


def test_a_student_like_its_teacher_has_nothing_to_learn_from_the_images() -> None:
    feature = TEACHER.features["@-1"].clone().requires_grad_()
    value = means(make(memory=False).terms(side(feature), TEACHER, None))["mini_batch"]
    (gradient,) = torch.autograd.grad(value, feature)
    assert value.abs() < 1e-12
    assert gradient.abs().max() < 1e-12


def test_mistakes_are_named() -> None:
    with pytest.raises(ObjectiveError, match="takes no weights of samples"):
        means(make().terms(STUDENT, TEACHER, TARGET, torch.ones(2)))
    with pytest.raises(ObjectiveError, match="cirkd needs labels, got none"):
        means(make().terms(STUDENT, TEACHER, None))
    with pytest.raises(ObjectiveError, match="region_memory must be a whole number above 0, got 0"):
        make(region_memory=0)
    with pytest.raises(ObjectiveError, match="temperature must be above 0"):
        make(temperature=0.0)
