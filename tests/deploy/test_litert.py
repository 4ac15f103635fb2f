"""Exports to LiteRT, which runs in an environment of its own. Making that takes minutes: those tests are slow."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import counterpoise
from counterpoise.deploy import base, environments, folder, litert_worker
from counterpoise.deploy.base import Calibration, Request
from counterpoise.errors import CounterpoiseError, ExportError, RunError
from counterpoise.models import catalog

LITERT = base.FORMATS.get("litert")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    """LiteRT's environment: the one of this user, or one made now."""
    try:
        base.converter("litert")  # opening an export takes no more than the runtime
    except CounterpoiseError:
        os.environ[environments.VARIABLE] = str(tmp_path_factory.mktemp("environments"))
        LITERT.make_environment()


def pixels(count: int, height: int, width: int) -> Tensor:
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)


def network(name: str, classes: int, size: int | None) -> nn.Module:
    torch.manual_seed(0)
    return catalog.build(name, num_classes=classes, input_size=size, std=(0.2, 0.3, 0.4)).eval()


def test_without_its_environment_the_command_says_how_it_is_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path / "none"))
    code, _, err = run("export", tmp_path, "--to", "litert")
    assert code == 2
    assert f"--make-environment makes it in {tmp_path / 'none' / 'litert'}" in " ".join(err.split())
    code, _, err = run("export", tmp_path, "--to", "onnx", "--make-environment")
    assert (code, "--to onnx needs no environment of its own" in " ".join(err.split())) == (2, True)


def test_arrays_go_through_a_pipe(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)[:, :, ::2]
    with (tmp_path / "pipe").open("wb") as stream:
        litert_worker.send(stream, array)
        litert_worker.send(stream, array.astype(np.float32))
    with (tmp_path / "pipe").open("rb") as stream:
        assert np.array_equal(litert_worker.receive(stream), array)
        assert litert_worker.receive(stream).dtype == np.float32
        assert litert_worker.receive(stream) is None


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
def test_students_of_both_tasks_are_exported_and_verified(digits_run: Path, scenes_run: Path, run: Run) -> None:
    for place in (digits_run, scenes_run):
        code, _, err = run("export", place, "--to", "litert", "--json")
        assert (code, err) == (0, "")
        found = folder.read(place / "exports" / "litert-float32").agreement
        assert found is not None
        assert (found["same"], found["largest_difference"] < 1e-4) == (100, True)
        code, _, err = run("verify", place / "exports" / "litert-float32")
        assert (code, err) == (0, "")
    export = digits_run / "exports" / "litert-float32"
    content = (export / "model.tflite").read_bytes()
    assert json.dumps(list("0123456789")).encode() in content

    picture = digits_run / "picture.png"
    Image.fromarray(pixels(1, 8, 8)[0].permute(1, 2, 0).numpy()).save(picture)
    (measured,) = counterpoise.measure([export], threads=[1], rounds=6, seconds=0.01)["measured"]
    assert measured["cases"][0]["median_ms"] > 0
    command = [LITERT.python, export / "run.py", picture]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environments.outside())
    assert done.stdout.split()[1] in set("0123456789")


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
def test_masks_of_questions_are_those_of_predict(tmp_path: Path) -> None:
    asked = {"round": ["0", "6", "8", "9"], "even one": ["0", "2", "4", "6", "8"]}
    options = {"train_size": 24, "val_size": 6, "edge": 32}
    values = {
        "task": "multilabel_segmentation",
        "data": {"source": "digit_scenes", "options": options, "questions": asked, "workers": 0},
        "student": {"model": "digits/unet_4_8"},
        "train": {"epochs": 2, "batch_size": 8, "device": "cpu", "precision": "fp32"},
        "out": str(tmp_path / "run"),
    }
    student = counterpoise.train(values).folder
    picture = tmp_path / "scene.png"
    Image.fromarray(pixels(1, 32, 32)[0].permute(1, 2, 0).numpy()).save(picture)
    for kind in ("float32", "int8"):
        made = counterpoise.export(student, to="litert", out=tmp_path / kind, precision=kind)
        assert made["agreement"]["same"] > (99.99 if kind == "float32" else 95)
        assert tuple(made["thresholds"]) == counterpoise.load_student(student).thresholds
    command = [LITERT.python, tmp_path / "float32" / "run.py", picture, "--out", tmp_path / "mask.png"]
    subprocess.run(command, capture_output=True, text=True, check=True, env=environments.outside())
    (answer,) = counterpoise.predict([picture], student=student, out=tmp_path / "out")
    for name, expected in zip(("round", "even-one"), answer["masks"], strict=True):
        found = np.asarray(Image.open(tmp_path / f"{name}-mask.png"))
        assert np.array_equal(found, np.asarray(Image.open(expected)))


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
def test_eight_bits_keep_what_they_are_told_to(tmp_path: Path) -> None:
    net, shown = network("digits/cnn_8_16", 10, 8), pixels(8, 8, 8)
    with torch.inference_mode():
        expected = net(shown).numpy()
    sizes = {}
    for keep in ((), ("net.features.stage2.0",), ("net.classifier",)):
        LITERT.quantize(net, Request("int8", (8, 8), 2), {}, tmp_path, Calibration(shown, keep=keep))
        runtime = LITERT.open(tmp_path, threads=1)
        found = np.concatenate([runtime(shown[start : start + 2].numpy()) for start in (0, 2, 4, 6)])
        assert 0 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
        content = (tmp_path / "model.tflite").read_bytes()
        sizes[keep] = len(content)
        classifier = net.get_submodule("net.classifier").weight.detach().numpy().tobytes()
        assert (classifier in content) == (keep == ("net.classifier",))
    assert sizes[("net.features.stage2.0",)] > sizes[()] + 2 * 8 * 16 * 9  # three bytes more a weight, less its scales
    with pytest.raises(ExportError, match="A batch of 16 is calibrated on as many images at least, got 8"):
        LITERT.quantize(net, Request("int8", (8, 8), 16), {}, tmp_path, Calibration(shown))


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    net = network("digits/cnn_4_8", 10, 8)
    base.find("litert").convert(net, Request("float32", (8, 8), 2), {}, tmp_path)
    with pytest.raises(RunError, match=r"LiteRT stopped: ValueError: .*Dimension mismatch"):
        LITERT.open(tmp_path)(pixels(3, 8, 8).numpy())

    class Odd(nn.Module):
        def forward(self, shown: Tensor) -> Tensor:
            return torch.special.airy_ai(shown.float()).mean((2, 3))

    with pytest.raises(ExportError, match=r"litert cannot hold this network: .*airy_ai"):
        LITERT.convert(Odd().eval(), Request("float32", (8, 8), 2), {}, tmp_path)
