"""Masks as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from counterpoise.data.sources.base import IGNORE
from counterpoise.errors import DataError
from counterpoise.tasks.overlays import overlay, palette, write_mask

CLASSES = ("road", "tree", "sky", "car")


def test_written_mask_shows_colors_and_holds_classes(tmp_path: Path) -> None:
    mask = torch.tensor([[0, 1], [2, IGNORE]], dtype=torch.uint8)
    write_mask(tmp_path / "mask.png", mask)
    with Image.open(tmp_path / "mask.png") as written:
        assert written.mode == "P"
        assert np.array_equal(np.asarray(written), mask.numpy())
        shown = np.asarray(written.convert("RGB"))
    assert np.array_equal(shown, palette()[mask.numpy()])
    assert shown[0, 0].tolist() == [0, 0, 0]


def test_colors_of_all_classes_differ_and_those_of_the_first_by_much() -> None:
    assert len(np.unique(palette(), axis=0)) == 256
    first = palette()[[*range(20), IGNORE]].astype(int)
    apart = np.abs(first[:, None] - first[None]).sum(-1) + 1000 * np.eye(len(first), dtype=int)
    assert apart.min() > 50


def test_overlay_shows_picture_masks_and_legend(tmp_path: Path) -> None:
    image = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    masks = {title: torch.full((64, 64), index, dtype=torch.uint8) for index, title in enumerate(("truth", "teacher"))}
    overlay(tmp_path / "panels.png", image, masks, CLASSES)
    sheet = np.asarray(Image.open(tmp_path / "panels.png"))
    assert sheet.shape[1] == 3 * (192 + 8) + 8
    shown = np.stack([sheet[100, 100 + 200 * panel] for panel in range(3)]).astype(float)
    np.testing.assert_allclose(shown, [[100] * 3, *(0.4 * 100 + 0.6 * palette()[:2])], atol=1)
    below = sheet[20 + 192 :].reshape(-1, 3)
    assert all((below == color).all(1).any() for color in palette()[:2])
    assert not (below == palette()[2]).all(1).any()
    assert [path.name for path in tmp_path.iterdir()] == ["panels.png"]


def test_legend_of_many_classes_takes_several_lines_and_large_pictures_are_reduced(tmp_path: Path) -> None:
    names = [f"class of a long name {index}" for index in range(60)]
    image = np.zeros((700, 1400, 3), dtype=np.uint8)
    for count in (1, 60):
        mask = (torch.arange(700 * 1400).view(700, 1400) % count).to(torch.uint8)
        mask[0] = IGNORE
        overlay(tmp_path / f"{count}.png", image, {"truth": mask}, names)
    few, many = (Image.open(tmp_path / f"{count}.png") for count in (1, 60))
    assert few.width == many.width == 2 * (640 + 8) + 8
    assert many.height > few.height > 320


def test_overlay_of_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Mask 'truth' is \[4, 4\], and the picture \[24, 36\]"):
        overlay(
            tmp_path / "panels.png",
            torch.zeros(3, 24, 36, dtype=torch.uint8),
            {"truth": torch.zeros(4, 4, dtype=torch.uint8)},
            CLASSES,
        )
    assert not list(tmp_path.iterdir())
