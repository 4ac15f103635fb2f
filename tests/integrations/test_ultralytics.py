"""The classification trainer of Ultralytics."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import counterpoise
from counterpoise.errors import ConfigError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("ultralytics") is None, reason="needs ultralytics, which is no dependency: its licence is AGPL-3.0"
    ),
]


@pytest.fixture(autouse=True)
def pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics puts a function of its own in the place of Pillow's, for all who come after."""
    monkeypatch.setattr(Image, "open", Image.open)


@pytest.fixture
def trainer(digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Make a trainer for a run, whose optimizer is that of our own loop; it keeps the model that it starts from."""
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.chdir(tmp_path)

    def call(run: dict[str, Any]) -> Any:
        from counterpoise.integrations.ultralytics import DistillationTrainer

        class Kept(DistillationTrainer):
            def get_dataloader(
                self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train"
            ) -> Any:
                if mode == "train":
                    self.start = deepcopy(self.model)
                return super().get_dataloader(dataset_path, batch_size, rank, mode)

        options = {
            "model": "yolo11n-cls.yaml",
            "data": str(digit_folder),
            "imgsz": 32,
            "optimizer": "SGD",
            "lr0": 0.05,
            "lrf": 1.0,
            "momentum": 0.9,
            "weight_decay": 0.0,
            "warmup_epochs": 0,
            "nbs": 20,
            "amp": False,
            "plots": False,
            "device": "cpu",
            "workers": 0,
            "project": str(tmp_path / "ultralytics"),
        }
        return Kept(run, overrides=options)

    return call


@pytest.mark.parametrize("kind", ["live", "stored"])
def test_losses_are_those_of_distill(
    taught: Any,
    ours: Callable[..., Any],
    equal: Callable[..., None],
    trainer: Callable[..., Any],
    kind: str,
    tmp_path: Path,
) -> None:
    optimizer = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.0, "nesterov": True}
    given = getattr(taught, kind)
    train = {**given["train"], "optimizer": optimizer, "clip_gradient": 10.0}
    student = {"input_size": 32, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    run = {**given, "student": student, "train": train}
    made = trainer({**run, "student": {"input_size": 32}})
    losses: list[float] = []
    made.add_callback("on_train_batch_end", lambda each: losses.append(float(each.loss_items["loss"])))
    made.train()
    from counterpoise.integrations.ultralytics import Classifier

    expected = ours(run, student=Classifier(made.start))
    equal(expected.losses, losses)
    folder = made.save_student(tmp_path / "student")
    loaded = counterpoise.load_student(folder, model=Classifier("yolo11n-cls.yaml", 10))
    weights = made.ema.ema.state_dict()
    assert all(torch.equal(value, weights[name[6:]]) for name, value in loaded.net.state_dict().items())


def test_a_run_that_names_another_student_is_refused(taught: Any, trainer: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="The student is the trainer's model"):
        trainer({**taught.stored, "student": {"model": "digits/cnn_4_8"}})


def test_other_epochs_than_the_runs_are_refused(taught: Any) -> None:
    from counterpoise.integrations.ultralytics import DistillationTrainer

    for given, key in ({"epochs": 3}, "train.epochs"), ({"batch": 8}, "train.batch_size"):
        with pytest.raises(ConfigError, match=rf"is given to the trainer, and the run has .*: give it as {key}\."):
            DistillationTrainer(taught.stored, overrides=given)


def test_an_order_of_classes_that_is_not_the_trainers_is_refused(
    taught: Any, trainer: Callable[..., Any], tmp_path: Path
) -> None:
    for half in ("train", "val"):
        for name in ("2", "10"):
            folder = tmp_path / "numbers" / half / name
            folder.mkdir(parents=True)
            for number in range(10):
                Image.new("RGB", (16, 16), (20 * number, 0, 0)).save(folder / f"{number}.png")
    run = {
        "data": {"path": str(tmp_path / "numbers"), "views": {"crop": "resized", "size": [32, 32]}},
        "student": {"input_size": 32},
        "objective": {"cross_entropy": {}},
        "train": {"epochs": 1, "batch_size": 10},
    }
    made = trainer(run)
    made.args.data = str(tmp_path / "numbers")
    made.data = made.get_dataset()
    with pytest.raises(ConfigError, match=r"it sorts names as text, so set data\.class_order: text"):
        made.train()
