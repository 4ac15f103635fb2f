"""A run file of digits with a small teacher, in an empty folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import counterpoise

Values = dict[str, Any]
DATA: Values = {"source": "digits", "options": {"train_size": 100}, "views": {"crop": "none", "flip": False}}
TRAIN: Values = {
    "epochs": 4,
    "batch_size": 50,
    "precision": "fp32",
    "device": "cpu",
    "optimizer": {"learning_rate": 0.1},
}


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained a small teacher."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    counterpoise.train({"data": DATA, "student": {"model": "digits/cnn_8_16"}, "train": TRAIN, "out": out})
    return out


@pytest.fixture(scope="session")
def write_run(teacher: Path) -> Callable[[Path], Path]:
    """Write run.yaml into a folder."""
    objective = {"cross_entropy": {"weight": 1.0}, "balance": {"weight": 1.0}}
    given = {"checkpoint": str(teacher), "accept_chance": True}
    values = {"data": DATA, "teacher": given, "objective": objective, "train": TRAIN}

    def write(folder: Path) -> Path:
        (folder / "run.yaml").write_text(yaml.safe_dump(values))
        return folder / "run.yaml"

    return write


@pytest.fixture
def run_file(write_run: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """run.yaml in an empty folder, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    return write_run(tmp_path)
