"""A student answers what it is sure of, and its teacher the rest: how much that is, and what it costs in accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import counterpoise
from counterpoise.engine.cascades import answered, chosen
from counterpoise.errors import ConfigError, DataError

Run = Callable[..., tuple[int, str, str]]


def drawn(count: int, seed: int) -> tuple[Any, ...]:
    """A student that is right as often as it says, and a teacher that is right in 95 of 100."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    logits = rng.normal(0, 1, (count, 10))
    logits[np.arange(count), labels] += rng.choice([0.5, 9.0], count, p=[0.4, 0.6])
    return logits, labels, logits.argmax(1) == labels, rng.random(count) < 0.95


def test_what_is_chosen_on_one_half_is_kept_on_the_other() -> None:
    behind = []
    for seed in range(40):
        found = chosen(*drawn(4000, seed), give=0.0)
        assert found["student_top1"] < found["teacher_top1"] - 10
        assert found["chosen"]["share"] > 0.5
        behind.append(found["chosen"]["difference"])
        assert [row["share"] for row in found["table"]] == sorted(
            (row["share"] for row in found["table"]), reverse=True
        )
        assert found["table"][-1]["difference"] == 0.0
        assert found["table"][0]["top1"] == found["student_top1"]
    assert np.mean(behind) == pytest.approx(0.0, abs=0.3)


def test_more_is_answered_where_more_is_given_away() -> None:
    shares = [chosen(*drawn(2000, 1), give=give)["chosen"]["share"] for give in (0.0, 1.0, 5.0, 100.0)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_few_pictures_tell_too_little() -> None:
    with pytest.raises(DataError, match="39 labeled pictures tell too little: a cascade needs 40"):
        chosen(*drawn(39, 0), give=0.0)


def test_groups_are_divided_whole_and_are_what_the_interval_is_over() -> None:
    plain = chosen(*drawn(200, 3), give=0.0)
    assert plain == chosen(*drawn(200, 3), give=0.0, owners=np.arange(200) * 7)
    logits, labels, student, teacher = (np.repeat(values, 10, axis=0) for values in drawn(200, 3))
    owners = np.repeat(np.arange(200), 10)
    found = chosen(logits, labels, student, teacher, give=0.0, owners=owners)
    assert (found["pictures"], found["groups"], plain["groups"]) == (2000, 200, None)
    # ten copies of a picture tell what it tells by itself
    assert found["chosen"] == pytest.approx(plain["chosen"])
    alone = chosen(logits, labels, student, teacher, give=0.0)["table"][0]
    width = found["table"][0]["high"] - found["table"][0]["low"]
    assert width > 2.5 * (alone["high"] - alone["low"])


def test_the_interval_over_groups_holds_the_truth_as_often_as_it_says() -> None:
    held = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        owners = np.repeat(np.arange(40), 25)
        student = rng.random(1000) < np.repeat(rng.beta(2, 2, 40), 25)  # right in half, by groups
        row = answered(0.0, np.ones(1000), student, rng.random(1000) < 0.7, owners)
        held.append(row.low <= -20 <= row.high)
    assert 0.92 <= np.mean(held) <= 0.98


def test_where_none_differs_the_interval_is_what_so_many_pictures_can_tell() -> None:
    right, sure = np.ones(200, bool), np.linspace(0, 1, 200)
    row = answered(0.5, sure, right, right, np.arange(200))
    most = 100 * (1 - 0.025 ** (1 / 200))  # of a share that shows in none of 200
    assert (row.difference, row.interval) == (0.0, "exact")
    assert (row.low, row.high) == pytest.approx((-most, most))
    none = answered(np.inf, sure, right, right, np.arange(200))
    assert (none.low, none.high) == (0.0, 0.0)  # the teacher answers all
    lost = np.arange(200) >= 198
    row = answered(0.0, sure, ~lost, right, np.arange(200))
    assert row.low < -1 < 0 < row.high == pytest.approx(most)
    assert answered(0.0, sure, ~lost, right, np.arange(200) // 2).low < row.low  # both in one group: it may be more
    assert answered(0.0, sure, np.arange(200) > 20, right, np.arange(200)).interval == "t"


def test_the_interval_of_few_differences_holds_the_truth_as_often_as_it_says() -> None:
    held, rng = [], np.random.default_rng(0)
    for _ in range(1000):
        lost = rng.random(300) < 0.008
        row = answered(0.0, np.ones(300), ~lost, np.ones(300, bool), np.arange(300))
        held.append(row.low <= -0.8 <= row.high)
    assert np.mean(held) >= 0.94


def test_few_groups_tell_too_little() -> None:
    with pytest.raises(DataError, match=r"100 labeled pictures of 9 groups tell too little.*needs 10 groups"):
        chosen(*drawn(100, 0), give=0.0, owners=np.arange(100) % 9)


@pytest.fixture(scope="session")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small run and a large one, of digits."""
    place = tmp_path_factory.mktemp("cascade")
    for name, model, epochs in (("large", "digits/cnn_16_32", 8), ("small", "digits/cnn_4_8", 2)):
        data = {"source": "digits", "options": {"train_size": 600}, "workers": 0}
        train = {"epochs": epochs, "batch_size": 32, "device": "cpu", "precision": "fp32"}
        train["optimizer"] = {"learning_rate": 0.1}
        counterpoise.train({"data": data, "student": {"model": model}, "train": train, "out": place / name})
    return place / "small", place / "large"


def test_a_cascade_of_two_runs_is_told(networks: tuple[Path, Path], run: Run) -> None:
    code, out, _ = run("cascade", *networks, "--give", "2", "--measure", "false")
    assert code == 0
    assert "answered by the student   top-1   minus teacher" in out
    found = json.loads(run("cascade", *networks, "--json", "--measure", "false")[1])
    assert found["pictures"] == 1197
    assert found["chosen"] is None or 0 <= found["chosen"]["share"] <= 1
    with pytest.raises(ConfigError, match="cascade needs a teacher"):
        counterpoise.cascade(networks[0])
    other = {"data": {"source": "digits", "options": {"train_size": 100}}}
    with pytest.raises(DataError, match=r"500 of 1,697 pictures are among those that .*small was trained on"):
        counterpoise.cascade(*networks, data=other)


@pytest.mark.slow
def test_a_cascade_tells_what_a_picture_takes(networks: tuple[Path, Path], run: Run) -> None:
    code, out, _ = run("cascade", *networks, "--give", "50", "--seconds", "0.01")
    assert code == 0
    assert "A picture takes " in out
