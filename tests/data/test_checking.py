"""`counterpoise check`: all problems of a folder at once, with the way out of each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from counterpoise import check, config
from counterpoise.data.duplicates import between
from counterpoise.data.sources import ArraySet, Splits, load

Run = Callable[..., tuple[int, str, str]]


def test_a_good_folder_has_no_problem(image_folder: Path, run: Run) -> None:
    code, told, _ = run("check", image_folder)
    assert code == 0
    assert "3: circle, square, stripes" in told
    assert "Nothing is wrong with it" in told


def test_all_problems_are_named_at_once(image_folder: Path, run: Run) -> None:
    for name in ("circle", "square"):
        shutil.rmtree(image_folder / "train" / name)
        (image_folder / "train" / name).mkdir()
    (image_folder / "val" / "stripes").rename(image_folder / "val" / "stripe")
    code, told, _ = run("check", image_folder, "--json")
    assert code == 2
    checked = json.loads(told)
    assert checked["errors"] == 3
    first, second, third = (problem["what"] for problem in checked["problems"] if problem["severity"] == "error")
    assert "Class 'circle' is empty" in first
    assert "Class 'square' is empty" in second
    assert "'stripe'" in third
    assert all(problem["way_out"] for problem in checked["problems"])
    code, _, told = run("train", "--data", image_folder, "--student.model", "cifar/resnet8")
    assert code == 2
    assert "Class 'circle' is empty" in told
    assert "2 more: `counterpoise check` names all" in told


def test_pictures_of_formats_that_are_not_read_are_counted(image_folder: Path) -> None:
    for place in ("train/circle/a.HEIC", "train/square/b.cr2", "train/.cache.heic"):
        (image_folder / place).write_bytes(b"x")
    (problem,) = check(image_folder)["problems"]
    assert problem["severity"] == "warning"
    assert problem["where"] == ["train/circle/a.HEIC", "train/square/b.cr2"]
    assert problem["what"].startswith(f"2 pictures of {image_folder} are of a format that is not read here")
    assert problem["way_out"] == "To use them, save them as PNG or JPEG."
    checked = check({"data": {"path": image_folder / "val" / "circle", "unlabeled": image_folder / "train"}})
    assert any(each["where"] == ["circle/a.HEIC", "square/b.cr2"] for each in checked["problems"])


def test_unreadable_images_are_all_named(image_folder: Path, run: Run) -> None:
    bad = [image_folder / "train" / "circle" / "01.png", image_folder / "val" / "square" / "02.jpg"]
    for path in bad:
        path.write_bytes(path.read_bytes()[:200])
    checked = check(image_folder)
    (problem,) = checked["problems"]
    assert problem["severity"] == "error"
    assert problem["count"] == 2
    assert problem["where"] == [str(path) for path in bad]
    assert "--data.on_corrupt skip" in problem["way_out"]
    code, told, _ = run("check", image_folder, "--data.on_corrupt", "skip")
    assert code == 0
    assert f"warning: 2 images cannot be read. Image {bad[0]} cannot be read: " in " ".join(told.split())


def test_classes_that_val_lacks_and_tiny_ones_are_named(image_folder: Path) -> None:
    shutil.rmtree(image_folder / "val" / "circle")
    for number in range(4, 8):
        next((image_folder / "train" / "square").glob(f"0{number}*")).unlink()
    checked = check(image_folder)
    assert checked["errors"] == 0
    assert [problem["where"] for problem in checked["problems"]] == [["circle"], ["square"]]


def test_what_others_left_is_named(image_folder: Path) -> None:
    shutil.copytree(image_folder / "val" / "circle", image_folder / "train" / "circle" / "@eaDir")
    (problem,) = check(image_folder)["problems"]
    assert problem["severity"] == "warning"
    assert problem["where"] == ["train/circle/@eaDir"]


def test_images_on_both_sides_are_counted_and_said(image_folder: Path, run: Run) -> None:
    for number in range(3):
        path = next((image_folder / "train" / "circle").glob(f"0{number}.*"))
        shutil.copy(path, image_folder / "val" / "circle" / f"copy{number}{path.suffix}")
    similar = image_folder / "val" / "circle" / "copy0.jpg"
    altered = bytearray(similar.read_bytes())
    altered[-10] ^= 1
    similar.write_bytes(altered)
    (problem,) = check(image_folder)["problems"]
    assert problem["severity"] == "warning"
    assert problem["what"] == "2 of 15 images of val are in train, too, byte for byte."
    assert [Path(name).name for name in problem["where"]] == ["copy1.png", "copy2.jpg"]
    small = ["--student.model", "cifar/resnet8", "--data.size", 16, "--train.epochs", 1, "--data.workers", 0]
    code, _, told = run("train", "--data", image_folder, *small, "--out", "runs/a")
    assert code == 0
    assert "warning  2 of 15 images of val are in train, too" in told


def test_parts_of_one_folder_may_share_images_too(image_folder: Path) -> None:
    for number in range(4):
        path = next((image_folder / "train" / "circle").glob(f"0{number}.*"))
        shutil.copy(path, path.with_name(f"copy{number}{path.suffix}"))
    halves = {"path": image_folder / "train", "val_fraction": 0.5}
    found = [problem["what"] for problem in check({"data": halves})["problems"]]
    assert any("of val are in train, too" in what for what in found)


def test_a_picture_in_two_classes_is_named(image_folder: Path) -> None:
    path = image_folder / "train" / "circle" / "01.png"
    shutil.copy(path, image_folder / "train" / "square" / "99.png")
    (problem,) = check(image_folder)["problems"]
    assert problem["what"] == "1 pictures are in more than one class of train."
    assert problem["where"] == [f"{path} and {image_folder}/train/square/99.png"]


def test_pictures_in_memory_are_compared_by_their_pixels(small_cifar100: Path) -> None:
    splits = load(config.Data(path=small_cifar100))
    assert list(between(splits)) == []
    assert isinstance(splits.train, ArraySet)
    leaked = splits.train.subset(torch.arange(5))
    (problem,) = between(Splits(splits.train, leaked))
    assert problem.count == 5
