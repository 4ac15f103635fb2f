"""Students of both tasks, trained for a moment: what is exported must answer like them, however little they know."""

from __future__ import annotations

from pathlib import Path

import pytest

import counterpoise

ONE = {"epochs": 1, "device": "cpu", "precision": "fp32"}


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits whose student has a tenth of a mind."""
    out = tmp_path_factory.mktemp("deploy") / "digits"
    train = {**ONE, "epochs": 3, "batch_size": 32}
    counterpoise.train(
        {"data": {"source": "digits"}, "student": {"model": "digits/cnn_8_16"}, "train": train, "out": out}
    )
    return out


@pytest.fixture(scope="session")
def scenes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on scenes of 24 x 24, shown through a window of 16 x 20."""
    out = tmp_path_factory.mktemp("deploy") / "scenes"
    data = {
        "source": "digit_scenes",
        "options": {"train_size": 16, "val_size": 12, "edge": 24},
        "workers": 0,
        "scenes": {"window": (16, 20), "size": (16, 20)},
    }
    student = {"model": "digits/unet_4_8"}
    counterpoise.train({"task": "segmentation", "data": data, "student": student, "train": ONE, "out": out})
    return out
