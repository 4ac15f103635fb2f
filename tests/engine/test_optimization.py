"""The learning rate as a function of the step, beside torch's own schedulers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from counterpoise.config import LearningRateSchedule, Optimizer, Train
from counterpoise.engine.optimization import build_optimizer, learning_rate, never_reached

STEPS, EPOCHS, PEAK = 7, 12, 0.3


def ours(**options: object) -> list[float]:
    schedule = LearningRateSchedule.model_validate(options)
    return [learning_rate(step, STEPS, EPOCHS, PEAK, schedule) for step in range(STEPS * EPOCHS)]


def theirs(make: object) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = make(optimizer)  # type: ignore[operator]
    rates = []
    for _ in range(STEPS * EPOCHS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_one_cycle_is_torchs() -> None:
    expected = theirs(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, PEAK, total_steps=STEPS * EPOCHS, final_div_factor=1e9)
    )
    assert ours(name="one_cycle") == pytest.approx(expected, abs=1e-9)


def test_cosine_is_torchs() -> None:
    expected = theirs(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS * EPOCHS))
    assert ours(name="cosine") == pytest.approx(expected, abs=1e-9)


def test_multistep_falls_at_the_milestones() -> None:
    expected = theirs(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3 * STEPS, 8 * STEPS], gamma=0.2))
    assert ours(name="multistep", milestones=[3, 8], gamma=0.2) == pytest.approx(expected)


def test_milestones_below_one_are_shares_of_the_run_and_others_epochs() -> None:
    assert ours(name="multistep", milestones=[0.25, 0.75]) == ours(name="multistep", milestones=[3, 9])
    default = ours(name="multistep")
    assert [default.count(rate) for rate in dict.fromkeys(default)] == [
        52,
        11,
        11,
        10,
    ]  # of 84
    assert LearningRateSchedule(name="multistep").milestone_epochs(240) == (150, 180, 210)
    assert LearningRateSchedule().milestone_epochs(240) == ()


@pytest.mark.parametrize(
    ("milestones", "late"), [([5, 9], None), ([0.5, 0.9], None), ([], None), ([5, 10], "10"), ([150, 180], "150, 180")]
)
def test_milestones_beyond_the_run_are_named(milestones: list[float], late: str | None) -> None:
    train = Train.model_validate({"epochs": 10, "schedule": {"name": "multistep", "milestones": milestones}})
    said = never_reached(train)
    assert said is None if late is None else said is not None and f"{late} lie beyond the run" in said
    assert never_reached(train.model_copy(update={"schedule": LearningRateSchedule()})) is None


@pytest.mark.parametrize(
    ("warmup", "name", "late"),
    [(2, "cosine", True), (1.9, "cosine", False), (3, "multistep", True), (3, "one_cycle", False)],
)
def test_a_warm_up_of_the_whole_run_is_named(warmup: float, name: str, late: bool) -> None:
    said = never_reached(Train.model_validate({"epochs": 2, "schedule": {"name": name, "warmup_epochs": warmup}}))
    assert ("" if said is None else said).startswith(f"train.schedule.warmup_epochs: {warmup:g} epochs") == late


@pytest.mark.parametrize("power", [0.9, 2.0])
def test_poly_is_torchs(power: float) -> None:
    expected = theirs(lambda o: torch.optim.lr_scheduler.PolynomialLR(o, STEPS * EPOCHS, power=power))
    assert ours(name="poly", power=power) == pytest.approx(expected, abs=1e-9)


def test_poly_falls_to_its_final_share_after_warmup() -> None:
    rates = ours(name="poly", warmup_epochs=2, final=0.1)
    assert rates[: 2 * STEPS] == sorted(rates[: 2 * STEPS])
    assert rates[2 * STEPS] == pytest.approx(PEAK)
    falls = rates[2 * STEPS :]
    assert falls == sorted(falls, reverse=True)
    assert 0.1 * PEAK < rates[-1] < 0.13 * PEAK


def test_warmup_rises_to_the_peak_and_final_is_a_share_of_it() -> None:
    rates = ours(name="cosine", warmup_epochs=2, final=0.1)
    assert rates[: 2 * STEPS] == sorted(rates[: 2 * STEPS])
    assert 0 < rates[0] < rates[2 * STEPS - 1] < PEAK
    assert rates[2 * STEPS] == pytest.approx(PEAK)
    assert rates[-1] == pytest.approx(0.1 * PEAK, rel=0.01)
    assert set(ours(name="constant")) == {PEAK}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_norms_and_biases_are_spared_from_decay_when_asked(name: str) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    spared = build_optimizer([net], Optimizer(name=name, decay_norms=False, weight_decay=0.1))
    decayed = {id(p): group["weight_decay"] for group in spared.param_groups for p in group["params"]}
    assert [decayed[id(p)] for p in net.parameters()] == [0.1, 0.0, 0.0, 0.0]
    (group,) = build_optimizer([net], Optimizer(name=name, weight_decay=0.1)).param_groups
    assert len(group["params"]) == 4
