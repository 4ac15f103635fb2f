"""Budgets as they are written, and what keeps them."""

from __future__ import annotations

import pytest

from counterpoise.errors import ConfigError
from counterpoise.studies.fitting.budget import Budget, Cost, costs_of, parse


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("latency<=15ms, size<=4MB", {"latency": 15.0, "size": 4.0}),
        ("latency<=1.5s", {"latency": 1500.0}),
        ("latency < 800us,memory<=64MB", {"latency": 0.8, "memory": 64.0}),
        ("multiply_adds<=0.3G, parameters<=2.5M", {"multiply_adds": 300.0, "parameters": 2.5e6}),
        ("parameters≤20000, size<=300KB", {"parameters": 20000.0, "size": 0.3}),
    ],
)
def test_budgets_are_read_with_their_units(text: str, limits: dict[str, float]) -> None:
    found = parse(text)
    assert found.limits == pytest.approx(limits)
    assert parse(str(found)).limits == pytest.approx(limits)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"'' is no limit; expected such as \"latency<=15ms, size<=4MB\""),
        ("latency<=15ms,", r"'' is no limit"),
        ("fast", "'fast' is no limit"),
        ("latancy<=15ms", "Quantity 'latancy' is unknown. Did you mean 'latency'?"),
        ("latency>=15ms", "can be kept below something only: write latency<=15ms"),
        ("latency<=15", r"latency is given in ms, us, s, got ''. Such as latency<=15ms"),
        ("size<=4mb", "size is given in MB, KB, kB, GB, B, got 'mb'"),
        ("size<=4ms", "size is given in"),
        ("latency<=1,5ms", "latency is given in ms"),
        ("latency<=fast", "'latency<=fast' is no limit"),
        ("latency<=1.2.3ms", "'1.2.3' is no number"),
        ("latency<=-3ms", "must be above 0, got -3"),
        ("size<=4MB, size<=5MB", "size has two limits"),
        ("parameters<=4MB", "parameters is given in no unit, K, M, got 'MB'"),
    ],
)
def test_malformed_budgets_say_what_is_wrong(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert told.replace('\\"', '"') in str(caught.value)


def test_the_upper_end_of_the_interval_keeps_the_budget() -> None:
    budget = parse("latency<=10ms, size<=4MB")
    small = {"size": Cost(3.0, 3.0)}
    assert budget.excess({**small, "latency": Cost(9.0, 10.0)}) == {}
    assert budget.excess({**small, "latency": Cost(9.0, 10.5)}) == {"latency": 1.05}


def test_what_it_would_take_is_kept_by_what_came_nearest() -> None:
    budget = Budget({"latency": 10.0, "size": 4.0, "parameters": 7.0})
    costs = {"latency": Cost(11.0, 12.3456), "size": Cost(3.0, 3.0), "parameters": Cost(123456.0, 123456.0)}
    looser = budget.loosened(costs)
    assert looser.limits == {"latency": 12.4, "size": 4.0, "parameters": 124000.0}
    assert parse(str(looser)).excess(costs) == {}


def test_costs_are_those_of_one_picture_on_the_threads_asked_for() -> None:
    def case(threads: int, batch: int, high: float | None) -> dict[str, object]:
        return {"threads": threads, "batch": batch, "median_ms": 2.0, "high_ms": high, "peak_mb": 50.0}

    entry = {
        "bytes": 4_000_000,
        "multiply_adds": 5_000_000,
        "parameters": 7,
        "cases": [case(1, 8, 9.0), case(2, 1, 3.0)],
    }
    costs = costs_of(entry, 2)
    assert costs == {
        "latency": Cost(2.0, 3.0),
        "size": Cost(4.0, 4.0),
        "memory": Cost(50.0, 50.0),
        "multiply_adds": Cost(5.0, 5.0),
        "parameters": Cost(7, 7),
    }
    assert "latency" not in costs_of({**entry, "cases": [case(1, 1, None)]}, 1)
