from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterpoise.errors import ConfigError
from counterpoise.studies.ranges import Range, draw, fill, names_in


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$total", 6.0),
        ("$total * $share", 1.5),
        ("$total*(1 - $share)", 4.5),
        ("-$share / 2 + 1e1", 9.875),
        ("$rule", "teacher"),
    ],
)
def test_an_expression_is_computed(text: str, value: Any) -> None:
    point = {"total": 6.0, "share": 0.25, "rule": "teacher"}
    found = fill({"kl": {"weight": text, "layers": [text, "@-1"], "other": 2}}, point, "objective")
    assert found == {"kl": {"weight": value, "layers": [value, "@-1"], "other": 2}}
    assert names_in({"a": [text]}) <= point.keys()


@pytest.mark.parametrize(
    "text",
    ["$total ** 2", "__import__('os') * $total", "$total if 1 else 2", "$total * $rule", "$total +", "$total.real * 1"],
)
def test_nothing_but_arithmetic_is_computed(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot be computed"):
        fill(text, {"total": 6.0, "rule": "teacher"}, "objective")


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"objective\.kl\.weight: .*'totl' is unknown\. Did you mean 'total'"):
        fill({"kl": {"weight": "2 * $totl"}}, {"total": 6.0}, "objective")
    with pytest.raises(ConfigError, match="no finite value"):
        fill("1 / $total", {"total": 0.0}, "objective")


@given(st.floats(0.001, 10), st.floats(0.001, 100), st.floats(0, 1), st.booleans())
def test_values_lie_in_their_range(low: float, width: float, share: float, log: bool) -> None:
    chosen = Range(low=low, high=low + width, log=log)
    assert low <= chosen.at(share) <= low + width


def test_a_logarithmic_range_has_its_middle_at_the_geometric_mean() -> None:
    assert Range(low=0.5, high=32.0, log=True).at(0.5) == 4.0
    assert [Range(choices=["a", "b"]).at(share) for share in (0.0, 0.49, 0.5, 1.0)] == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": 2, "high": 2}, "empty range"),
        ({"low": 3, "high": 2}, "empty range"),
        ({"choices": []}, "empty range"),
        ({"low": 0, "high": 2, "log": True}, "above 0"),
        ({"low": 1}, "needs low and high"),
        ({"low": 1, "high": 2, "choices": [1]}, "not both"),
    ],
)
def test_a_range_that_holds_nothing_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Range(**values)


def test_points_fill_every_range_evenly_and_come_back() -> None:
    ranges = {"total": Range(low=0, high=1), "share": Range(low=0, high=1)}
    points = draw(ranges, 16, seed=0)
    for name in ranges:  # Sobol: one point in each sixteenth of each range
        assert sorted(int(16 * point[name]) for point in points) == list(range(16))
    assert draw(ranges, 16, seed=0) == points != draw(ranges, 16, seed=1)
    assert draw(ranges, 5, seed=0) == draw(ranges, 8, seed=0)[:5]
