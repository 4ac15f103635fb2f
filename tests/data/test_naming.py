"""Pictures of val that belong to pictures of train, by their names or by their pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from counterpoise import check
from counterpoise.config import Data
from counterpoise.data.checking import cheap
from counterpoise.data.naming import CASE
from counterpoise.data.sources import load


def scenes(root: Path, train: list[str], val: list[str]) -> Path:
    """Pictures at images/train/KEY.png and so on, each of its own color, with masks of two classes."""
    for half, keys in (("train", train), ("val", val)):
        for number, key in enumerate(keys):
            for kind in ("images", "masks"):
                (root / kind / half / key).parent.mkdir(parents=True, exist_ok=True)
            color = (number * 9, 99, 40 * (half == "val"))
            Image.new("RGB", (8, 6), color).save(root / "images" / half / f"{key}.png")
            mask = np.repeat(np.array([[0, 0, 0, 0, 1, 1, 1, 1]], dtype=np.uint8), 6, 0)
            Image.fromarray(mask).save(root / "masks" / half / f"{key}.png")
    (root / "classes.txt").write_text("ground\ncell\n")
    return root


CASES = [f"p{case}_{number}" for case in range(4) for number in range(2)]


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        (["site/0016E5_0795", "x/b7", "x/c9", "y_2"], ["other/0016E5_0795", "z1"], "1 of 2 pictures of val are called"),
        (CASES, [*CASES[-2:], "p9_0"], "such as 'p3' of p3_0.png, and 1 of 5 of these are in both"),
        (CASES, ["p7_0", "p7_1"], ""),
        (["00", "01", "02"], ["00", "01"], ""),  # which count
        (["frame_00", "frame_01"], ["frame_00"], ""),
        (["a/a_1", "a/a_2", "b/b_1", "b/b_2"], ["a/a_1", "b/b_1"], ""),
    ],
)
def test_names_that_are_on_both_sides_are_said(tmp_path: Path, train: list[str], val: list[str], said: str) -> None:
    root = scenes(tmp_path / "scenes", train, val)
    found = [problem for problem in cheap(load(Data(path=root))) if problem.severity == "warning"]
    assert [said in problem.what for problem in found] == [True] * bool(said)
    assert all("--data.options.group" in problem.way_out for problem in found)
    assert check(root)["errors"] == 0


def test_the_pattern_that_is_named_keeps_cases_whole(tmp_path: Path) -> None:
    root = scenes(tmp_path / "scenes", CASES, ["p9_0"])
    options: dict[str, Any] = {"group": CASE}
    train, val = load(Data(path=root, options=options, fold="1/2"))
    assert not cheap(load(Data(path=root, options=options)))
    assert train.groups is not None
    assert val.groups is not None
    assert not {*train.groups.tolist()} & {*val.groups.tolist()}


def test_a_scene_that_was_saved_anew_is_found_by_its_pixels(tmp_path: Path) -> None:
    root = scenes(tmp_path / "scenes", CASES, ["q_0", "q_1"])
    Image.open(root / "images" / "train" / "p0_1.png").save(root / "images" / "val" / "q_0.tif")
    (root / "images" / "val" / "q_0.png").unlink()
    (root / "images" / "val" / "q_1.png").write_bytes((root / "images" / "train" / "p1_0.png").read_bytes())
    bytewise, pixelwise = check(root)["problems"]
    assert "1 of 2 images of val are in train, too, byte for byte" in bytewise["what"]
    assert "1 of 2 images of val are in train, too, pixel for pixel, in other files" in pixelwise["what"]
    assert pixelwise["where"] == [f"{root}/images/val/q_0.tif and {root}/images/train/p0_1.png"]


def test_a_picture_that_was_resized_or_saved_with_loss_is_found_by_its_looks(
    tmp_path: Path, make_picture: Callable[..., Image.Image]
) -> None:
    for number in range(6):
        path = tmp_path / "album" / "train" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_picture(("circle", "square")[number % 2], number, (96, 80)).save(path)
    (tmp_path / "album" / "val").mkdir()
    first, second = (Image.open(tmp_path / "album" / "train" / f"{number}.png") for number in (1, 4))
    first.save(tmp_path / "album" / "val" / "a.jpg", quality=85)
    second.resize((48, 40), Image.Resampling.BOX).save(tmp_path / "album" / "val" / "b.png")
    make_picture("stripes", 9, (96, 80)).save(tmp_path / "album" / "val" / "c.png")
    (problem,) = check(tmp_path / "album")["problems"]
    assert problem["what"].startswith("2 of 3 images of val look like images of train")
    train = tmp_path / "album" / "train"
    assert [each.split(" and ")[1] for each in problem["where"]] == [f"{train}/1.png", f"{train}/4.png"]
