"""A run file for a folder that was looked at: it says why, and it runs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import counterpoise
from counterpoise import config
from counterpoise.engine import rehearsing
from counterpoise.errors import CounterpoiseError
from counterpoise.models.network import VisionModel
from counterpoise.studies import first_run
from counterpoise.studies.first_run import bytes_a_picture

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photos(tmp_path: Path, make_picture: Callable[..., Image.Image], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three folders of pictures of about 90 x 72."""
    monkeypatch.chdir(tmp_path)
    for number in range(24):
        shape = ("circle", "square", "stripes")[number % 3]
        (tmp_path / "my photos" / shape).mkdir(parents=True, exist_ok=True)
        make_picture(shape, number, (90 + number % 2, 72)).save(tmp_path / "my photos" / shape / f"{number}.png")
    return tmp_path / "my photos"


def test_a_folder_of_photos_becomes_a_run_file_that_runs(run: Run, photos: Path) -> None:
    code, out, err = run("init", "my photos", "--student", "digits/cnn_4_8", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["out"] == "my photos.yaml"
    assert told["next"][-1] == "counterpoise train 'my photos.yaml'"
    written = Path("my photos.yaml").read_text()
    keys = [line for line in written.splitlines() if re.search(r"\w: \S", line) and not line.lstrip().startswith("#")]
    assert len([line for line in keys if "# " in line]) >= len(keys) - 2  # but for paths each says why
    values = config.read(Path("my photos.yaml"))
    assert (values["task"], values["data"]["size"], values["train"]["batch_size"]) == ("classification", 64, 4)
    assert values["objective"] == {"cross_entropy": {"weight": 1}}
    few = ("--train.epochs", "1", "--train.device", "cpu", "--data.workers", "0", "--quiet")
    code, _, err = run("train", "my photos.yaml", *few)
    assert code == 0, err
    code, out, _ = run("init", "my photos", "--teacher", "runs/my photos", "--overwrite", "--json")
    assert code == 0
    assert json.loads(out)["next"][-1] == "counterpoise distill 'my photos.yaml'"
    values = config.read(Path("my photos.yaml"))
    assert values["teacher"] == {"checkpoint": "runs/my photos"}
    assert set(values["objective"]) == {"cross_entropy", "balance"}
    assert values["student"]["model"] == "timm/mobilenetv3_small_100"


def test_scenes_and_tiny_pictures_get_a_task_and_a_student_of_their_own(tmp_path: Path) -> None:
    for number in range(12):
        for kind, mode in (("images", "RGB"), ("masks", "L")):
            (tmp_path / "scenes" / kind).mkdir(parents=True, exist_ok=True)
            Image.new(mode, (100, 70), number % 2).save(tmp_path / "scenes" / kind / f"{number}.png")
        (tmp_path / "tiny" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / "tiny" / "ab"[number % 2] / f"{number}.png")
    (tmp_path / "scenes" / "classes.txt").write_text("ground\nthing\n")
    counterpoise.init(tmp_path / "scenes", out=tmp_path / "scenes.yaml")
    values = config.read(tmp_path / "scenes.yaml")
    assert values["task"] == "segmentation"
    assert values["data"]["scenes"]["size"] == [64, 96]
    assert values["student"]["model"].startswith("smp/")
    counterpoise.init(tmp_path / "tiny", out=tmp_path / "tiny.yaml")
    assert config.read(tmp_path / "tiny.yaml")["student"]["model"] == "cifar/resnet20"


def test_what_is_there_is_not_replaced_and_what_is_not_there_is_said(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, _, err = run("init", "empty")
    assert code == 2
    assert "Error: " in err
    assert not Path("empty.yaml").exists()
    Path("empty.yaml").write_text("mine")
    code, _, err = run("init", "empty")
    assert code == 2
    assert "is there already: give --overwrite" in err
    assert Path("empty.yaml").read_text() == "mine"
    (tmp_path / "album").mkdir()
    for number in range(10):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / "album" / f"{number}.png")
    with pytest.raises(CounterpoiseError, match=r"have no labels.* \(docs/teachers\.md\)"):
        counterpoise.init(tmp_path / "album")
    with pytest.raises(CounterpoiseError, match="nowhere"):
        counterpoise.init(tmp_path / "nowhere")


@pytest.mark.parametrize("count", [2, 3, 5, 9, 33])
def test_what_is_written_trains_however_few_pictures_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rehearsing, "STEPS", 1)
    for part, several in (("train", count), ("val", 2)):
        for number in range(several):
            (tmp_path / "tiny" / part / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (7 * number, 0, 0)).save(
                tmp_path / "tiny" / part / "ab"[number % 2] / f"{number}.png"
            )
    counterpoise.init("tiny", student="timm/test_resnet")
    values = config.read(Path("tiny.yaml"))
    values |= {"data": {**values["data"], "workers": 0}, "student": {**values["student"], "input_size": 16}}
    values["train"] |= {"device": "cpu", "precision": "fp32"}
    assert values["train"]["batch_size"] >= 2
    assert counterpoise.check(values)["rehearsal"]["steps_in_all"] > 0
    assert values["train"].get("drop_last", False) == (count % values["train"]["batch_size"] == 1)


