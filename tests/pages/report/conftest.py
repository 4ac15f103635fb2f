"""Small runs of digits and of scenes, and their pages."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import counterpoise
from counterpoise import config, demos
from counterpoise.data import sources

TINY = {
    "epochs": 3,
    "batch_size": 10,
    "precision": "fp32",
    "device": "cpu",
    "log_every": 2,
    "optimizer": {"name": "adamw", "learning_rate": 0.02},
}
DIGITS = {"source": "digits", "options": {"train_size": 60}, "views": {"crop": "none", "flip": False}}
SCENES = {
    "source": "digit_scenes",
    "options": {"train_size": 16, "val_size": 10, "edge": 32},
    "scenes": {"scale": (1.0, 1.0), "flip": False, "resolution": "logits"},
    "workers": 0,
}


@pytest.fixture(scope="session")
def digit_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: teacher; alone and balance of two seeds, kd of one; the weight of reverse KL moves."""
    folder = tmp_path_factory.mktemp("digits")
    common = {"data": DIGITS, "train": TINY}
    data = sources.load(config.resolve(common).data)  # once for all runs
    counterpoise.train({**common, "student": {"model": "digits/cnn_16_32"}, "out": folder / "teacher"}, data=data)
    kinds: dict[str, dict[str, Any]] = {
        "alone": {},
        "kd": {"forward_kl": {"weight": 1.0}},
        "balance": {"balance": {"reverse_weight": {"shape": "linear", "start": 0.0, "end": 1.0}}},
    }
    for kind, terms in kinds.items():
        for seed in (1,) if kind == "kd" else (1, 2):
            values = {
                **common,
                "student": {"model": "digits/cnn_4_8"},
                "objective": {"cross_entropy": {"weight": 1.0}, **terms},
                "seed": seed,
                "out": folder / f"{kind}-{seed}",
            }
            if terms:
                counterpoise.distill({**values, "teacher": {"checkpoint": folder / "teacher"}}, data=data)
            else:
                counterpoise.train(values, data=data)
    return folder


@pytest.fixture(scope="session")
def scene_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs that segment: teacher and balance."""
    folder = tmp_path_factory.mktemp("scenes")
    common = {"task": "segmentation", "data": SCENES, "train": {**TINY, "epochs": 2, "batch_size": 8}}
    counterpoise.train({**common, "student": {"model": "digits/unet_16_16_16"}, "out": folder / "teacher"})
    counterpoise.distill(
        {
            **common,
            "student": {"model": "digits/unet_8_8_8"},
            "teacher": {"checkpoint": folder / "teacher", "accept_chance": True},
            "objective": dict(demos.DEMOS["segmentation"].objectives["balance"]),
            "out": folder / "balance",
        }
    )
    return folder


@pytest.fixture(scope="session")
def digit_page(digit_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of all runs of digits."""
    from counterpoise.pages.report.writing import report

    return report([digit_runs], tmp_path_factory.mktemp("page") / "digits.html")


@pytest.fixture(scope="session")
def scene_page(scene_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the runs that segment."""
    from counterpoise.pages.report.writing import report

    return report([scene_runs], tmp_path_factory.mktemp("page") / "scenes.html")


@pytest.fixture
def copied(digit_runs: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copy a run of digits to a folder where a test may damage it; the function takes its name."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(digit_runs / name, tmp_path / name))

    return copy
