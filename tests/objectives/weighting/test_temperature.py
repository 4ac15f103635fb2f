"""A temperature for each sample."""

from __future__ import annotations

import pytest
import torch

from counterpoise import BalanceDivergence
from counterpoise.objectives.weighting.temperature import PerSampleTemperature

TEACHER = torch.tensor([[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]])


def test_each_sample_is_softened_by_its_spread_and_the_mean_keeps_the_temperature() -> None:
    rule = PerSampleTemperature(minimum=0.1, maximum=10.0)
    assert rule(TEACHER)[:, 0].tolist() == pytest.approx([0.5, 1.0, 1.5])
    assert rule.logged() == {"temperature_factor": pytest.approx(1.0)}
    assert PerSampleTemperature(0.8, 1.2)(TEACHER)[:, 0].tolist() == pytest.approx([0.8, 1.0, 1.2])


def test_the_loss_is_each_samples_at_its_own_temperature() -> None:
    student = torch.tensor([[0.0, 1.0], [1.0, 0.5], [0.0, -4.0]])
    loss = BalanceDivergence(temperature_rule="per_sample", reduction="none")(student, TEACHER)
    for row, factor in enumerate((0.5, 1.0, 1.5)):
        fixed = BalanceDivergence(forward_temperature=4 * factor, reverse_temperature=2 * factor, reduction="none")
        torch.testing.assert_close(loss[row], fixed(student[row : row + 1], TEACHER[row : row + 1])[0])


def test_the_typical_spread_is_remembered() -> None:
    rule = PerSampleTemperature(0.1, 10.0, decay=0.5)
    rule(TEACHER)
    assert rule(TEACHER * 2)[1].item() == pytest.approx(4 / (2 * 0.5 / 1.5 + 4 / 1.5), rel=1e-5)
    assert rule.eval()(TEACHER[1:2] * 0).item() == pytest.approx(0.1)


def test_a_teacher_that_says_nothing_leaves_the_temperature() -> None:
    assert PerSampleTemperature()(torch.zeros(2, 5))[:, 0].tolist() == [1.0, 1.0]
    assert PerSampleTemperature()(torch.ones(2, 1))[:, 0].tolist() == [1.0, 1.0]
