"""Exports of students of scenes that differ in size: what is said of them is the student's own score and theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import counterpoise
from counterpoise.data.images import to_tensor
from counterpoise.tasks.segmentation import segment


@pytest.fixture(scope="module", params=[None, pytest.param((40, 40), marks=pytest.mark.slow)], ids=["whole", "window"])
def mixed_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on scenes of many sizes, a dark square on noise in each."""
    root = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for half, count in (("train", 8), ("val", 5)):
        for kind in ("images", "masks"):
            (root / "data" / kind / half).mkdir(parents=True)
        for number in range(count):
            width, height = (int(side) for side in rng.integers(24, 64, 2))
            picture = rng.integers(120, 256, (height, width, 3)).astype(np.uint8)
            mask = np.zeros((height, width), np.uint8)
            mask[height // 4 : height // 2, width // 4 : width // 2] = 1
            picture[mask == 1] //= 4
            Image.fromarray(picture).save(root / "data" / "images" / half / f"s{number}.png")
            Image.fromarray(mask).save(root / "data" / "masks" / half / f"s{number}.png")
    (root / "data" / "classes.txt").write_text("ground\nsquare\n")
    data = {
        "path": root / "data",
        "source": "masks_folder",
        "workers": 0,
        "scenes": {"size": (24, 24), "window": request.param},
    }
    train = {"epochs": 6, "batch_size": 4, "device": "cpu", "precision": "fp32",
             "optimizer": {"name": "adamw", "learning_rate": 0.01}}  # fmt: skip
    run = {"task": "segmentation", "data": data, "student": {"model": "digits/unet_8_16"}, "train": train}
    counterpoise.train({**run, "out": root / "run"})
    return root / "run"


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_line_of_an_export_is_the_score_of_evaluate_and_that_of_its_runner(
    mixed_run: Path, tmp_path: Path, precision: str
) -> None:
    least = 0 if precision == "int8" else None
    made = counterpoise.export(mixed_run, to="onnx", precision=precision, out=tmp_path / "out", min_same=least)
    found = made["agreement"]
    assert found["images"] == 5
    assert found["resized"] == 4  # all but the first, whose size the export takes
    assert found["converted"] > (80 if precision == "int8" else 99.9)
    assert found["student"] == pytest.approx(counterpoise.evaluate(mixed_run)["miou"])
    data = mixed_run.parent / "data"
    command = [sys.executable, tmp_path / "out" / "run.py", data / "images" / "val", "--out", tmp_path / "masks"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    student = counterpoise.load_student(mixed_run)
    same, counts = 0, np.zeros((2, 2))
    for number in range(5):
        picture = Image.open(data / "images" / "val" / f"s{number}.png")
        mask = np.asarray(Image.open(tmp_path / "masks" / f"s{number}-mask.png"))
        truth = np.asarray(Image.open(data / "masks" / "val" / f"s{number}.png"))
        counts += np.bincount(2 * truth.ravel() + mask.ravel(), minlength=4).reshape(2, 2)
        same += int((segment(student, to_tensor(picture)).numpy() == mask).sum())
    share = counts.diagonal() / (counts.sum(0) + counts.sum(1) - counts.diagonal())
    assert found["positions"] == counts.sum()
    assert found["export"] == pytest.approx(100 * share.mean(), abs=0.3)  # Pillow's resampling against torch's
    assert found["same"] == pytest.approx(100 * same / counts.sum(), abs=0.3)
    assert found["same"] < found["converted"]
