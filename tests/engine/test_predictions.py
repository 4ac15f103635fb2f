"""What `predict` answers: pictures, folders of them, data sets; and what cannot be read."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import counterpoise
from counterpoise.errors import CorruptImage, DataError

Run = Callable[..., tuple[int, str, str]]
Draw = Callable[..., Any]


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory, make_picture: Draw) -> Path:
    """A run on photos of circles and squares, in shapes/ beside it."""
    root = tmp_path_factory.mktemp("predicting")
    for half, count in (("train", 6), ("val", 3)):
        for shape in ("circle", "square"):
            folder = root / "shapes" / half / shape
            folder.mkdir(parents=True)
            for number in range(count):
                make_picture(shape, number + 50 * (half == "val")).save(folder / f"{number}.png")
    train = {"epochs": 1, "device": "cpu", "precision": "fp32"}
    counterpoise.train(
        {
            "data": {"path": str(root / "shapes"), "size": 32},
            "student": {"model": "cifar/resnet8", "input_size": 32},
            "train": train,
            "out": str(root / "run"),
        }
    )
    return root / "run"


def test_a_folder_is_answered_picture_by_picture(run: Run, student: Path, make_picture: Draw, tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.jpg", "2.png", ".hidden/3.png"):
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make_picture("circle", 9).save(path)
    (tmp_path / "mine" / "notes.txt").write_text("no picture")
    code, out, _ = run("predict", "mine", "mine/2.png", "--student", student, "--json")
    assert code == 0
    answers = json.loads(out)
    names = ["mine/2.png", "mine/a/1.png", "mine/b/1.jpg", "mine/2.png"]
    assert [answer["image"] for answer in answers] == names
    assert {**answers[0]} == {"image": "mine/2.png", **counterpoise.load_student(student).predict(["mine/2.png"])[0]}
    (tmp_path / "empty").mkdir()
    code, _, error = run("predict", "empty", "--student", student)
    assert (code, "empty holds no pictures" in error) == (2, True)


def test_the_pictures_of_data_are_answered_beside_the_truth(run: Run, student: Path) -> None:
    code, out, _ = run("predict", "--data", student / "run.yaml", "--student", student, "--json")
    assert code == 0
    answers = json.loads(out)
    assert [answer["truth"] for answer in answers] == 3 * ["circle"] + 3 * ["square"]
    right = sum(answer["truth"] == answer["class"] for answer in answers)
    report = counterpoise.evaluate(student)
    assert 100 * right / 6 == pytest.approx(report["top1"])
    code, out, _ = run("predict", "--data", student / "run.yaml", "--first", "2", "--student", student)
    pictures = set(re.findall(r"\S+\.png", out))  # a long path has further columns below it, and stands again there
    assert (code, "truth" in out, len(pictures)) == (0, True, 2)


def test_answers_as_csv_have_a_row_a_picture(run: Run, student: Path) -> None:
    code, out, _ = run("predict", student.parent / "shapes" / "val", "--student", student, "--csv")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 6
    assert list(rows[0]) == ["image", "class", "probability", "class_2", "probability_2"]
    assert all(float(row["probability"]) + float(row["probability_2"]) == pytest.approx(1) for row in rows)
    code, _, error = run("predict", student.parent, "--student", student, "--csv", "--json")
    assert (code, "one of them" in error) == (2, True)


def test_a_damaged_picture_is_named_and_the_others_are_answered(
    run: Run, student: Path, make_picture: Draw, tmp_path: Path
) -> None:
    for name in ("1.png", "3.png"):
        make_picture("square", 4).save(tmp_path / name)
    Path("2.png").write_bytes(Path("1.png").read_bytes()[:60])
    files = ["1.png", "2.png", "3.png"]
    code, out, error = run("predict", *files, "--student", student, "--json")
    assert code == 2
    assert "1 of 3 pictures cannot be read:\n  2.png: " in error
    answers = json.loads(out)
    assert [answer["image"] for answer in answers] == files
    assert ["error" in answer for answer in answers] == [False, True, False]
    code, out, _ = run("predict", *files, "--student", student, "--csv")
    assert [bool(row["error"]) for row in csv.DictReader(io.StringIO(out))] == [False, True, False]
    shown = run("predict", *files, "--student", student)[1]
    assert [name in shown for name in files] == [True, False, True]
    with pytest.raises(CorruptImage, match=r"2\.png"):
        counterpoise.predict(["2.png"], student)
    refusal = run("predict", "2.png", "--student", student)
    assert refusal[0] == 2
    assert "2.png cannot be read" in refusal[2]


@pytest.mark.parametrize("kind", ["text", "path", "bytes", "image", "array", "gray", "tensor"])
def test_one_picture_is_a_list_of_one(
    student: Path, make_picture: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The name as text was a list of its letters, each of which may be a picture or a folder of them."""
    monkeypatch.chdir(tmp_path)
    for letter in "ab":
        Path(letter).mkdir()
        make_picture("square", 3).save(f"{letter}/1.png")
    picture = make_picture("circle", 9).convert("L").convert("RGB")
    picture.save("ab", "png")
    pixels = np.asarray(picture)
    asked: dict[str, Any] = {
        "text": "ab",
        "path": Path("ab"),
        "bytes": Path("ab").read_bytes(),
        "image": picture,
        "array": pixels,
        "gray": pixels[..., 0],
        "tensor": torch.from_numpy(pixels.copy()).permute(2, 0, 1),
    }
    loaded = counterpoise.load_student(student)
    (expected,) = loaded.predict([picture])
    assert loaded.predict(asked[kind]) == [expected]
    name = "ab" if kind in ("text", "path") else "picture 0"
    assert counterpoise.predict(asked[kind], student) == [{"image": name, **expected}]


