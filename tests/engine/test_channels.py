"""Runs on pictures of other than three channels, from files to what is shipped."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import counterpoise
from counterpoise.data.images import pixels_of
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.decoding import Reading
from counterpoise.deploy import base, runner
from counterpoise.errors import ConfigError, CounterpoiseError, ModelError
from counterpoise.models import catalog, first_layer
from counterpoise.system import own_code


def folder(root: Path, channels: int, ending: str) -> Path:
    """Two classes of squares, in the first band or in the last: {train,val}/{first,last}/."""
    rng = np.random.default_rng(channels)
    for half, count in (("train", 8), ("val", 4)):
        for label, name in enumerate(("first", "last")):
            (root / half / name).mkdir(parents=True)
            for number in range(count):
                picture = rng.integers(0, 60, (12, 12, channels), dtype=np.uint8)
                top, left = rng.integers(1, 6, 2)
                picture[top : top + 5, left : left + 5, -label] += 190
                path = root / half / name / f"{number}{ending}"
                if ending == ".tif":
                    tifffile.imwrite(path, picture, photometric="minisblack", planarconfig="contig")
                elif ending == ".npy":
                    np.save(path, picture.astype(np.uint16) * 257)
                else:
                    Image.fromarray(picture).save(path)
    return root


def run(data: Path, out: Path, channels: int, model: str = "digits/cnn_4_8", **further: Any) -> dict[str, Any]:
    return {
        "data": {"path": str(data), "channels": channels, "workers": 0},
        "student": {"model": model},
        "train": {"epochs": 1, "batch_size": 4, "device": "cpu"},
        "out": str(out),
        **further,
    }


@pytest.mark.parametrize(("channels", "ending"), [(4, ".png"), (2, ".npy")])
def test_files_and_their_pack_make_the_same_student(tmp_path: Path, channels: int, ending: str) -> None:
    data = folder(tmp_path / "data", channels, ending)
    trained = run(data, tmp_path / "run", channels)
    counterpoise.train(trained)
    student = counterpoise.load_student(tmp_path / "run")
    assert student.channels == len(student.normalization["mean"]) == channels
    counterpoise.pack(trained, out=tmp_path / "pack")
    counterpoise.train({**run(tmp_path / "pack", tmp_path / "packed", channels)})
    assert counterpoise.load_student(tmp_path / "packed").weights_hash() == student.weights_hash()


@pytest.mark.slow
def test_a_teacher_its_store_and_the_export_of_a_student_agree(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", 6, ".tif")
    intensity = {"intensity": {"percentiles": [1, 99.5]}}
    taught = run(data, tmp_path / "teacher", 6)
    result = counterpoise.train({**taught, "data": {**taught["data"], **intensity}})
    learned = run(data, tmp_path / "run", 6, teacher={"checkpoint": str(tmp_path / "teacher")})
    learned["data"] |= intensity
    counterpoise.record({**learned, "out": None}, out=tmp_path / "store")
    assert counterpoise.distill(learned).teacher["top1"] == result.last["top1"]
    stored = run(data, tmp_path / "stored", 6, teacher={"store": str(tmp_path / "store")})
    with pytest.raises(CounterpoiseError, match="intensity"):
        counterpoise.distill(stored)
    stored["data"] |= intensity
    counterpoise.distill(stored)

    picture = data / "val" / "last" / "0.tif"
    told, given = counterpoise.predict([picture, tifffile.imread(picture)], student=tmp_path / "run")
    assert told["top"] == given["top"]
    described = json.loads((tmp_path / "run" / "student" / "student.json").read_text())
    assert (described["format"], described["input"]["intensity"]) == (2, {"percentiles": [1.0, 99.5]})
    assert "by percentiles 1 to 99.5 (`data.intensity`)" in (tmp_path / "run" / "student" / "README.md").read_text()
    scores = counterpoise.evaluate(tmp_path / "run")
    assert counterpoise.evaluate(tmp_path / "run" / "student", data=data)["loss"] == pytest.approx(scores["loss"])
    assert counterpoise.gauge(tmp_path / "run")["positions"] == 8
    found = counterpoise.export(tmp_path / "run", to="onnx", out=tmp_path / "export")
    assert found["agreement"]["same"] == 100
    assert counterpoise.verify(tmp_path / "export")
    load = base.find("onnx").load
    with contextlib.redirect_stdout(io.StringIO()) as said:
        arguments = [str(picture.parent)]
        assert runner.main(tmp_path / "export", "export.json", "model.onnx", runner.top_five, load, arguments) == 0
    lines = said.getvalue().split("\n")
    first = next(index for index, line in enumerate(lines) if str(picture) in line)
    assert lines[first + 1].split() == [f"{told['probability']:.4f}", told["class"]]
    for call in (
        lambda: counterpoise.try_(tmp_path / "run", out=tmp_path / "site"),
        lambda: counterpoise.pack(learned, out=tmp_path / "pack", shorter=8),
    ):
        with pytest.raises(ConfigError, match=r"data\.intensity"):
            call()


def test_timm_reads_a_student_of_four_channels_with_its_own_first_layer(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", 4, ".png")
    counterpoise.train(run(data, tmp_path / "run", 4, student={"model": "timm/test_resnet", "input_size": 32}))
    student = counterpoise.load_student(tmp_path / "run")  # first: it readies timm's import
    import timm

    net = timm.create_model(f"local-dir:{tmp_path}/run/student", pretrained=True).eval()
    images = torch.rand(2, 4, 32, 32)
    with torch.inference_mode():
        assert torch.equal(net(images), student.net(images))
    assert (
        json.loads((tmp_path / "run" / "student" / "config.json").read_text())["pretrained_cfg"]["input_size"][0] == 4
    )


def test_weights_for_three_channels_start_a_student_and_are_no_teacher(
    tmp_path: Path,
) -> None:
    digits = {"data": {"source": "digits"}, "train": {"epochs": 1}}
    counterpoise.train({**digits, "student": {"model": "digits/cnn_4_8"}, "out": str(tmp_path / "rgb")})
    data = folder(tmp_path / "data", 4, ".png")
    with pytest.raises(ModelError, match=r"is for pictures of 3 channels, and these have 4"):
        counterpoise.distill(run(data, tmp_path / "no", 4, teacher={"checkpoint": str(tmp_path / "rgb")}))
    counterpoise.train(run(data, tmp_path / "four", 4, student={"checkpoint": str(tmp_path / "rgb")}))
    notes = json.loads((tmp_path / "four" / "data.json").read_text())["notes"]
    assert any("in the first layer, features.stage1.0.weight" in note for note in notes)
    with pytest.raises(ModelError, match=r"is for pictures of 4 channels, and these have 3"):
        counterpoise.train({**digits, "student": {"checkpoint": str(tmp_path / "four")}, "out": str(tmp_path / "x")})
    y, in_chans = tmp_path / "y", {"model": "timm/test_resnet", "arguments": {"in_chans": 3}}
    with pytest.raises(CounterpoiseError, match=r"channels|needs the extra .openvino."):
        counterpoise.export(tmp_path / "four", to="openvino")
    for call in (
        lambda: counterpoise.try_(tmp_path / "four", out=tmp_path / "site"),
        lambda: counterpoise.pack(run(data, y, 4), out=tmp_path / "pack", shorter=8),
        lambda: counterpoise.train(run(data, y, 4, student=in_chans)),
        lambda: counterpoise.train({**run(data, y, 4), "data": {"source": "digits", "channels": 4}}),
    ):
        with pytest.raises(CounterpoiseError, match="channels"):
            call()


def test_gray_pictures_and_arrays_in_memory(tmp_path: Path) -> None:
    base = {"student": {"model": "digits/cnn_4_8"}, "train": {"epochs": 1}}
    counterpoise.train({**base, "data": {"source": "digits", "channels": 1}, "out": str(tmp_path / "gray")})
    assert counterpoise.evaluate(tmp_path / "gray")["images"] > 100
    images = torch.randint(0, 256, (8, 5, 8, 8), dtype=torch.uint8)
    halves = Splits(*(ArraySet(images, torch.arange(8) % 2, ["a", "b"]) for _ in "ab"))
    counterpoise.train({**base, "data": {"channels": 5}, "out": str(tmp_path / "five")}, data=halves)
    with pytest.raises(ConfigError, match=r"have 5 channels, and data\.channels is 3"):
        counterpoise.train({**base, "out": str(tmp_path / "x")}, data=halves)


def test_own_code_is_called_with_in_chans_where_it_takes_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net(num_classes, in_chans=3):\n"
        "    pool = nn.AdaptiveAvgPool2d(1), nn.Flatten()\n"
        "    return nn.Sequential(nn.Conv2d(in_chans, 4, 3), *pool, nn.Linear(4, num_classes))\n"
        "def fixed(num_classes):\n    return net(num_classes)\n"
    )
    for function in ("net", "fixed"):
        own_code.name(f"{tmp_path}/mine.py:{function}")
    built = catalog.build(f"{tmp_path}/mine.py:net", num_classes=2, channels=7)
    assert built(torch.zeros(1, 7, 16, 16, dtype=torch.uint8)).shape == (1, 2)
    with pytest.raises(ModelError, match=r"fails on an image \[1, 7, 64, 64\]"):
        catalog.build(f"{tmp_path}/mine.py:fixed", num_classes=2, channels=7)
    with pytest.raises(ModelError, match="mean and std need 7 finite numbers"):
        catalog.build(f"{tmp_path}/mine.py:net", num_classes=2, channels=7, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize("channels", [1, 2, 4, 8])
def test_a_first_layer_is_adapted_as_timm_adapts_it(channels: int) -> None:
    from timm.models import adapt_input_conv

    weight = torch.randn(4, 3, 3, 3)
    assert torch.allclose(first_layer.widened(weight, channels), adapt_input_conv(channels, weight))


@pytest.mark.parametrize("name", ["torchvision/mobilenet_v3_small", "torchvision/squeezenet1_1", "cifar/shufflenetv2"])
def test_networks_of_libraries_take_other_channels(name: str) -> None:
    model = catalog.build(name, num_classes=2, channels=5).eval()
    assert model(torch.zeros(1, 5, 64, 64, dtype=torch.uint8)).shape == (1, 2)
    assert pixels_of(np.zeros((4, 4, 5), np.uint8), reading=Reading(channels=5)).shape == (5, 4, 4)
