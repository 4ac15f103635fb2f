"""Runs on pictures of signed values, whose students go on reading them as they were trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import counterpoise
from counterpoise import config
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.engine import inputs
from counterpoise.errors import ConfigError
from counterpoise.models import folder as student_folder
from counterpoise.reading import Intensity


def folder(root: Path) -> Path:
    """Two classes of squares in Hounsfield units, darker and lighter than what lies around them."""
    rng = np.random.default_rng(5)
    for half, count in (("train", 6), ("val", 4)):
        for label, name in enumerate(("air", "bone")):
            (root / half / name).mkdir(parents=True)
            for number in range(count):
                picture = rng.integers(20, 60, (12, 12)).astype(np.int16)
                picture[3:9, 2:8] += 400 if label else -400
                np.save(root / half / name / f"{number}.npy", picture)
    return root


def test_a_student_reads_as_it_was_trained_in_evaluation_and_prediction(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    run = {
        "data": {"path": str(data), "workers": 0, "intensity": {"window": [-160, 240]}},
        "student": {"model": "digits/cnn_4_8"},
        "train": {"epochs": 1, "batch_size": 4, "device": "cpu"},
        "out": str(tmp_path / "run"),
    }
    counterpoise.train(run)
    told = json.loads((tmp_path / "run" / "student" / "student.json").read_text())
    assert (told["format"], told["input"]["intensity"]) == (2, {"window": [-160.0, 240.0]})
    assert inputs.reading_of(tmp_path / "run").intensity == Intensity("window", -160, 240)
    assert counterpoise.load_student(tmp_path / "run").reading.intensity == Intensity("window", -160, 240)
    scores = counterpoise.evaluate(tmp_path / "run")
    assert counterpoise.evaluate(tmp_path / "run" / "student", data=data)["loss"] == pytest.approx(scores["loss"])
    picture = data / "val" / "bone" / "0.npy"
    assert "by window -160 to 240 (`data.intensity`)" in (tmp_path / "run" / "student" / "README.md").read_text()
    by_file, by_array = counterpoise.predict([picture, np.load(picture)], student=tmp_path / "run")
    assert by_file["top"] == by_array["top"]

    for call in (
        lambda: counterpoise.try_(tmp_path / "run", out=tmp_path / "site"),
        lambda: counterpoise.pack(run, out=tmp_path / "pack", shorter=8),
    ):
        with pytest.raises(ConfigError, match=r"data\.intensity"):
            call()


def test_what_data_say_themselves_comes_before_what_the_student_was_trained_on() -> None:
    trained = student_folder.Input(size=None, crop_share=1.0, intensity=config.Intensity(zscore=3)).reading
    assert inputs.read_for(config.Data(), trained).reading.intensity == Intensity("zscore", -3, 3)
    level = inputs.read_for(config.Data(white_level=4095), trained)
    assert (level.white_level, level.intensity) == (4095, None)
    own = inputs.read_for(config.Data(intensity=config.Intensity(white=9)), trained._replace(white_level=255))
    assert (own.white_level, own.reading.intensity) == (None, Intensity("white", 0, 9))


def test_images_that_were_handed_in_are_not_mapped_without_a_word() -> None:
    images = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8)
    halves = Splits(*(ArraySet(images, torch.arange(8) % 2, ["a", "b"]) for _ in "ab"))
    run = {"student": {"model": "digits/cnn_4_8"}, "data": {"intensity": {"zscore": 3}}}
    with pytest.raises(ConfigError, match=r"data\.intensity is of the values in files, and the images"):
        counterpoise.train(run, data=halves)
