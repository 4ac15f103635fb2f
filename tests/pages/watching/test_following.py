"""What a run has written so far, whatever state its folder is in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from counterpoise import config
from counterpoise.engine.progress import duration
from counterpoise.errors import RunError
from counterpoise.pages.watching.following import Follower, Point


def step(number: int, epoch: int = 0, **terms: float) -> dict[str, Any]:
    terms = terms or {"cross_entropy": 2.0 / number}
    loss = sum(terms.values())
    more = {"learning_rate": 0.1, "images_per_second": 320.0}
    return {"kind": "step", "step": number, "epoch": epoch, "loss": loss, "terms": terms, **more}


def evaluation(number: int, epoch: int, top1: float) -> dict[str, Any]:
    return {"kind": "epoch", "step": number, "epoch": epoch, "terms": {}, "val": {"top1": top1}}


def write(folder: Path, *lines: dict[str, Any], more: str = "") -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines) + more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "run"
    place.mkdir()
    values = {"data": {"source": "digits"}, "train": {"epochs": 4, "batch_size": 32}}
    (place / "run.yaml").write_text(config.dump(config.resolve(values)))
    return place


def test_lines_are_taken_as_they_come(folder: Path) -> None:
    follower = Follower(folder)
    assert follower.read().step == 0
    assert follower.read().status == "running"
    write(folder, step(10), step(20))
    assert follower.read().series["loss"] == [Point(10, 0.2), Point(20, 0.1)]
    write(folder, evaluation(25, 0, 40.0), more=json.dumps(step(30, 1))[:30])  # a line in the middle of being written
    state = follower.read()
    assert (state.step, state.epoch, state.steps_per_epoch, state.total_steps) == (25, 1, 25, 100)
    assert state.scores == {"top1": [Point(1, 40.0)]}
    write(folder, more=json.dumps(step(30, 1))[30:] + "\n")
    state = follower.read()
    assert (state.step, state.epoch, state.damaged) == (30, 2, 0)
    assert state.seconds_left == pytest.approx(70 * 32 / 320)


def test_a_run_that_goes_on_from_a_checkpoint_is_read_anew(folder: Path) -> None:
    write(folder, step(10), step(20), step(30))
    follower = Follower(folder)
    assert follower.read().step == 30
    (folder / "metrics.jsonl").write_text(json.dumps(step(10)) + "\n")
    assert follower.read().series["loss"] == [Point(10, 0.2)]


def test_another_run_in_its_place_is_told_apart(folder: Path) -> None:
    write(folder, step(10))
    (folder / "summary.json").write_text("{}")
    follower = Follower(folder)
    assert follower.read().finished
    for name in ("metrics.jsonl", "summary.json"):
        (folder / name).unlink()
    text = (folder / "run.yaml").read_text().replace("epochs: 4", "epochs: 9")
    (folder / "run.new").write_text(text)
    (folder / "run.new").replace(folder / "run.yaml")
    state = follower.read()
    assert (state.finished, state.step, state.series) == (False, 0, {})
    assert state.run is not None
    assert state.run.train.epochs == 9


def test_damaged_lines_are_counted_and_the_rest_is_there(folder: Path) -> None:
    broken = (
        '{"kind": "step"\n[]\n\x00\n{"kind": "step", "step": "x"}\n{"kind": "epoch", "step": 1, "epoch": 0, "val": 3}\n'
    )
    write(folder, step(10), more=broken)
    write(folder, step(20))
    state = Follower(folder).read()
    assert [point.step for point in state.series["loss"]] == [10, 20]
    assert state.damaged == 5


def test_a_run_that_says_nothing_for_long_is_called_silent(folder: Path) -> None:
    write(folder, step(10))
    now = (folder / "metrics.jsonl").stat().st_mtime
    assert Follower(folder, lambda: now + 60).read().status == "running"
    assert Follower(folder, lambda: now + 300).read().status == "silent for 5 min: evaluating, or stopped"


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path, folder: Path) -> None:
    follower = Follower(tmp_path / "later")
    assert follower.read().status == "waiting for the run to begin"
    folder.rename(tmp_path / "later")
    assert follower.read().status == "running"


def test_what_is_no_run_is_refused_with_what_is_near(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").write_text("")
    other = tmp_path / "other"
    other.mkdir()
    (other / "photo.jpg").write_text("")
    for path, part in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "no" / "run", "does not exist"),
        (other, "holds no run.yaml"),
        (tmp_path, "It has runs in it: run"),
    ):
        with pytest.raises(RunError, match=part):
            Follower(path)


def test_the_stamp_changes_with_the_files_alone(folder: Path) -> None:
    follower = Follower(folder)
    first = follower.stamp()
    assert follower.stamp() == first
    write(folder, step(10))
    assert follower.stamp() != first


def test_durations_in_words() -> None:
    assert [duration(s) for s in (4, 31, 59, 61, 3600, 7321, 300_000)] == [
        "4 s",
        "31 s",
        "59 s",
        "1 min",
        "1 h 0 min",
        "2 h 2 min",
        "3 days",
    ]
