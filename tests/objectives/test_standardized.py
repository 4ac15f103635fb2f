"""Logit standardization: z-scores in numpy, what it must not feel, and what it hands on to its host."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from counterpoise import BalanceDivergence
from counterpoise.config import Term
from counterpoise.errors import ConfigError
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.dkd import DecoupledDistillation
from counterpoise.objectives.forward_kl import ForwardKL
from counterpoise.objectives.standardized import Standardized, standardize
from counterpoise.objectives.ttm import TransformedTeacherMatching
from counterpoise.outputs import Outputs

TARGET = torch.tensor([0, 4, 2, 2, 1, 3])


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, shape))


@given(st.integers(0, 2**31), st.floats(0.5, 8))
@settings(max_examples=20)
def test_value_is_the_papers_formula(seed: int, tau: float) -> None:
    student, teacher = draw(seed, 6, 5), draw(seed + 1, 6, 5)

    def log_probabilities(logits: np.ndarray) -> np.ndarray:
        scores = (logits - logits.mean(1, keepdims=True)) / logits.std(1, keepdims=True)
        return log_softmax(scores / tau, 1)

    log_p, log_q = log_probabilities(teacher.numpy()), log_probabilities(student.numpy())
    expected = tau**2 * (np.exp(log_p) * (log_p - log_q)).sum(1).mean()
    assert Standardized(temperature=tau)(student, teacher).item() == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("of", ["forward_kl", "reverse_kl", "balance", "dkd", "dist", "wttm", "abkd", "mlkd"])
@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 100), shift=st.floats(-50, 50))
@settings(max_examples=5)
def test_scale_and_shift_of_either_sides_logits_are_not_felt(of: str, seed: int, scale: float, shift: float) -> None:
    student, teacher = draw(seed, 6, 5), draw(seed + 1, 6, 5)
    objective = Standardized(of)
    plain = objective(student, teacher, TARGET)
    torch.testing.assert_close(objective(scale * student + shift, teacher, TARGET), plain)
    torch.testing.assert_close(objective(student, scale * teacher + shift, TARGET), plain)


def test_the_host_works_on_z_scores_at_the_base_temperature() -> None:
    student, teacher = draw(0, 6, 5), draw(1, 6, 5)
    scores = standardize(student), standardize(teacher)
    hosts = {
        "forward_kl": ForwardKL(2.0),
        "balance": BalanceDivergence(forward_temperature=2.0, reverse_temperature=2.0),
        "dkd": DecoupledDistillation(temperature=2.0),
    }
    for of, host in hosts.items():
        torch.testing.assert_close(Standardized(of)(student, teacher, TARGET), host(*scores, TARGET))
    halved = TransformedTeacherMatching()(scores[0] / 2, scores[1] / 2)
    torch.testing.assert_close(Standardized("ttm")(student, teacher), halved)


def test_arguments_of_the_host_may_be_given_and_follow_schedules() -> None:
    student, teacher = draw(0, 6, 5), draw(1, 6, 5)
    objective = Standardized("balance", 3.0, reverse_weight=0.5, reverse_temperature=1.5)
    for base, weight in ((3.0, 0.5), (1.0, 2.0)):
        objective.set_argument("temperature", base)
        objective.set_argument("reverse_weight", weight)
        host = BalanceDivergence(1.0, weight, base, 1.5)
        torch.testing.assert_close(objective(student, teacher), host(standardize(student), standardize(teacher)))
    moving = {"shape": "linear", "start": 4.0, "end": 2.0}
    run = WeightedSum({"standard": Term(objective="standardized", weight=9.0, temperature=moving)})
    run.set_progress(1.0)
    total = run(Outputs(student), Outputs(teacher), None).total
    torch.testing.assert_close(total, 9 * Standardized(temperature=2.0)(student, teacher))


def test_parts_needs_and_warm_up_are_the_hosts() -> None:
    student, teacher = Outputs(draw(0, 6, 5)), Outputs(draw(1, 6, 5))
    run = WeightedSum({"standardized": Term(of="dkd", beta=2.0)})
    assert run.needs == {"teacher", "labels"}
    run.set_progress(0.0)
    assert run(student, teacher, TARGET).total == 0
    run.set_progress(0.5)
    total, parts = run(student, teacher, TARGET)
    assert list(parts) == ["standardized/target", "standardized/others"]
    assert total > 0


def test_dense_logits_are_standardized_at_each_position_and_ignored_ones_left_out() -> None:
    student, teacher = draw(0, 2, 5, 3), draw(1, 2, 5, 3)
    scores = standardize(student)
    torch.testing.assert_close(scores.mean(1), torch.zeros(2, 3, dtype=torch.float64))
    torch.testing.assert_close(scores.square().mean(1), torch.ones(2, 3, dtype=torch.float64))
    target = torch.tensor([[0, 255, 1], [255, 255, 2]])
    values = Standardized(reduction="none")(student, teacher)
    loss = Standardized(ignore_index=255)(student, teacher, target)
    torch.testing.assert_close(loss, values[target != 255].mean())


def test_gradient_is_the_loss_derivative() -> None:
    student, teacher = draw(0, 3, 5).requires_grad_(), draw(1, 3, 5)
    assert torch.autograd.gradcheck(lambda s: Standardized()(s, teacher), (student,))


def test_logits_that_are_all_alike_give_a_finite_gradient() -> None:
    student = torch.full((2, 5), 7.0, dtype=torch.float16, requires_grad=True)
    Standardized()(student, draw(0, 2, 5).half()).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"of": "forward_k"}, "Did you mean 'forward_kl'"),
        ({"of": "balance", "reverse_wait": 2.0}, "Did you mean 'reverse_weight'"),
        ({"of": "cross_entropy"}, "which cross_entropy is not"),
        ({"temperature": 0.0}, "must be above 0"),
    ],
)
def test_mistakes_are_named_with_the_nearest_choice(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WeightedSum({"standardized": Term(**arguments)})
