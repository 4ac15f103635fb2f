"""Longer runs that go on from shorter ones."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import counterpoise
from counterpoise import config
from counterpoise.errors import CounterpoiseError, Interrupted

DATA: dict[str, Any] = {"source": "digits", "options": {"train_size": 150}}


def values(out: Path | None, epochs: int, **train: Any) -> dict[str, Any]:
    plan = {"epochs": epochs, "batch_size": 50, "device": "cpu", "checkpoint_minutes": 0, "ema": 0.9, **train}
    plan["schedule"] = {"name": "constant"}  # so that a run does not depend on how long it is to be
    return {
        "data": DATA,
        "student": {"model": "digits/cnn_4_8"},
        "train": plan,
        "out": None if out is None else str(out),
    }


@pytest.fixture(scope="session")
def shorter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shorter") / "run"
    counterpoise.train(values(out, 2))
    return out


def test_an_extended_run_ends_in_the_bits_of_one_that_was_that_long_from_the_start(
    shorter: Path, tmp_path: Path
) -> None:
    kept = {path.relative_to(shorter): path.read_bytes() for path in shorter.rglob("*") if path.is_file()}
    whole = counterpoise.train(values(tmp_path / "whole", 4))
    with pytest.raises(Interrupted):
        counterpoise.train(values(tmp_path / "longer", 4), extend=str(shorter), deadline=time.monotonic())
    with pytest.raises(Interrupted):  # by the options alone, which do not say what it goes on from
        counterpoise.train(values(tmp_path / "longer", 4), resume=True, deadline=time.monotonic())
    found = counterpoise.train(tmp_path / "longer" / "run.yaml", resume=True)
    assert (found.last, found.best, found.steps) == (whole.last, whole.best, whole.steps)
    student = "student/model.safetensors"
    assert (tmp_path / "longer" / student).read_bytes() == (tmp_path / "whole" / student).read_bytes()
    epochs = [
        [line["epoch"] for line in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()) if "val" in line]
        for out in (tmp_path / "longer", tmp_path / "whole")
    ]
    assert epochs[0] == epochs[1] == [0, 1, 2, 3]
    assert config.kept(tmp_path / "longer" / "run.yaml").train.extends == (2,)
    assert {path.relative_to(shorter): path.read_bytes() for path in shorter.rglob("*") if path.is_file()} == kept


def test_the_command_takes_the_options_of_the_shorter_run(shorter: Path, run: Callable[..., Any]) -> None:
    code, _, said = run("train", "--extend", shorter, "--train.epochs", "3", "--out", "longer")
    assert code == 0
    assert "after 2 of 3 epochs" in " ".join(said.split())
    assert (
        load_file("longer/student/model.safetensors").keys() == load_file(shorter / "student/model.safetensors").keys()
    )
    code, _, said = run("train", "--extend", "longer", "--train.epochs", "4", "--out", "longest")
    assert code == 0
    assert config.kept(Path("longest/run.yaml")).train.extends == (2, 3)


@pytest.mark.parametrize(
    ("epochs", "changes", "options", "message"),
    [
        (2, {}, {}, "a run of 2 epochs, to 2: give more"),
        (3, {"batch_size": 25}, {}, r"train\.batch_size: 50 there, 25 given"),
        (3, {}, {"resume": True}, "--extend starts a longer run"),
        (3, {"extends": [2]}, {"extend": None}, "written by --extend RUN alone"),
        (3, {}, {"extend": "nothing"}, "--extend nothing: there is no run in it"),
    ],
    ids=["no longer", "another batch", "and resumed", "by hand", "no run"],
)
def test_what_no_longer_run_can_go_on_from_is_refused(
    shorter: Path, tmp_path: Path, epochs: int, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CounterpoiseError, match=message):
        counterpoise.train(values(tmp_path / "out", epochs, **changes), **{"extend": shorter, **options})
    assert not (tmp_path / "out").exists()


def test_a_run_that_has_not_come_to_its_end_is_not_extended(shorter: Path, tmp_path: Path) -> None:
    shutil.copytree(shorter, tmp_path / "begun")
    (tmp_path / "begun" / "summary.json").unlink()
    with pytest.raises(CounterpoiseError, match="has not come to its end"):
        counterpoise.train(values(tmp_path / "out", 3), extend=tmp_path / "begun")


def test_what_is_extended_stays_as_it_is_and_by_another_teacher_nothing_is_begun(shorter: Path, tmp_path: Path) -> None:
    with pytest.raises(CounterpoiseError, match="beside the shorter one: give another --out"):
        counterpoise.train(values(shorter, 3), extend=shorter, overwrite=True)
    taught = {**values(tmp_path / "taught", 1), "teacher": {"checkpoint": str(shorter), "accept_chance": True}}
    counterpoise.distill(taught)
    other = {**values(tmp_path / "out", 2), "teacher": {"checkpoint": str(tmp_path / "taught"), "accept_chance": True}}
    with pytest.raises(CounterpoiseError, match="started with another teacher"):
        counterpoise.distill(other, extend=tmp_path / "taught")
    assert not (tmp_path / "out" / "run.yaml").exists()
