"""Who goes on from one rung to the next."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from counterpoise.studies.halving import halve


@given(st.dictionaries(st.integers(0, 99), st.floats(0, 100) | st.just(math.nan), min_size=1), st.floats(0.01, 1))
def test_halving_keeps_the_best_share(scores: dict[int, float], keep: float) -> None:
    kept = halve(scores, keep)
    assert len(kept) == max(1, math.ceil(len(scores) * keep - 1e-9))
    dropped = [scores[trial] for trial in scores if trial not in kept]
    for score in dropped:
        assert math.isnan(score) or all(scores[trial] >= score for trial in kept)


def test_of_equal_trials_the_earlier_goes_on() -> None:
    assert halve({0: math.nan, 1: 1.0, 2: 1.0, 3: 1.0}, 0.5) == [1, 2]