def test_the_reason_for_a_batch_is_the_one_that_holds(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counterpoise.init(photos, student="digits/cnn_4_8", out="few.yaml")
    assert "few pictures, small batches; a step keeps" in Path("few.yaml").read_text()
    monkeypatch.setattr(first_run, "_memory", lambda: 1e6)
    counterpoise.init(photos, student="digits/cnn_4_8", out="large.yaml")
    assert re.search(
        "batch_size: 2 .*MB of activations, of 0 GB: more would be too many", Path("large.yaml").read_text()
    )


def test_a_teacher_is_there_or_has_published_weights(photos: Path, run: Run) -> None:
    for given, said in (
        ("nonsense", "Model 'nonsense' names no family"),
        ("timm/resnet5", "Did you mean 'resnet50'"),
        ("digits/cnn_4_8", "has no published weights, and a teacher needs some"),
    ):
        code, _, error = run("init", photos, "--student", "digits/cnn_4_8", "--teacher", given)
        assert (code, said in error) == (2, True), error
        assert not Path("my photos.yaml").exists()
    counterpoise.init(photos, student="digits/cnn_4_8", teacher="timm/resnet18.a1_in1k")
    assert config.read(Path("my photos.yaml"))["teacher"] == {"model": "timm/resnet18.a1_in1k", "pretrained": True}


def test_names_of_folders_are_written_as_they_are_or_refused(photos: Path, run: Run) -> None:
    strange = photos.with_name("a\nb: c # d")
    photos.rename(strange)
    counterpoise.init(strange, student="digits/cnn_4_8", out="strange.yaml")
    assert config.read(Path("strange.yaml"))["data"]["path"] == str(strange)
    no_text = os.fsdecode(os.fsencode(photos) + b"\xff")
    strange.rename(no_text)
    code, _, error = run("init", no_text)
    assert (code, "is no text in UTF-8, as a run file is: rename the folder" in error) == (2, True)


def test_advice_is_for_this_kind_of_data_and_options_that_init_does_not_take_have_another_place(
    photos: Path, run: Run
) -> None:
    counterpoise.init(photos, student="digits/cnn_4_8")
    assert "a folder val/ takes its place" in Path("my photos.yaml").read_text()
    rows = [f"{path.relative_to(photos.parent)},{path.parent.name}" for path in sorted(photos.rglob("*.png"))]
    table = photos.parent / "table.csv"
    table.write_text("\n".join(["file,label", *rows]))
    counterpoise.init(table, student="digits/cnn_4_8")
    assert "val/" not in Path("table.yaml").read_text()
    table.write_text("\n".join(["file,one,two", *(f"{row},{row[-1]}" for row in rows)]))
    code, _, error = run("init", table, "--overwrite")
    assert (code, "init takes no options of data: try them with counterpoise check" in error) == (2, True), error


def test_what_a_step_keeps_is_what_its_layers_keep() -> None:
    """A convolution keeps its input, a ReLU its output, pooling and the classifier one number a channel each."""
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    network = VisionModel(nn.Sequential(*layers), name="layers", num_classes=5)
    found = bytes_a_picture(network, (16, 16))
    least = 4 * 16 * 16 * (3 + 8)
    assert least <= found < 1.6 * least  # and what normalizes the picture
    assert bytes_a_picture(network, (32, 32)) == pytest.approx(4 * found, rel=0.05)
    assert not any(isinstance(value, torch.Tensor) and value.requires_grad for value in network.buffers())
