"""What holds for every balance rule and temperature rule, and the mistakes one can make with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from counterpoise import BalanceDivergence, balance_divergence, distill, train
from counterpoise.config import Term
from counterpoise.errors import ConfigError, ObjectiveError
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.weighting.base import TEMPERATURE_RULES, WEIGHTINGS, Side
from counterpoise.outputs import Outputs

RULES = sorted(WEIGHTINGS.entries())
COMBINATIONS = [(rule, temperature) for rule in RULES for temperature in sorted(TEMPERATURE_RULES.entries())]
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
seeds = st.integers(0, 2**31)


def logits(seed: int, *shape: int, scale: float = 3.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale).to(dtype)


def test_the_rules_are_these() -> None:
    assert RULES == ["class_ratio", "entropy", "fixed", "head_tail", "self_tuning"]
    assert sorted(TEMPERATURE_RULES.entries()) == ["fixed", "per_sample"]
    assert all(entry.summary for entry in (*WEIGHTINGS.entries().values(), *TEMPERATURE_RULES.entries().values()))


@pytest.mark.parametrize(("rule", "temperature"), COMBINATIONS)
@given(
    seed=seeds,
    forward=st.floats(0.05, 20),
    reverse=st.floats(0.05, 20),
    dtype=st.sampled_from(DTYPES),
    scale=st.sampled_from((1.0, 1e2, 1e4)),
    shape=st.sampled_from(((1, 1), (1, 2), (4, 11), (2, 5, 3, 2))),
)
@settings(max_examples=25)
def test_loss_and_gradient_are_finite_for_extreme_logits(
    rule: str,
    temperature: str,
    seed: int,
    forward: float,
    reverse: float,
    dtype: torch.dtype,
    scale: float,
    shape: tuple[int, ...],
) -> None:
    objective = BalanceDivergence(1, 1, forward, reverse, rule=rule, temperature_rule=temperature)
    student = logits(seed, *shape).clamp(-1, 1).mul(scale).to(dtype).requires_grad_()
    teacher = logits(seed + 1, *shape).clamp(-1, 1).mul(scale).to(dtype)
    loss = objective(student, teacher)
    loss.backward()
    assert loss.isfinite()
    assert loss >= -1e-3
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert all(tensor.isfinite().all() for tensor in objective.state_dict().values())


@pytest.mark.parametrize(("rule", "temperature"), COMBINATIONS)
def test_many_classes_all_ignored_and_no_gradient_to_the_teacher(rule: str, temperature: str) -> None:
    student, teacher = logits(0, 2, 21_841).requires_grad_(), logits(1, 2, 21_841).requires_grad_()
    objective = BalanceDivergence(rule=rule, temperature_rule=temperature, ignore_index=255)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    loss = objective(student, teacher, torch.full((2,), 255))
    loss.backward()
    assert loss == 0
    assert student.grad is not None
    assert (student.grad == 0).all()
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    objective(student, teacher, torch.zeros(2, dtype=torch.int64)).backward()
    assert student.grad.abs().sum() > 0
    assert student.grad.isfinite().all()
    assert teacher.grad is None


@pytest.mark.parametrize(("rule", "temperature"), COMBINATIONS)
def test_loss_and_gradient_vanish_where_student_equals_teacher(rule: str, temperature: str) -> None:
    teacher = logits(0, 8, 10)
    student = teacher.clone().requires_grad_()
    loss = BalanceDivergence(rule=rule, temperature_rule=temperature)(student, teacher)
    loss.backward()
    assert loss.abs() < 1e-6
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6


@pytest.mark.parametrize("rule", RULES)
def test_ignored_positions_do_not_move_a_rule(rule: str) -> None:
    student, teacher = logits(0, 2, 6, 4), logits(1, 2, 6, 4)
    target = torch.zeros(2, 4, dtype=torch.int64)
    target[:, 2:] = 255
    whole, kept = (BalanceDivergence(rule=rule, temperature_rule="per_sample", ignore_index=255) for _ in range(2))
    noisy = student.clone()
    noisy[:, :, 2:] = float("nan")
    torch.testing.assert_close(whole(noisy, teacher, target), kept(student[:, :, :2], teacher[:, :, :2]))
    assert whole.logged() == pytest.approx(kept.logged())


@pytest.mark.parametrize("rule", RULES)
def test_dense_logits_are_weighed_position_by_position(rule: str) -> None:
    student, teacher = logits(0, 3, 7, 2, 4), logits(1, 3, 7, 2, 4)
    flat = [side.permute(0, 2, 3, 1).reshape(-1, 7) for side in (student, teacher)]
    dense = BalanceDivergence(rule=rule, temperature_rule="per_sample")(student, teacher)
    torch.testing.assert_close(dense, BalanceDivergence(rule=rule, temperature_rule="per_sample")(*flat))


def test_fixed_gives_back_its_weights_and_is_the_plain_loss() -> None:
    student, teacher = logits(0, 4, 6), logits(1, 4, 6)
    assert WEIGHTINGS.entries()["fixed"].kind()(student, teacher, Side(2.0, 4.0), Side(3.0, 1.0)) == (2.0, 3.0)
    plain = balance_divergence(student, teacher, forward_weight=2.0, reverse_weight=3.0)
    assert torch.equal(BalanceDivergence(2.0, 3.0, rule="fixed", temperature_rule="fixed")(student, teacher), plain)


def test_weights_given_multiply_the_shares_of_a_rule_and_may_follow_a_schedule() -> None:
    objective = WeightedSum(
        {"balance": Term(rule="head_tail", reverse_weight={"shape": "linear", "start": 1.0, "end": 3.0})}
    )
    student, teacher = Outputs(logits(0, 5, 6)), Outputs(logits(1, 5, 6))
    _, first = objective(student, teacher, None)
    objective.set_progress(1.0)
    _, last = objective(student, teacher, None)
    torch.testing.assert_close(last["balance/reverse"], 3 * first["balance/reverse"])
    torch.testing.assert_close(last["balance/forward"], first["balance/forward"])
    assert {"balance.forward_weight", "balance.reverse_weight"} <= set(objective.moving())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "entrophy"}, "Did you mean 'entropy'"),
        ({"rule": "scheduled"}, "give the weight or temperature itself"),
        ({"rule": "per_sample"}, "is unknown"),
        ({"temperature_rule": "per_sampel"}, "Did you mean 'per_sample'"),
        ({"rule": "self_tuning", "rule_arguments": {"propotion": 2.0}}, "Did you mean 'proportion'"),
        ({"rule": "self_tuning", "rule_arguments": {"proportion": 0.0}}, "proportion must be in"),
        ({"rule": "self_tuning", "rule_arguments": {"minimum": 3.0, "maximum": 2.0}}, "must not be above"),
        ({"rule": "self_tuning", "rule_arguments": {"decay": "slow"}}, "must be a number"),
        ({"rule": "head_tail", "rule_arguments": [0.5]}, "must be a mapping"),
        ({"rule": "head_tail", "rule_arguments": {"head": 1.0}}, "head must be in"),
        ({"rule": "fixed", "rule_arguments": {"head": 0.5}}, "has no argument 'head'"),
        ({"rule": "entropy", "rule_arguments": {"emphasis": 0.5}}, "emphasis must be in"),
        ({"temperature_rule": "per_sample", "temperature_arguments": {"maximum": 0.5}}, "maximum must be in"),
    ],
)
def test_mistakes_are_named_with_the_nearest_choice(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        BalanceDivergence(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        WeightedSum({"balance": Term(**arguments)})


def test_a_run_logs_the_weight_and_keeps_the_average_in_its_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    common = {
        "data": {"source": "digits", "options": {"train_size": 100}},
        "train": {"epochs": 1, "device": "cpu", "precision": "fp32", "log_every": 1, "batch_size": 50},
    }
    train({**common, "student": {"model": "digits/cnn_4_8"}, "out": str(tmp_path / "teacher")})
    balance = {"rule": "self_tuning", "rule_arguments": {"decay": 0.5}, "temperature_rule": "per_sample"}
    out = tmp_path / "student"
    distill(
        {
            **common,
            "student": {"model": "digits/cnn_4_8"},
            "teacher": {"checkpoint": str(tmp_path / "teacher"), "accept_chance": True},
            "objective": {"balance": balance},
            "out": str(out),
        }
    )
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    moving = [line["moving"] for line in lines if line["kind"] == "step"]
    assert len(moving) == 2
    assert all(0.1 <= step["balance.reverse_weight"] <= 10 for step in moving)
    assert all(0.5 <= step["balance.temperature_factor"] <= 2 for step in moving)
    saved = load_file(out / "checkpoints" / "last.safetensors")
    assert saved["objective.terms.balance.rule.moments.values"].abs().sum() > 0
    assert saved["objective.terms.balance.rule.moments.filled"] == 0.75
