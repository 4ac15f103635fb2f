"""Runs of our own loop that those of other tools are compared with, step by step: digits, fp32, on the CPU."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image

from counterpoise import distill, record, train

PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrations.md"
DATA = {"source": "digits", "options": {"train_size": 200}, "views": {"crop": "pad", "padding": 1}}
OPTIMIZER = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
TRAIN = {
    "epochs": 2,
    "batch_size": 20,
    "precision": "fp32",
    "device": "cpu",
    "log_every": 1,
    "evaluate_every": 2,
    "clip_gradient": None,
    "optimizer": OPTIMIZER,
    "schedule": {"name": "constant"},
}
OBJECTIVE = {
    "cross_entropy": {"weight": 0.5},
    "balance": {"weight": {"start": 0.5, "end": 1.5}, "forward_temperature": 2.0},
}
STEPS = 20


class Ours(NamedTuple):
    """A run of our own loop."""

    losses: list[float]
    last: dict[str, float]


class Taught(NamedTuple):
    """Run files with one teacher, as a network and as a store of the views."""

    live: dict[str, Any]
    stored: dict[str, Any]


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """Runs without a student."""
    folder = tmp_path_factory.mktemp("taught")
    base = {"data": DATA, "train": TRAIN, "seed": 3}
    longer = {**base, "train": {**TRAIN, "epochs": 15}}
    train({**longer, "student": {"model": "digits/cnn_16_32"}, "out": str(folder / "teacher")})
    live = {**base, "teacher": {"checkpoint": str(folder / "teacher")}, "objective": OBJECTIVE}
    record({**live, "student": {"model": "digits/cnn_4_8"}}, out=folder / "store", precision="float32")
    return Taught(live, {**live, "teacher": {"store": str(folder / "store")}})


@pytest.fixture
def ours(tmp_path: Path) -> Callable[..., Ours]:
    """Train a run in our own loop; `start`: a file of the student's weights to start from; `modules` as for distill."""

    def call(run: dict[str, Any], start: Path | None = None, **modules: Any) -> Ours:
        begun = {} if start is None else {"checkpoint": str(start)}
        result = distill({**run, "student": {**run["student"], **begun}, "out": str(tmp_path / "ours")}, **modules)
        lines = [json.loads(line) for line in (tmp_path / "ours" / "metrics.jsonl").read_text().splitlines()]
        return Ours([line["loss"] for line in lines if line["kind"] == "step"], result.last)

    return call


def require_equal(ours: Sequence[float], theirs: Sequence[float]) -> None:
    """Losses of 20 steps, which fall, are equal to 1e-6."""
    assert len(ours) == len(theirs) == STEPS
    assert ours[-1] != ours[0]
    torch.testing.assert_close(torch.tensor(theirs).double(), torch.tensor(ours).double(), rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="session")
def equal() -> Callable[[Sequence[float], Sequence[float]], None]:
    return require_equal


@pytest.fixture
def patched(tmp_path: Path) -> Callable[[Path, str], Path]:
    """Copy a script, with all that lies beside it, and apply the patch of docs/integrations.md for this name."""

    def call(script: Path, name: str) -> Path:
        folder = tmp_path / "script"
        shutil.copytree(script.parent, folder, ignore=shutil.ignore_patterns(".git"))
        patches = re.findall(rf"^```diff\n(--- a/{re.escape(name)}\n.*?)^```$", PAGE.read_text(), re.M | re.S)
        (patch,) = patches
        subprocess.run(["patch", "-p1", str(folder / script.name)], input=patch, text=True, check=True)
        return folder / script.name

    return call


@pytest.fixture(scope="session")
def digit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/CLASS/NN.png and val/CLASS/NN.png: four of each digit, 16 x 16, for Ultralytics refuses fewer than 10."""
    from counterpoise import config
    from counterpoise.data import sources

    folder = tmp_path_factory.mktemp("digits")
    for half, images in zip(("train", "val"), sources.load(config.resolve({"data": DATA}).data), strict=True):
        for label, name in enumerate(images.classes):
            (folder / half / name).mkdir(parents=True)
            for number in (images.labels == label).nonzero().flatten()[:4].tolist():
                picture = Image.fromarray(images.images[number].permute(1, 2, 0).numpy())
                picture.resize((16, 16)).save(folder / half / name / f"{number}.png")
    return folder
