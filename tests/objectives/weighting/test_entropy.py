"""BD-KD's rule against entropies worked out by hand."""

from __future__ import annotations

import pytest
import torch

from counterpoise import BalanceDivergence
from counterpoise.objectives.divergence import forward_kl_values, reverse_kl_values
from counterpoise.objectives.weighting.base import Side
from counterpoise.objectives.weighting.entropy import Entropy

SHARP = torch.tensor([[8.0, 0.0, 0.0]])
FLAT = torch.tensor([[0.5, 0.0, 0.0]])


def test_a_student_too_sure_is_spread_by_forward_and_one_too_unsure_is_sharpened_by_reverse() -> None:
    rule = Entropy(emphasis=3.0)
    student, teacher = torch.cat([SHARP, FLAT, FLAT]), torch.cat([FLAT, SHARP, FLAT])
    forward, reverse = rule(student, teacher, Side(1.0, 4.0), Side(0.5, 2.0))
    assert isinstance(forward, torch.Tensor)
    assert isinstance(reverse, torch.Tensor)
    assert forward[:, 0].tolist() == [3.0, 1.0, 1.0]
    assert reverse[:, 0].tolist() == [0.5, 1.5, 0.5]
    assert rule.logged() == pytest.approx({"forward_weight": 5 / 3, "reverse_weight": 2.5 / 3})


def test_the_loss_is_each_divergence_times_its_factor() -> None:
    objective = BalanceDivergence(1, 1, 4, 2, rule="entropy", reduction="none")
    loss = objective(torch.cat([SHARP, FLAT]), torch.cat([FLAT, SHARP]))
    torch.testing.assert_close(loss[0], (2 * forward_kl_values(SHARP, FLAT, 4) + reverse_kl_values(SHARP, FLAT, 2))[0])
    torch.testing.assert_close(loss[1], (forward_kl_values(FLAT, SHARP, 4) + 2 * reverse_kl_values(FLAT, SHARP, 2))[0])


def test_without_emphasis_it_is_the_fixed_rule() -> None:
    objective = BalanceDivergence(rule="entropy", rule_arguments={"emphasis": 1})
    torch.testing.assert_close(objective(SHARP, FLAT), BalanceDivergence()(SHARP, FLAT))
