"""How values become 8 bits, where data, a student and images that are there may each say it."""

from __future__ import annotations

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
