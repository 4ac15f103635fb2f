"""What training views are follows from the pictures, wherever these are kept, and stands in the run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.errors import ConfigError, Interrupted, RunError

SHAPES = ("circle", "square", "stripes")
Draw = Callable[..., Image.Image]


def photos(draw: Draw, root: Path, *sizes: tuple[int, int], ending: str = "png") -> Path:
    """Three classes of 8 training and 4 other pictures, of these sizes in turn."""
    for half, count in (("train", 8), ("val", 4)):
        for shape in SHAPES:
            (root / half / shape).mkdir(parents=True)
            for number in range(count):
                picture = draw(shape, 100 * (half == "val") + number, sizes[number % len(sizes)])
                picture.save(root / half / shape / f"{number}.{ending}")
    return root


def scenes(draw: Draw, root: Path) -> Path:
    """Six pictures of 24 x 16 with masks of two classes."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("ground\nthing\n")
    for number in range(6):
        picture = draw("square", number, (24, 16))
        picture.save(root / "images" / f"{number}.png")
        picture.convert("L").point(lambda value: value > 100, "L").save(root / "masks" / f"{number}.png")
    return root


def values(out: Path, folder: Path, **changed: Any) -> dict[str, Any]:
    common: dict[str, Any] = {
        "out": out,
        "data": {"path": folder, "workers": 0},
        "student": {"model": "digits/cnn_4_8"},
        "train": {"epochs": 2, "batch_size": 8, "precision": "fp32", "device": "cpu"},
    }
    return config.merge(common, changed)


def begin(run: dict[str, Any]) -> None:
    """Do a step, and stop with a checkpoint."""
    with pytest.raises(Interrupted):
        counterpoise.train(run, deadline=0.0)


def run_file(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "run.yaml").read_text())
    return found


@pytest.mark.parametrize(
    ("kind", "decided"),
    [
        ("small", {"crop": "pad", "size": [20, 28]}),
        ("damaged", {"crop": "pad", "size": [20, 28]}),
        ("mixed", {"crop": "resized", "size": None}),
        ("scenes", {"size": [16, 24]}),
    ],
)
def test_a_run_is_the_same_wherever_its_pixels_are_kept(
    tmp_path: Path, make_picture: Draw, kind: str, decided: dict[str, Any]
) -> None:
    changed: dict[str, Any] = {}
    if kind == "scenes":
        data = scenes(make_picture, tmp_path / "data")
        changed = {"task": "segmentation", "student": {"model": "digits/unet_4_8"}}
    else:
        data = photos(make_picture, tmp_path / "data", (28, 20), *([(24, 24)] if kind == "mixed" else []))
        if kind == "mixed":
            changed = {"data": {"size": 20}}
        if kind == "damaged":
            changed = {"data": {"on_corrupt": "skip"}}
            file = data / "train" / "circle" / "3.png"
            file.write_bytes(file.read_bytes()[:200])
    results = []
    for limit in (2.0, 0.0):
        run = values(tmp_path / f"limit-{limit}", data, **config.merge(changed, {"data": {"memory_limit_gb": limit}}))
        result = counterpoise.train(run)
        kept = run_file(result.folder)
        section = kept["data"]["scenes" if kind == "scenes" else "views"]
        assert {key: section[key] for key in decided} == decided
        del kept["data"]["memory_limit_gb"]
        results.append((kept | {"out": None}, (result.folder / "student/model.safetensors").read_bytes(), result.last))
    assert results[0] == results[1]


def test_photos_decoded_smaller_make_another_run_which_is_the_same_wherever_they_lie(
    tmp_path: Path, make_picture: Draw
) -> None:
    folder = photos(make_picture, tmp_path / "data", (180, 140), ending="jpg")
    counterpoise.pack(folder, out=tmp_path / "pack")
    results = []
    for data, decode, limit, workers in (
        (folder, "exact", 2.0, 0),
        (folder, "scaled", 2.0, 0),
        (folder, "scaled", 0.0, 2),
        (tmp_path / "pack", "scaled", 2.0, 1),
    ):
        views = {"crop": "resized", "scale": (0.5, 1.0), "decode": decode}
        changed = {"memory_limit_gb": limit, "workers": workers, "size": 20, "views": views}
        run = values(tmp_path / f"run-{len(results)}", data, data=changed)
        results.append((counterpoise.train(run).folder / "student/model.safetensors").read_bytes())
    exact, *scaled = results
    assert scaled[0] == scaled[1] == scaled[2] != exact
    begin(run | {"out": tmp_path / "begun"})
    other = config.merge(run, {"out": tmp_path / "begun", "data": {"views": {"decode": "exact"}}})
    with pytest.raises(RunError, match=r"data.views.decode: 'scaled' there, 'exact' given"):
        counterpoise.train(other, resume=True)


def test_what_was_decided_is_what_a_run_goes_on_with(tmp_path: Path, make_picture: Draw) -> None:
    data = photos(make_picture, tmp_path / "data", (28, 20))
    result = counterpoise.train(values(tmp_path / "whole", data))
    begin(values(tmp_path / "run", data))
    again = values(tmp_path / "run", data, data={"memory_limit_gb": 0.0})
    with pytest.raises(RunError, match=r"data.views.crop: 'pad' there, 'resized' given"):
        counterpoise.train(config.merge(again, {"data": {"views": {"crop": "resized"}}}), resume=True)
    assert counterpoise.train(again, resume=True).last == result.last


@pytest.mark.parametrize(("limit", "goes_on"), [(2.0, True), (0.0, False)])
def test_a_run_that_left_it_open_goes_on_where_it_was_shown_the_same(
    tmp_path: Path, make_picture: Draw, limit: float, goes_on: bool
) -> None:
    data = photos(make_picture, tmp_path / "data", (28, 20))
    run = values(tmp_path / "run", data, data={"memory_limit_gb": limit})
    begin(run)
    file = tmp_path / "run/run.yaml"
    older = run_file(file.parent)  # as versions that decided while they trained wrote it
    older["data"]["views"] |= {"crop": "auto"}
    older["data"]["views"].pop("size")
    file.write_text(yaml.safe_dump(older))
    if goes_on:
        whole = counterpoise.train(config.merge(run, {"out": tmp_path / "whole"}))
        assert counterpoise.train(run, resume=True).last == whole.last
        return
    with pytest.raises(RunError, match=r"(?s)earlier version.*resized.*another --out"):
        counterpoise.train(run, resume=True)


def test_two_sizes_for_one_view_are_refused(tmp_path: Path, make_picture: Draw) -> None:
    data = photos(make_picture, tmp_path / "data", (28, 20))
    with pytest.raises(ConfigError, match=r"data.views.size \(20 x 28\) and data.size \(16\)"):
        counterpoise.train(values(tmp_path / "run", data, data={"size": 16, "views": {"size": [20, 28]}}))
    with pytest.raises(ConfigError, match=r"crop pad shows pictures as squares or in their own size, got 10 x 28"):
        counterpoise.train(values(tmp_path / "run", data, data={"views": {"size": [10, 28]}}))
