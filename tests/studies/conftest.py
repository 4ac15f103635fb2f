"""A teacher of digits, and files that compare tiny students of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import counterpoise
from counterpoise.commands import app

Values = dict[str, Any]
DATA: Values = {"source": "digits", "options": {"train_size": 60}, "views": {"crop": "none", "flip": False}}
TRAIN: Values = {"epochs": 2, "batch_size": 30, "precision": "fp32", "device": "cpu"}
LABELS: Values = {"cross_entropy": {"weight": 1.0}}


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained a small teacher."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    train = {**TRAIN, "epochs": 8, "optimizer": {"learning_rate": 0.1}}
    counterpoise.train({"data": DATA, "student": {"model": "digits/cnn_8_16"}, "train": train, "out": out})
    return out


@pytest.fixture
def comparison(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Values:
    """The values of a compare file of alone, kd and balance over two seeds; in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return {
        "out": "out",
        "run": {
            "data": DATA,
            "teacher": {"checkpoint": str(teacher), "accept_chance": True},
            "student": {"model": "digits/cnn_4_8"},
            "train": TRAIN,
        },
        "methods": {
            "alone": {"objective": LABELS},
            "kd": {"objective": {**LABELS, "forward_kl": {"weight": 3.6, "temperature": 2.0}}},
            "balance": {"objective": {**LABELS, "balance": {"weight": 1.8}}},
        },
        "seeds": 2,
        "baseline": "kd",
        "primary": "balance",
    }


@pytest.fixture
def searched(comparison: Values) -> Values:
    """The values of a search file of the same, three points a method, halved once."""
    weights = {"forward_weight": "$total * $share", "reverse_weight": "$total * (1 - $share)"}
    return {
        "out": "out",
        "run": {**comparison["run"], "data": {**DATA, "options": {"train_size": 90}}},
        "ranges": {
            "learning_rate": {"key": "train.optimizer.learning_rate", "low": 0.02, "high": 0.4, "log": True},
            "weight_decay": {"key": "train.optimizer.weight_decay", "low": 1e-5, "high": 1e-2, "log": True},
        },
        "methods": {
            "alone": {"objective": LABELS},
            "balance": {"objective": {**LABELS, "balance": {"weight": 1, **weights}}},
        },
        "trials": 3,
        "rungs": [1, 2],
        "val_images": 30,
        "final": {"baseline": "alone", "primary": "balance", "seeds": 2},
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Values], Path]:
    """Values as a YAML file."""

    def put(values: Values, name: str = "file.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return put


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line; exit code, stdout, stderr."""

    def call(*arguments: str | os.PathLike[str]) -> tuple[int, str, str]:
        capfd.readouterr()
        code = app.run([os.fspath(argument) for argument in arguments])
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return call