def test_several_pictures_in_one_array_are_several(student: Path, make_picture: Draw) -> None:
    gray = np.stack([np.asarray(make_picture(shape, 9).convert("L")) for shape in ("circle", "square")])
    loaded = counterpoise.load_student(student)
    assert loaded.predict(gray) == loaded.predict([*gray]) == loaded.predict(np.stack([gray] * 3, -1))
    for wrong in (7, None):
        with pytest.raises(DataError, match=f"a {type(wrong).__name__}; expected a list of paths"):
            loaded.predict(wrong)


def test_masks_are_painted_for_all_pictures_but_the_damaged(run: Run, make_picture: Draw, tmp_path: Path) -> None:
    data = {"source": "digit_scenes", "options": {"train_size": 4, "val_size": 2}}
    train = {"epochs": 1, "device": "cpu", "precision": "fp32"}
    values = {"task": "segmentation", "data": data, "student": {"model": "digits/unet_4_8"}, "train": train}
    counterpoise.train({**values, "out": "dense"})
    (tmp_path / "mine").mkdir()
    make_picture("circle", 1, (64, 64)).save("mine/1.png")
    Path("mine/2.png").write_bytes(b"")
    code, out, error = run("predict", "mine", "--student", "dense", "--out", "painted", "--json")
    assert (code, "mine/2.png" in error) == (2, True)
    assert [Path(answer["mask"]).is_file() for answer in json.loads(out) if "error" not in answer] == [True]
    code, out, _ = run("predict", "mine/1.png", "--student", "dense", "--csv")
    row = next(csv.DictReader(io.StringIO(out)))
    assert (row["height"], row["width"]) == ("64", "64")
    assert sum(float(value) for key, value in row.items() if key.startswith("share ")) == pytest.approx(1)
    dense, one = counterpoise.load_student("dense"), "mine/1.png"
    assert dense.predict(one) == dense.predict(Path(one).read_bytes()) == dense.predict([one])
    code, out, _ = run("predict", "--data", "dense/run.yaml", "--student", "dense", "--json")
    assert (code, len(json.loads(out))) == (0, 2)
