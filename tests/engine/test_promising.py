"""Thresholds that are chosen on some pictures keep their word on others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest

from counterpoise.engine import betting, promising
from counterpoise.errors import DataError

Answers = tuple[betting.Floats, "np.ndarray[tuple[int, ...], np.dtype[np.int64]]"]
SPLITS = 100


def draw(count: int, seed: int, scale: float = 3.0) -> Answers:
    """Logits of ten classes that are too sure, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    logits = rng.normal(0, 1.5, (count, 10))
    logits[np.arange(count), labels] += rng.gamma(3, 1.2, count)
    return scale * logits, labels


@pytest.fixture(scope="session")
def everything() -> Answers:
    """So many that shares among them are the truth."""
    return draw(30_000, 12_345)


@pytest.mark.parametrize(("count", "risk"), [(1_500, 0.1), (3_000, 0.02)])
def test_of_a_hundred_choices_no_more_break_their_word_than_chance_allows(
    everything: Answers, count: int, risk: float
) -> None:
    logits, labels = everything
    right = logits.argmax(1) == labels
    broken, answered, covered = 0, [], []
    for seed in range(SPLITS):
        try:
            chosen = promising.choose(*draw(count, seed), risk, coverage=0.9, seed=seed)
        except DataError:
            continue  # who promises nothing breaks nothing
        shares = promising.probabilities(logits, chosen.temperature)
        sure = shares.max(1) >= chosen.threshold
        broken += bool((~right[sure]).mean() > risk)
        answered.append(sure.mean())
        covered.append((shares[np.arange(len(labels)), labels] >= chosen.least).mean())
    assert len(answered) > 0.8 * SPLITS
    assert broken <= binom.ppf(0.999, SPLITS, 0.05)
    assert np.mean(answered) > 0.2  # of 0.32 and 0.54 that could be answered, if the truth were known
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)


def test_the_bound_is_that_of_clopper_and_pearson() -> None:
    for wrong, count in ((0, 149), (3, 500), (40, 41)):
        exact = binomtest(wrong, count).proportion_ci(0.9, method="exact").high  # of two sides, so 95% of one
        assert promising.upper(wrong, count, 0.95) == pytest.approx(exact)
    assert promising.upper(5, 5, 0.95) == 1
    assert betting.needed(0.02, 0.95) == 149


def test_the_temperature_undoes_what_made_answers_too_sure() -> None:
    first = promising.fitted_temperature(*draw(5_000, 3, scale=1.0))
    assert promising.fitted_temperature(*draw(5_000, 3, scale=4.0)) == pytest.approx(4 * first, rel=1e-3)


def test_too_few_pictures_are_told_how_many_are_needed() -> None:
    logits, labels = draw(200, 4)
    with pytest.raises(DataError, match=r"200 labeled pictures cannot promise.* 223 are needed at least") as refused:
        promising.choose(logits, labels, 0.02)
    assert "larger --risk" in str(refused.value)
    right = np.eye(10)[labels] * 20.0  # who is always right may promise from there on
    logits, labels = draw(223, 4)
    right = np.eye(10)[labels] * 20.0
    assert promising.choose(right, labels, 0.02).answered == 1


def test_a_student_that_guesses_promises_nothing() -> None:
    logits, labels = draw(2_000, 5)
    with pytest.raises(DataError, match=r"No threshold keeps 2\.00% of wrong answers.* up to \d+\.\d+% may be wrong"):
        promising.choose(logits, np.random.default_rng(0).permutation(labels), 0.02)


@pytest.mark.parametrize("scale", [16.0, 200.0])
def test_what_is_promised_of_large_logits_is_kept_as_they_are_compared(scale: float) -> None:
    """In float32 many probabilities are 1 there."""
    chosen = promising.choose(*draw(3_000, 6, scale), 0.1)
    assert chosen.threshold == np.float32(chosen.threshold)
    logits, labels = draw(30_000, 7, scale)
    shares = (torch.from_numpy(logits).float() / chosen.temperature).softmax(1)
    sure = (shares.amax(1) >= chosen.threshold).numpy()
    assert sure.mean() == pytest.approx(chosen.answered, abs=0.03)
    assert (logits.argmax(1) != labels)[sure].mean() <= 0.1


def drawn_by_group(count: int, each: int, seed: int) -> tuple[betting.Floats, betting.Counts, betting.Counts]:
    """Logits, labels and groups: some groups are far harder than others."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(count), each)
    labels = rng.integers(0, 10, len(owners))
    logits = rng.normal(0, 1.5, (len(owners), 10))
    sureness = rng.gamma(3, 1.2, len(owners)) - rng.normal(0, 1.5, count)[owners]
    logits[np.arange(len(owners)), labels] += np.maximum(sureness, -3)
    return 3 * logits, labels, owners


def test_of_groups_no_more_choices_break_their_word_than_chance_allows() -> None:
    logits, labels, _ = drawn_by_group(3_000, 4, 12_345)
    right, choices = logits.argmax(1) == labels, 40
    broken, covered = 0, []
    for seed in range(choices):
        values, classes, owners = drawn_by_group(120, 8, seed)
        try:
            chosen = promising.choose(values, classes, 0.2, seed=seed, owners=owners)
        except DataError:
            continue
        assert (chosen.groups, chosen.bound <= 0.2 + 1e-4) == (120, True)
        shares = promising.probabilities(logits, chosen.temperature)
        sure = shares.max(1) >= chosen.threshold
        broken += bool((~right[sure]).mean() > 0.2)
        covered.append((shares[np.arange(len(labels)), labels] >= chosen.least).mean())
    assert len(covered) > 0.8 * choices
    assert broken <= binom.ppf(0.99, choices, 0.05)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.015)


def test_more_pictures_of_the_same_groups_do_not_make_a_promise_surer() -> None:
    logits, labels, owners = drawn_by_group(120, 4, 1)
    once, often = (
        promising.choose(logits.repeat(times, 0), labels.repeat(times), 0.2, owners=owners.repeat(times))
        for times in (1, 5)
    )
    assert often.bound == pytest.approx(once.bound, abs=1e-4)
    assert often.answered == pytest.approx(once.answered, abs=0.01)  # rungs are laid a little otherwise
    with pytest.raises(DataError, match=r"20 groups of 800 labeled pictures cannot promise.* 43 groups are needed"):
        promising.choose(logits.repeat(10, 0)[:800], labels.repeat(10)[:800], 0.1, owners=np.arange(800) // 40)
    alone = promising.choose(logits, labels, 0.2, owners=7 * np.arange(len(labels)))  # groups of one picture each
    assert alone == promising.choose(logits, labels, 0.2)
