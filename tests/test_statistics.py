from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from counterpoise.statistics import Difference, by_fold, holm, over_seeds, paired, verdict

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=12)
scores = st.floats(0, 100).map(lambda value: round(value, 2))


def test_a_difference_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t(0.975, 2) = 4.302653, so 2 -+ 2.484138."""
    found = paired({0: 11.0, 1: 22.0, 2: 33.0, 9: 50.0}, {0: 10.0, 1: 20.0, 2: 30.0, 4: 1.0})
    assert (found.mean, found.count) == (2.0, 3)
    assert (found.low, found.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert found.p == pytest.approx(0.074180, abs=1e-6)  # t = 2 sqrt(3), two degrees of freedom
    assert verdict(found, found.p) == "no difference shown"


@given(st.lists(st.tuples(scores, scores), min_size=2, max_size=20))
def test_the_interval_is_that_of_the_mean_of_differences(pairs: list[tuple[float, float]]) -> None:
    found = paired({i: a for i, (a, _) in enumerate(pairs)}, {i: b for i, (_, b) in enumerate(pairs)})
    differences = np.array([a - b for a, b in pairs])
    assert found.mean == pytest.approx(differences.mean(), abs=1e-9)
    if math.isnan(found.low):
        assert np.ptp(differences) < 1e-9
        return
    if np.ptp(differences) < 1e-9:
        assert (found.low, found.high, found.p) == (0, 0, 1)
        return
    low, high = stats.t.interval(0.95, len(pairs) - 1, differences.mean(), stats.sem(differences))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)
    assert (found.p < 0.05) == (not found.low <= 0 <= found.high) or found.p == pytest.approx(0.05)


def test_only_common_seeds_count() -> None:
    ours, theirs = {0: 1.0, 1: 3.0, 2: 2.0}, {1: 1.0, 2: 3.0, 5: 9.0}
    assert paired(ours, theirs) == paired({1: 3.0, 2: 2.0}, {1: 1.0, 2: 3.0})


def test_folds_are_means_over_seeds_and_share_training_images() -> None:
    """Of 3 folds: differences 1, 2, 3 in their means; standard error sqrt(1 / 3 + 1 / 2), t(0.975, 2) = 4.302653."""
    ours = {(fold, seed): 10.0 * fold + fold + seed for fold in (1, 2, 3) for seed in (0, 2)}
    theirs = {(fold, seed): 10.0 * fold + 1.0 for fold in (1, 2, 3) for seed in (0, 2, 5)}
    assert by_fold(ours) == [12.0, 23.0, 34.0]
    assert over_seeds({**ours, (3, 0): 33.0, (3, 2): 37.0}) == pytest.approx(math.sqrt((2 + 2 + 8) / 3))
    assert over_seeds({(1, 0): 1.0, (2, 0): 5.0}) is over_seeds({0: 1.0, 1: 2.0}) is None
    found = paired(ours, theirs, folds=3)
    width = 4.302653 * math.sqrt(1 / 3 + 1 / 2)
    assert (found.mean, found.count) == (2.0, 3)
    assert (found.low, found.high) == pytest.approx((2 - width, 2 + width), abs=1e-5)
    assert found.p == pytest.approx(2 * stats.t.sf(2 / math.sqrt(1 / 3 + 1 / 2), 2))
    assert found.p > paired(dict(enumerate(by_fold(ours))), dict(enumerate(by_fold(theirs)))).p


def test_one_seed_or_no_spread_claims_nothing() -> None:
    one = paired({0: 60.0}, {0: 50.0})
    alike = paired({0: 50.1, 1: 60.1, 2: 70.1}, {0: 50.0, 1: 60.0, 2: 70.0})
    same = paired({0: 5.0, 1: 7.0}, {0: 5.0, 1: 7.0})
    assert [verdict(d, d.p) for d in (one, alike, same)] == [
        "cannot be said: one common seed",
        "cannot be said: no spread over seeds",
        "no difference shown",
    ]
    assert verdict(paired({0: 1.0}, {1: 1.0}), math.nan) == "no common seeds"
    assert verdict(one, one.p, "folds") == "cannot be said: one common fold"
    assert verdict(alike, alike.p, "folds") == "cannot be said: no spread over folds"


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02, math.nan])[0] == pytest.approx(0.04)  # one that is not in yet is one that was asked


@given(probabilities)
def test_holm_lies_between_the_values_and_bonferroni_and_keeps_their_order(values: list[float]) -> None:
    corrected = holm(values)
    for p, q in zip(values, corrected, strict=True):
        assert p - 1e-12 <= q <= min(1, len(values) * p) + 1e-12
    order = sorted(range(len(values)), key=lambda i: values[i])
    assert [corrected[i] for i in order] == sorted(corrected)


def test_a_difference_that_does_not_survive_correction_is_not_claimed() -> None:
    difference = Difference(1.0, 0.1, 1.9, 0.03, 5)
    assert verdict(difference, 0.03) == "higher"
    assert verdict(difference, 0.06) == "no difference shown after correction"
    assert verdict(Difference(-1.0, -1.9, -0.1, 0.03, 5), 0.03) == "lower"
