"""The student that ships: which epoch's weights it has, and that its scores are its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import counterpoise
from counterpoise import config
from counterpoise.errors import RunError

DIGITS: dict[str, Any] = {"source": "digits", "options": {"train_size": 150}}
SCENES: dict[str, Any] = {"source": "digit_scenes", "options": {"train_size": 12, "val_size": 6}}
RATE: dict[str, Any] = {"optimizer": {"learning_rate": 0.6}}  # which leaps about: the best epoch is seldom the last


def values(out: Path, **train: Any) -> dict[str, Any]:
    """A short run in bf16, whose answers are not those of float32."""
    plan = {"epochs": 5, "batch_size": 50, "precision": "bf16", "device": "cpu", **RATE}
    return {
        "data": DIGITS,
        "student": {"model": "digits/cnn_8_16"},
        "seed": 3,
        "train": {**plan, **train},
        "out": str(out),
    }


@pytest.mark.parametrize("train", [{}, {"ema": 0.9}, {"precision": "fp32"}, {"ship": "best"}], ids=str)
def test_evaluate_gives_the_very_numbers_of_the_summary(tmp_path: Path, train: dict[str, Any]) -> None:
    result = counterpoise.train(values(tmp_path / "run", **train))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    described = json.loads((tmp_path / "run" / "student" / "student.json").read_text())["metrics"]
    assert summary["last"] == described["last"] == result.last
    assert summary["best"] == described["best"] == result.best
    shipped = summary[train.get("ship", "last")]
    report = counterpoise.evaluate(tmp_path / "run")
    assert result.best["epoch"] < result.last["epoch"] or "ship" not in train
    assert {name: report[name] for name in ("top1", "top5", "loss")} == {
        name: value for name, value in shipped.items() if name != "epoch"
    }
    assert report["images"] == 1647  # the part held out of the embedded digits, not what was trained on


def test_evaluate_gives_the_very_numbers_of_a_segmentation_run(tmp_path: Path) -> None:
    train = {"epochs": 2, "batch_size": 4, "precision": "bf16", "device": "cpu", "ema": 0.8}
    run = {"task": "segmentation", "data": SCENES, "student": {"model": "digits/unet_4_8"}, "train": train}
    result = counterpoise.train({**run, "out": str(tmp_path / "run")})
    report = counterpoise.evaluate(tmp_path / "run")
    names = ("miou", "dice", "pixel_accuracy")
    assert [report[name] for name in names] == [result.last[name] for name in names]


def test_scores_while_training_are_in_float32_too(tmp_path: Path) -> None:
    result = counterpoise.train(values(tmp_path / "run"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    curve = [line["val"]["top1"] for line in lines if line["kind"] == "epoch"]
    assert (curve[-1], max(curve)) == (result.last["top1"], result.best["top1"])


def test_a_finished_run_ships_its_best_weights_once_it_is_asked_to(tmp_path: Path) -> None:
    first = counterpoise.train(values(tmp_path / "run"))
    last = load_file(tmp_path / "run" / "student" / "model.safetensors")
    again = counterpoise.train(values(tmp_path / "run", ship="best"), resume=True)
    assert (again.last, again.best) == (first.last, first.best)
    assert "No step was left to train" in again.note
    assert counterpoise.train(tmp_path / "run" / "run.yaml", resume=True).note.startswith("Nothing was done")
    best = load_file(tmp_path / "run" / "student" / "model.safetensors")
    kept = load_file(tmp_path / "run" / "checkpoints" / "best.safetensors")
    assert all(best[name].equal(kept[name]) for name in kept)
    assert any(not best[name].equal(last[name]) for name in kept)
    counterpoise.train(values(tmp_path / "run"), resume=True)  # the last one again
    back = load_file(tmp_path / "run" / "student" / "model.safetensors")
    assert all(back[name].equal(last[name]) for name in last)
    (tmp_path / "run" / "checkpoints" / "best.safetensors").unlink()
    with pytest.raises(RunError, match=r"best epoch.*train\.ship last"):
        counterpoise.train(values(tmp_path / "run", ship="best"), resume=True)


@pytest.mark.parametrize("held_out", [0, 20])
def test_the_card_says_what_the_best_epoch_was_chosen_on(tmp_path: Path, held_out: int) -> None:
    run = config.merge(values(tmp_path / "run", epochs=2), {"data": {"held_out": held_out}})
    counterpoise.train(run)
    card = (tmp_path / "run" / "student" / "README.md").read_text()
    assert "The weights are those of the last epoch, 2 of 2." in card
    assert ("on the validation images that it is scored on here" in card) == (held_out == 0)
    assert ("other images to test on, which chose nothing" in card) == (held_out > 0)


@pytest.mark.parametrize("classes", [5, 6])
def test_top5_is_told_of_more_than_five_classes_alone(tmp_path: Path, classes: int) -> None:
    import torch

    from counterpoise.data.sources.arrays import ArraySet
    from counterpoise.data.sources.base import Splits

    images = torch.randint(0, 256, (6 * classes, 3, 8, 8), generator=torch.manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(len(images)) % classes
    data = Splits(*(ArraySet(images, labels, [f"kind-{index}" for index in range(classes)]) for _ in range(2)))
    run = config.merge(values(tmp_path / "run"), {"train": {"epochs": 1}, "data": {"options": {}}})
    result = counterpoise.train(run, data=data)
    report = counterpoise.evaluate(tmp_path / "run", data_set=data)
    card = (tmp_path / "run" / "student" / "README.md").read_text()
    assert ("top5" in result.last) == ("top5" in report) == ("top5" in card) == (classes == 6)
