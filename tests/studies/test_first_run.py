"""A run file for a folder that was looked at: it says why, and it runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import counterpoise
from counterpoise import config
from counterpoise.errors import CounterpoiseError
from counterpoise.models.network import VisionModel
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


def test_what_a_step_keeps_is_what_its_layers_keep() -> None:
    """A convolution keeps its input, a ReLU its output, pooling and the classifier one number a channel each."""
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    network = VisionModel(nn.Sequential(*layers), name="layers", num_classes=5)
    found = bytes_a_picture(network, (16, 16))
    least = 4 * 16 * 16 * (3 + 8)
    assert least <= found < 1.6 * least  # and what normalizes the picture
    assert bytes_a_picture(network, (32, 32)) == pytest.approx(4 * found, rel=0.05)
    assert not any(isinstance(value, torch.Tensor) and value.requires_grad for value in network.buffers())
