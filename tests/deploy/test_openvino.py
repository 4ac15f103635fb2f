"""Exports to OpenVINO: float32 is float32, weights are halved where asked for, and its benchmark tool opens them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import counterpoise
from counterpoise.deploy import base, folder
from counterpoise.engine.student import load_student

pytest.importorskip("openvino")


class Deep(torch.nn.Module):
    """A residual block, and what is one long path from there to the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.block = torch.nn.Conv2d(3, 3, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        values = pixels.float() / 255
        values = values + self.block(values).relu()
        for _ in range(600):
            values = values.sigmoid()
        return values


@pytest.fixture(scope="session")
def digits(digits_run: Path) -> Path:
    counterpoise.export(digits_run, to="openvino")
    return digits_run / "exports" / "openvino-float32"


def test_float32_is_computed_in_float32(digits: Path, digits_run: Path) -> None:
    described = folder.read(digits)
    assert described.agreement is not None
    assert described.agreement["same"] == 100
    assert described.agreement["largest_difference"] < 1e-4  # bfloat16, its own choice on some processors, is 1e-2
    assert set(described.files) == {"model.xml", "model.bin", "run.py", "reference.safetensors"}
    parameters = sum(parameter.numel() for parameter in load_student(digits_run).parameters())
    assert described.files["model.bin"].bytes >= 4 * parameters * 0.98  # batch normalization is folded
    runtime = base.find("openvino").open(digits, threads=1)
    pixels = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    with torch.inference_mode():
        assert np.allclose(runtime(pixels.numpy()), load_student(digits_run)(pixels), atol=1e-4)


def test_a_student_says_where_the_export_leaves_it(digits: Path, digits_run: Path) -> None:
    from counterpoise.deploy.network import Deployed

    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    network = Deployed(load_student(digits_run))
    with torch.no_grad():
        network.get_parameter("student.net.features.stage2.0.weight").mul_(1.5)
    layers = dict(base.find("openvino").layers(network, digits, pixels) or [])
    assert layers["student.net.features.stage1"] < 1e-4
    assert layers["student.net.features.stage2.1"] > 0.05


def test_halved_weights_take_half_and_have_a_name_of_their_own(digits: Path, digits_run: Path) -> None:
    described = counterpoise.export(digits_run, to="openvino", precision="float16", images=20)
    assert Path(described["folder"]).name == "openvino-float16"
    whole = folder.read(digits).files["model.bin"].bytes
    assert described["files"]["model.bin"]["bytes"] < 0.55 * whole


@pytest.mark.slow
def test_a_graph_deeper_than_pythons_recursion_is_quantized(tmp_path: Path) -> None:
    request, pixels = base.Request("int8", (8, 8)), torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    before = sys.getrecursionlimit()
    notes = base.find("openvino").quantize(Deep().eval(), request, {}, tmp_path, base.Calibration(pixels))
    assert notes["fake_quantizers"] > 1
    assert sys.getrecursionlimit() == before
