"""`counterpoise check`: all problems of a folder at once, with the way out of each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from counterpoise import check

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
    assert "warning: 2 images cannot be read" in told


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
