"""What is meant by the data that a student is scored on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Command = Callable[..., tuple[int, str, str]]
FAST = ["--train.epochs", "1", "--train.precision", "fp32", "--train.device", "cpu", "--quiet"]
NET = ["--student.model", "digits/cnn_4_8", "--out", "student"]


def scored(run: Command, **data: Any) -> dict[str, Any]:
    Path("other.yaml").write_text(yaml.safe_dump({"data": data}))
    code, out, err = run("evaluate", "student", "--data", "other.yaml", "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.fixture
def folder(image_folder: Path) -> Path:
    """The training pictures of shapes, 8 a class, in no halves."""
    return image_folder / "train"


def test_images_that_a_student_was_trained_on_are_counted_where_a_folder_is_divided_otherwise(
    run: Command, folder: Path
) -> None:
    own = {"path": str(folder), "val_fraction": 0.25, "size": 16}
    Path("own.yaml").write_text(yaml.safe_dump({"data": own}))
    assert run("train", "own.yaml", *NET, *FAST)[0] == 0
    assert "trained_on" not in scored(run, **own)
    assert "trained_on" not in json.loads(run("evaluate", "student", "--data", folder, "--json")[1])

    held_out = set(names_of(own))
    other = {**own, "split_seed": 1}
    shared = len(set(names_of(other)) - held_out)
    assert 0 < shared <= 6
    assert scored(run, **other)["trained_on"] == shared
    (folder.parent / "link").symlink_to(folder)
    assert scored(run, **{**other, "path": str(folder.parent / "link")})["trained_on"] == shared
    assert f"was trained on {shared} of these images" in run("evaluate", "student", "--data", "other.yaml")[1]
    for command in (
        ["export", "student", "--to", "onnx"],
        ["verify", "student/exports/onnx-float32", "--student", "student"],
    ):
        code, out, err = run(*command, "--data", "other.yaml")
        assert (code, f"was trained on {shared} of these images" in " ".join(out.split())) == (0, True), err
    code, out, _ = run("verify", "student", "--data", "other.yaml", "--json")
    assert (code, json.loads(out)["trained_on"]) == (0, shared)
    assert "trained_on" not in json.loads(run("verify", "student", "--json")[1])
    code, out, _ = run("gauge", "student", "--data", "other.yaml", "--teacher.checkpoint", "student", "--json")
    assert (code, json.loads(out)["trained_on"]) == (0, shared)


def names_of(data: dict[str, Any]) -> list[str]:
    from counterpoise.config import Data
    from counterpoise.data import sources

    images = sources.load(Data(**data)).val
    return [images.name(index) for index in range(len(images))]


def test_images_in_memory_are_known_by_their_pixels(run: Command) -> None:
    own = ["--data.source", "digits", "--data.options.train_size", "1700"]
    assert run("train", *own, *NET, *FAST)[0] == 0
    assert "trained_on" not in scored(run, source="digits", options={"train_size": 1700})
    found = scored(run, source="digits", options={"train_size": 1700}, split_seed=1)
    assert 60 < found["trained_on"] <= found["images"] == 97


def test_pictures_elsewhere_are_no_concern_of_the_run(run: Command, folder: Path, image_folder: Path) -> None:
    assert run("train", "--data.path", folder, "--data.size", "16", *NET, *FAST)[0] == 0
    assert "trained_on" not in scored(run, path=str(image_folder / "val"), size=16)
    whole = scored(run, path=str(image_folder), size=16)  # its val lies beside what was trained on
    assert (whole["images"], "trained_on" in whole) == (12, False)
