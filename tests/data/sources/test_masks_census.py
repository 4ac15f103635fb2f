"""How pixels divide over the classes, and what is said where a class has none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from counterpoise import config
from counterpoise.data import sources, summary
from counterpoise.data.checking import cheap, check
from counterpoise.data.class_weights import class_counts
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import IGNORE, Splits
from counterpoise.data.sources.masks_census import census, counted, problems_of
from counterpoise.data.sources.memory import concatenate
from counterpoise.errors import DataError
from counterpoise.tasks import get

CLASSES = ("sky", "road", "car")


def scenes(values: list[int], classes: tuple[str, ...] = CLASSES) -> ArraySet:
    """A scene a value, its upper half of class 0, its lower half of that value."""
    masks = torch.zeros(len(values), 8, 10, dtype=torch.uint8)
    for mask, value in zip(masks, values, strict=True):
        mask[4:] = value
    return ArraySet.of_scenes(torch.randint(256, (len(values), 3, 8, 10)).to(torch.uint8), masks, classes)


def test_shares_are_counted_and_told() -> None:
    found = census(scenes([1, 2, IGNORE, 1]))
    assert (found.pixels, found.void, found.read, found.total) == ((160, 80, 40), 40, 4, 4)
    assert found.text() == "pixels: sky 50%, road 25%, car 12%, void 12%"
    assert summary.census(scenes([1, 2])) == "pixels: sky 50%, road 25%, car 25%"


def test_some_masks_are_enough_unless_a_class_is_not_met() -> None:
    common = census(scenes([1, 2] * 20), looked_at=4)
    assert (common.read, common.total) == (5, 40)
    assert "in 5 of 40 masks" in common.text()
    assert not common.absent
    rare = census(scenes([1] * 39 + [2]), looked_at=4)
    assert (rare.read, rare.absent) == (40, [])
    absent = census(scenes([1] * 40), looked_at=4)
    assert (absent.read, absent.absent) == (40, ["car"])


def test_images_without_masks_and_masks_that_cannot_be_read_count_nowhere(tmp_path: Path) -> None:
    labeled = scenes([1, 2])
    both = concatenate(labeled, scenes([2, 2, 2]))
    assert (counted(both).total, counted(both).pixels) == (2, (80, 40, 40))
    for number in range(3):
        for side in ("images", "masks"):
            (tmp_path / side).mkdir(exist_ok=True)
            values = np.zeros((8, 10), dtype=np.uint8)
            values[number:] = 1
            Image.fromarray(values).save(tmp_path / side / f"{number}.png")
    (tmp_path / "masks" / "2.png").write_bytes(b"nothing")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (tmp_path / "train.txt").write_text("1\n2\n")
    (tmp_path / "val.txt").write_text("0\n1\n")
    train, _ = sources.load(config.Data(path=tmp_path, on_corrupt="skip", options={"shared": True}))
    assert (counted(train).read, counted(train).pixels) == (1, (10, 70))
    assert class_counts(train)[0].tolist() == [10, 70]


def test_class_without_a_pixel_is_named_for_either_half() -> None:
    train, val = scenes([1, 1]), scenes([2, 2])
    train.origin, val.origin = "train of here", "val of here"
    first, second = cheap(Splits(train, val))
    assert (first.severity, second.severity) == ("warning", "warning")
    assert "No pixel in the masks of train of here is of the class 'car'" in first.what
    assert "No pixel in the masks of val of here is of the class 'road'" in second.what
    assert cheap(Splits(scenes([1, 2]), scenes([2, 1]))) == []


def test_one_class_alone_is_refused_with_the_way_out() -> None:
    (problem,) = problems_of(census(scenes([IGNORE, 0])), "train")
    assert problem.severity == "error"
    assert "hold no class but 'sky', and no pixel of 'road', 'car'" in problem.what
    assert "data.options.ignore" in problem.way_out
    assert "lesion 255" in problem.way_out
    with pytest.raises(DataError, match="a score over one class is 100 whatever is answered"):
        get("segmentation").check(scenes([0, 0]))
    get("segmentation").check(scenes([0, 1]))


def test_void_alone_is_refused() -> None:
    void = scenes([IGNORE, IGNORE])
    void.masks[:] = IGNORE
    with pytest.raises(DataError, match="All masks of the data are void: no pixel has a class"):
        get("segmentation").check(void)


def test_check_names_a_class_without_a_pixel_and_a_picture_on_both_sides(tmp_path: Path) -> None:
    for half, shade in (("train", 10), ("val", 10), ("val", 99)):
        for side in ("images", "masks"):
            (tmp_path / side / half).mkdir(parents=True, exist_ok=True)
        values = np.zeros((8, 10), dtype=np.uint8)
        values[3:] = 1
        Image.new("RGB", (10, 8), (shade, 0, 0)).save(tmp_path / "images" / half / f"{half}{shade}.png")
        Image.fromarray(values).save(tmp_path / "masks" / half / f"{half}{shade}.png")
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    said = [problem.what for problem in check(config.Data(path=tmp_path)).problems]
    assert [("is of the class 'c'" in what, "1 of 2 images of val are in train" in what) for what in said] == [
        (True, False),
        (True, False),
        (False, True),
    ]
    (tmp_path / "classes.txt").write_text("a 0\nb 5\nvoid 1\n")
    said = [problem.what for problem in check(config.Data(path=tmp_path)).problems if problem.severity == "error"]
    assert len(said) == 2
    assert all("hold no class but 'a'" in what for what in said)
