"""What is said of data before the first step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from counterpoise import config
from counterpoise.data import sources, summary


def said(path: Path, **values: object) -> dict[str, str]:
    return dict(summary.of_splits(sources.load(config.Data.model_validate({"path": path, **values}))).lines)


def test_classes_halves_and_sizes_are_said(image_folder: Path) -> None:
    (image_folder / "train" / "square" / "00.jpg").unlink()
    lines = said(image_folder)
    assert lines == {
        "classes": "3: circle, square, stripes",
        "train": f"23 images, 7 (square) to 8 (circle) a class; {image_folder}/train",
        "val": f"12 images, 4 a class; {image_folder}/val",
        "sizes": "40 x 32 to 56 x 36",
    }


def test_where_a_half_comes_from_is_said(image_folder: Path) -> None:
    (image_folder / "val").rename(image_folder / "TEST")
    assert said(image_folder)["val"].endswith(f"{image_folder}/TEST (there is no val)")
    lines = said(image_folder / "train", val_fraction=0.25, split_seed=3)
    assert lines["val"].endswith(f"{image_folder}/train, 25% held out of every class by data.split_seed 3")


def test_a_share_to_hold_out_that_says_nothing_is_noted(image_folder: Path) -> None:
    assert said(image_folder, val_fraction=0.3)["note"].startswith("data.val_fraction says nothing here")


def test_parts_that_are_not_used_are_named(image_folder: Path) -> None:
    shutil.copytree(image_folder / "val", image_folder / "test")
    assert said(image_folder)["note"] == f"not used: {image_folder}/test"


def test_unlabeled_images_are_counted(image_folder: Path) -> None:
    lines = said(image_folder, unlabeled=image_folder / "val")
    assert lines["train"].startswith("36 images, 8 a class, 12 without a label; ")
    assert lines["train"].endswith(f"{image_folder}/train and {image_folder}/val")


def test_numbered_classes_say_their_order(tmp_path: Path) -> None:
    for name in range(11):
        for number in range(2):
            (tmp_path / str(name)).mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), (20 * name, 9 * number, 0)).save(tmp_path / str(name) / f"{number}.png")
    assert said(tmp_path, val_fraction=0.5)["classes"] == "11 in the order of numbers: 0, 1, 2, 3, 4, ..., 10"


def test_every_command_says_what_it_found_and_runs_keep_it(
    image_folder: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    small = ["--student.model", "cifar/resnet8", "--data.size", 16, "--train.epochs", 1, "--data.workers", 0]
    code, _, told = run("train", "--data", image_folder, "--out", "runs/a", *small, "--data.views.crop", "pad")
    assert code == 0, told
    expected = (
        "classes  3: circle, square, stripes",
        f"train    24 images, 8 a class; {image_folder}/train",
        "sizes    40 x 32 to 56 x 36",
        "shown    in training 16 x 16, padded by 4 and cropped, mirrored; in evaluation ",
    )
    for line in expected:
        assert line in told
    assert told.index(expected[0]) < told.index("epoch 1/1")
    kept = json.loads(Path("runs/a/data.json").read_text())
    assert kept["said"][0] == expected[0]
    assert kept["val"]["per_class"] == [4, 4, 4]
    assert run("train", "--data", image_folder, "--out", "runs/b", *small, "--quiet")[2] == ""
    code, _, told = run("evaluate", "runs/a", "--data", image_folder)
    assert code == 0
    assert f"images   12 images, 4 a class; {image_folder}/val" in told
