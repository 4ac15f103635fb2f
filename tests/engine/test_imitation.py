"""A student of features alone: of a network without classes, on images with and without labels."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.sources import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.engine.assemble import present
from counterpoise.errors import ConfigError, Interrupted, ModelError

DATA: dict[str, Any] = {"source": "digits", "options": {"train_size": 400}}
TRAIN: dict[str, Any] = {"epochs": 4, "batch_size": 50, "device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a network that learned digits, without its classifier."""
    out = tmp_path_factory.mktemp("backbone")
    values = {"data": DATA, "student": {"model": "digits/cnn_8_16"}, "train": TRAIN, "out": str(out / "run")}
    counterpoise.train(values)
    weights = load_file(out / "run" / "student" / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "classifier" not in k}, out / "backbone.safetensors")
    return out / "backbone.safetensors"


def values(backbone: Path, out: Path, **term: Any) -> dict[str, Any]:
    return {
        "data": DATA,
        "teacher": {"model": "digits/cnn_8_16", "checkpoint": str(backbone)},
        "student": {"model": "digits/cnn_4_8"},
        "objective": {"features": term},
        "train": TRAIN,
        "out": str(out),
    }


def unlabeled() -> Splits:
    """Images without labels or classes, as a folder of pictures gives."""
    parts = sources.load(config.Data.model_validate(DATA))
    return Splits(*(ArraySet(part.images, torch.full((len(part),), -1), ()) for part in parts))  # type: ignore[attr-defined]


def test_a_run_of_features_alone_is_looked_at_as_it_was_trained(backbone: Path, tmp_path: Path) -> None:
    trained = counterpoise.distill(values(backbone, tmp_path / "run")).folder
    kept = json.loads((trained / "identity.json").read_text())
    now = present(config.kept(trained / "run.yaml"))
    assert now.items() <= kept.items()
    assert {"teacher", "data"} <= now.keys()
    counterpoise.receipt(trained)
    (state,) = (
        row["state"]
        for row in counterpoise.verify(trained / "receipt.json")["items"]
        if row["what"] == "weights of the teacher"
    )
    assert state == "same"


def test_images_without_labels_teach_features_that_a_classifier_learns_on(
    backbone: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    result = counterpoise.distill(values(backbone, tmp_path / "features"), data=unlabeled())
    lines = [json.loads(line) for line in (tmp_path / "features" / "metrics.jsonl").read_text().splitlines()]
    curve = [line["val"]["explained"] for line in lines if line["kind"] == "epoch"]
    assert curve[-1] > curve[0]
    assert (result.last["explained"], result.teacher) == (pytest.approx(curve[-1], rel=1e-5), {})
    with pytest.raises(ModelError, match="its classifier is untrained and its answers mean nothing"):
        counterpoise.load_student(tmp_path / "features")
    student = counterpoise.load_student(tmp_path / "features", backbone=True)
    assert student(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ["@-1"]).features["@-1"].shape == (1, 8, 4, 4)
    flags = ["--data.source", "digits", "--data.options.train_size", "400", "--train.device", "cpu"]
    code, _, said = run("evaluate", tmp_path / "features", "--data", "nowhere")
    assert (code, "counterpoise probe --teacher.checkpoint" in said) == (2, True)
    code, _, said = run("train", *flags, "--student.checkpoint", tmp_path / "features", "--train.epochs", "1",
                        "--student.freeze", "features", "--out", "tuned")  # fmt: skip
    assert (code, "has 1 classes and 10 are asked for" in said) == (0, True)
    before, after = (
        load_file(path / "student" / "model.safetensors") for path in (tmp_path / "features", Path("tuned"))
    )
    assert all(after[name].equal(value) for name, value in before.items() if name.startswith("features"))
    code, printed, _ = run("probe", *flags, "--teacher.checkpoint", tmp_path / "features", "--out", "probed")
    assert (code, "by the classifier" in printed) == (0, True)


def test_a_grid_and_labels_beside_it_are_scored_by_the_task(backbone: Path, tmp_path: Path) -> None:
    asked = values(backbone, tmp_path / "run", grid=True, weight=0.5)
    result = counterpoise.distill({**asked, "objective": {**asked["objective"], "cross_entropy": {}}})
    assert {"top1", "loss"} <= result.last.keys()
    assert counterpoise.evaluate(tmp_path / "run")["top1"] == result.last["top1"]


def test_a_run_goes_on_with_a_teacher_without_a_classifier(backbone: Path, tmp_path: Path) -> None:
    whole, stopped = (values(backbone, tmp_path / name) for name in ("whole", "stopped"))
    counterpoise.distill(whole)
    with pytest.raises(Interrupted):
        counterpoise.distill(stopped, deadline=time.monotonic())
    torch.rand(3)  # what was drawn before says nothing about the classifier that it lacks
    counterpoise.distill(stopped, resume=True)
    ends = [(tmp_path / name / "student" / "model.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert ends[0] == ends[1]


def test_a_teacher_without_a_classifier_is_refused_where_its_answers_count(backbone: Path, tmp_path: Path) -> None:
    asked = values(backbone, tmp_path / "run")
    with pytest.raises(ModelError, match=r"counterpoise probe\), or imitate its features alone"):
        counterpoise.distill({**asked, "objective": {"features": {}, "balance": {}}})
    with pytest.raises(ConfigError, match="record keeps a teacher's logits"):
        counterpoise.record(asked, out=tmp_path / "store")
