"""Multi-level logit distillation against the paper's formula, with matrices written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from counterpoise.config import Term
from counterpoise.errors import ConfigError, ObjectiveError
from counterpoise.objectives.base import means
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.forward_kl import ForwardKL
from counterpoise.objectives.mlkd import MultiLevelDistillation, gram_distance
from counterpoise.outputs import Outputs


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, shape))


@given(st.integers(0, 2**31), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=30)
def test_value_is_the_papers_formula(seed: int, samples: int, classes: int) -> None:
    student, teacher = draw(seed, samples, classes), draw(seed + 1, samples, classes)
    expected = {"instance": 0.0, "batch": 0.0, "class": 0.0}
    for tau in (2, 3, 4, 5, 6):
        p, q = softmax(teacher.numpy() / tau, 1), softmax(student.numpy() / tau, 1)
        expected["instance"] += tau**2 * rel_entr(p, q).sum() / samples
        expected["batch"] += 2 * ((p @ p.T - q @ q.T) ** 2).sum() / samples
        expected["class"] += 3 * ((p.T @ p - q.T @ q) ** 2).sum() / classes
    parts = means(MultiLevelDistillation(1.0, 2.0, 3.0).terms(Outputs(student), Outputs(teacher), None))
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(expected, rel=1e-8, abs=1e-12)


@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(1, 8))
@settings(max_examples=30)
def test_both_ways_to_the_distance_of_gram_matrices_agree(seed: int, rows: int, columns: int) -> None:
    a, b = draw(seed, rows, columns), draw(seed + 1, rows, columns)
    torch.testing.assert_close(gram_distance(a, b), (a @ a.T - b @ b.T).square().sum())
    torch.testing.assert_close(gram_distance(a.T, b.T), (a.T @ a - b.T @ b).square().sum())


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_a_small_distance_is_not_lost_to_rounding(shape: tuple[int, int]) -> None:
    a = draw(0, *shape)
    b = a + 1e-4 * draw(1, *shape)
    exact = (a @ a.T - b @ b.T).square().sum()
    assert gram_distance(a.float(), b.float()).item() == pytest.approx(exact.item(), rel=1e-2)


def test_with_one_temperature_and_the_first_level_alone_it_is_forward_kl() -> None:
    student, teacher = draw(0, 6, 5), draw(1, 6, 5)
    objective = MultiLevelDistillation(1.0, 0.0, 0.0, temperatures=[3.0])
    torch.testing.assert_close(objective(student, teacher), ForwardKL(3.0)(student, teacher))


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_gradient_is_the_loss_derivative(shape: tuple[int, int]) -> None:
    student, teacher = draw(0, *shape).requires_grad_(), draw(1, *shape)
    objective = MultiLevelDistillation(temperatures=(1.0, 2.0))
    assert torch.autograd.gradcheck(lambda s: objective(s, teacher), (student,))


def test_ignored_positions_are_as_if_they_were_not_there() -> None:
    student, teacher = draw(0, 2, 5, 4), draw(1, 2, 5, 4)
    target = torch.tensor([[0, 255, 2, 3], [255, 4, 1, 0]])
    rows = [tensor.movedim(1, -1)[target != 255] for tensor in (student, teacher)]
    student[0, :, 1] = float("nan")
    loss = MultiLevelDistillation(ignore_index=255)(student, teacher, target)
    torch.testing.assert_close(loss, MultiLevelDistillation()(*rows))


def test_temperatures_are_a_list_in_a_run_file() -> None:
    student, teacher = Outputs(draw(0, 6, 5)), Outputs(draw(1, 6, 5))
    total = WeightedSum({"mlkd": Term(temperatures=[1, 4])})(student, teacher, None).total
    expected = MultiLevelDistillation(temperatures=(1.0, 4.0))(student.logits, teacher.logits)
    torch.testing.assert_close(total, expected)
    with pytest.raises(ConfigError, match="above 0"):
        WeightedSum({"mlkd": Term(temperatures=[1, 0])})
    for wrong in ([], 4.0, "4"):
        with pytest.raises(ObjectiveError, match="must be a list"):
            MultiLevelDistillation(temperatures=wrong)  # type: ignore[arg-type]
