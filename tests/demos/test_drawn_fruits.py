"""Drawn photographs and scenes: what one seed draws is the same again, and can be trained on as it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import counterpoise
from counterpoise.demos.drawn_fruits import KINDS, SCENE, draw, draw_scenes


def test_photographs_of_a_seed_are_the_same_again_and_of_another_are_others(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        draw(tmp_path / name, 1, seed)
    files = [Path(kind, "000.jpg") for kind in KINDS]
    read = {name: [(tmp_path / name / file).read_bytes() for file in files] for name in ("one", "again", "other")}
    assert read["one"] == read["again"]
    assert all(one != other for one, other in zip(read["one"], read["other"], strict=True))


def test_scenes_are_data_without_a_fault_and_masks_lie_on_the_fruits(tmp_path: Path) -> None:
    draw_scenes(tmp_path, 3, 2, seed=0)
    told = counterpoise.check(tmp_path)
    assert told["errors"] == 0
    assert told["found"]["classes"] == ["ground", *KINDS]
    assert (told["found"]["train"]["images"], told["found"]["val"]["images"]) == (3, 2)
    colors: dict[int, list[np.ndarray]] = {}
    for half in ("train", "val"):
        for file in (tmp_path / "masks" / half).glob("*.png"):
            mask = np.asarray(Image.open(file))
            picture = np.asarray(Image.open(tmp_path / "images" / half / f"{file.stem}.jpg"))
            assert mask.shape == picture.shape[:2] == SCENE[::-1]
            for value in np.unique(mask):
                colors.setdefault(int(value), []).append(picture[mask == value])
    for number, (color, _) in enumerate(KINDS.values(), 1):
        assert np.concatenate(colors[number]).mean(0) == pytest.approx(color, abs=30)
