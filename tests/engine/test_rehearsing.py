"""A batch of a run is tried before anything is trained: looked at, learned by heart and timed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.engine import rehearsing
from counterpoise.errors import ConfigError

Values = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]
TRAIN: Values = {"epochs": 3, "batch_size": 20, "precision": "fp32", "device": "cpu"}


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Values:
    """A run of digits on labels alone, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    data = {"source": "digits", "options": {"train_size": 60}, "views": {"crop": "none", "flip": False}, "workers": 0}
    train = {**TRAIN, "optimizer": {"learning_rate": 0.1}}
    return {"data": data, "student": {"model": "digits/cnn_8_16"}, "train": train}


def test_a_run_file_is_rehearsed_and_nothing_is_kept(digits: Values, run: Run) -> None:
    counterpoise.train({**digits, "out": "teacher"})
    values = {**digits, "teacher": {"checkpoint": "teacher", "accept_chance": True}}
    Path("run.yaml").write_text(yaml.safe_dump(values))
    there = sorted(Path().iterdir())
    code, out, _ = run("check", "run.yaml", "--sheet", "batch.png", "--json")
    tried = json.loads(out)["rehearsal"]
    assert (code, tried["problem"], tried["batch"], tried["steps_in_all"]) == (0, "", [20, 3, 8, 8], 9)
    assert tried["last"] < 0.8 * tried["first"]
    assert tried["seconds_in_all"] == pytest.approx(9 * (tried["seconds_a_step"] + tried["seconds_a_batch"]))
    assert "it can be learned" in " ".join(tried["said"])
    assert Image.open("batch.png").size == (6 * 168 + 8, 4 * (160 + 48 + 8) + 8)
    assert sorted(Path().iterdir()) == [Path("batch.png"), *there]
    with pytest.raises(ConfigError, match="give --overwrite, or another --sheet"):
        counterpoise.check(values, sheet="batch.png")


def test_a_batch_that_is_taken_in_parts_is_rehearsed_in_parts(digits: Values) -> None:
    whole = counterpoise.check(digits)["rehearsal"]
    digits["train"]["accumulate"] = 4
    parts = counterpoise.check(digits)["rehearsal"]
    # Batch norm sees a part at a time.
    assert (parts["first"], parts["problem"]) == (pytest.approx(whole["first"], rel=0.02), "")


def test_several_labels_are_shown_by_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data: Values = {"source": "digit_pairs", "options": {"train_size": 40}, "workers": 0}
    values: Values = {"task": "multilabel", "data": data, "student": {"model": "digits/cnn_4_8"}, "train": TRAIN}
    found = counterpoise.check(values, sheet="batch.png")["rehearsal"]
    assert found["batch"][0] == 20
    assert Path("batch.png").is_file()


@pytest.mark.parametrize(
    ("rate", "said"), [(1e-9, "falls only from"), (1e6, "a smaller --train.optimizer.learning_rate")]
)
def test_a_rate_that_learns_nothing_is_told(digits: Values, rate: float, said: str) -> None:
    digits["train"] |= {"optimizer": {"learning_rate": rate}, "clip_gradient": None}
    tried = counterpoise.check(digits)["rehearsal"]
    assert said in tried["problem"]
    assert tried["steps"] >= 1


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"schedule": {"warmup_epochs": 9}}, "9 epochs of rise are all of the run"),
        ({"schedule": {"name": "multistep", "milestones": [50, 60]}}, "50, 60 lie beyond the run"),
        ({"extends": [1]}, "is written by --extend RUN alone"),
        ({"batch_size": 59}, "The last batch of an epoch holds one image"),
    ],
)
def test_what_train_refuses_is_refused(
    digits: Values, train: Values, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsing, "STEPS", 2)
    digits["train"] |= train
    # to its last batch norm these pictures are a pixel
    digits |= {"student": {"model": "timm/test_resnet", "input_size": 16}, "data": {**digits["data"], "size": 16}}
    for call in (counterpoise.check, counterpoise.train):
        with pytest.raises(ConfigError, match=said):
            call({key: value for key, value in digits.items() if key != "teacher"})


def test_a_folder_that_is_taken_is_said(digits: Values, tmp_path: Path) -> None:
    assert counterpoise.check({**digits, "out": str(tmp_path / "new")})["rehearsal"]["taken"] == ""
    (tmp_path / "mine.txt").write_text("mine")
    tried = counterpoise.check({**digits, "out": str(tmp_path)})["rehearsal"]
    assert "is not empty and holds no run (mine.txt, ...): give another --out." in tried["taken"]
    assert tried["said"][-1].startswith("out      ")


def test_too_few_steps_to_tell_are_said_to_be_that(digits: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsing, "SECONDS", 0.0)
    tried = rehearsing.rehearse(config.resolve(digits))
    assert (tried.steps, tried.problem, tried.too_few) == (0, "", True)
    assert (
        "0 s are too few to tell whether it can be learned; a smaller --train.batch_size takes less" in tried.said()[2]
    )


def test_a_batch_of_scenes_shows_truth_and_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"train_size": 16, "val_size": 4, "edge": 32}
    values: Values = {
        "task": "segmentation",
        "data": {"source": "digit_scenes", "options": options, "workers": 0},
        "student": {"model": "digits/unet_4_8_16"},
        "train": TRAIN,
    }
    counterpoise.train({**values, "train": {**TRAIN, "epochs": 1}, "out": "teacher"})
    found = counterpoise.check(
        {**values, "teacher": {"checkpoint": "teacher", "accept_chance": True}}, sheet="batch.png"
    )["rehearsal"]
    assert found["batch"] == (16, 3, 32, 32)
    width, height = Image.open("batch.png").size
    assert width > 3 * 32  # picture, truth and teacher
    assert height > 4 * 32


def test_a_sheet_without_a_student_is_refused(image_folder: Path) -> None:
    with pytest.raises(ConfigError, match="no run with a student is given"):
        counterpoise.check(image_folder, sheet="batch.png")
    assert counterpoise.check(image_folder)["rehearsal"] is None
