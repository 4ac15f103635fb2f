"""Eight bits by each runtime's own quantizer: layers counted, layers kept, and what calibration may be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import counterpoise
from counterpoise.commands.tables import export_table, print_all
from counterpoise.deploy.agreement import Agreement
from counterpoise.deploy.base import Calibration
from counterpoise.errors import ConfigError

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_layers_are_in_8_bits_and_kept_ones_are_not(digits_run: Path, tmp_path: Path, to: str) -> None:
    from counterpoise.deploy.network import Deployed
    from counterpoise.engine.student import load_student

    network = Deployed(load_student(digits_run))
    layers = [name for name, module in network.named_modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    found = {}
    for title, keep in (("all", []), ("but one", layers[:1])):
        calibration = {"images": 64, "keep": keep}
        found[title] = counterpoise.export(
            digits_run, to=to, precision="int8", out=tmp_path / title, images=60, calibration=calibration
        )
        assert found[title]["calibration"] == {"method": "minmax", "images": 64, "kept_in_float": keep}
        assert found[title]["agreement"]["same"] > 80
    if to == "onnx":
        assert found["all"]["notes"]["layers_in_8_bits"] == f"{len(layers)} of {len(layers)}"
        assert found["but one"]["notes"]["layers_in_8_bits"] == f"{len(layers) - 1} of {len(layers)}"
    else:
        assert found["but one"]["notes"]["fake_quantizers"] < found["all"]["notes"]["fake_quantizers"]


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_nothing_is_rounded_around_layers_that_are_kept(tmp_path: Path, to: str) -> None:
    from counterpoise.deploy import base
    from counterpoise.deploy.fake_quantization import layers_of
    from counterpoise.deploy.network import Deployed
    from counterpoise.models import catalog

    torch.manual_seed(0)
    network = Deployed(catalog.build("cifar/resnet8", num_classes=5, input_size=16)).eval()
    pixels = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    calibration = Calibration(pixels, keep=tuple(layers_of(network)))
    chosen = base.find(to)
    chosen.quantize(network, base.Request("int8", (16, 16)), {}, tmp_path, calibration)
    with torch.inference_mode():
        expected = network(pixels)
    found = torch.from_numpy(chosen.open(tmp_path)(pixels.numpy()))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(("count", "size"), [(39, 32), (64, 32), (5, 1), (7, 8)])
def test_every_image_calibrates(count: int, size: int) -> None:
    pixels = torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1).expand(count, 3, 2, 2)
    parts = list(Calibration(pixels).batches(size))
    assert {len(part) for part in parts} == ({size} if count >= size else set())
    seen = [int(picture[0, 0, 0]) for part in parts for picture in part]
    assert seen[:count] == list(range(count)) * (count >= size)
    assert len(set(seen[count:])) == len(seen[count:]) < size


def test_the_table_of_an_export_tells_its_channels(capsys: pytest.CaptureFixture[str]) -> None:
    about = json.loads((Path(__file__).parents[1] / "golden" / "onnx" / "export.json").read_text())
    for channels, told in (("RGB", "uint8 [any, 3, 8, 8]"), (4, "uint8 [any, 4, 8, 8]")):
        about["input"]["channels"] = channels
        print_all(export_table({"folder": "here", **about}))
        assert told in capsys.readouterr().out


def test_calibration_of_another_size_or_method_is_refused(digits_run: Path, run: Run, tmp_path: Path) -> None:
    pixels = torch.zeros(8, 3, 12, 12, dtype=torch.uint8)
    with pytest.raises(ConfigError, match=r"must be uint8 \[N, 3, 8, 8\], got uint8 \[8, 3, 12, 12\]"):
        counterpoise.export(
            digits_run, to="onnx", precision="int8", out=tmp_path / "x", calibration=Calibration(pixels)
        )
    int8 = ["export", digits_run, "--to", "onnx", "--precision", "int8", "--out", "new"]
    code, _, err = run(*int8, "--calibration_method", "entrpy")
    assert (code, "Did you mean 'entropy'?" in err) == (2, True)
    code, _, err = run(*int8, "--keep", "student.net.nowhere")
    assert (code, "Layer to keep in float 'student.net.nowhere' is unknown" in err) == (2, True)
    code, _, err = run(*int8, "--keep", "clasifier")
    assert (code, "Did you mean --keep student.net.classifier?" in err) == (2, True)
    code, _, err = run(*int8, "--size", "16", "16")
    assert (code, "size is 16 x 16, and the student takes 8 x 8" in err) == (2, True)
    assert not Path("new").exists()


def test_a_layer_is_kept_by_its_name_with_or_without_what_all_begin_with(digits_run: Path) -> None:
    from counterpoise.deploy.fake_quantization import kept_layers
    from counterpoise.deploy.network import Deployed
    from counterpoise.engine.student import load_student

    network = Deployed(load_student(digits_run))
    for name in ("classifier", "net.classifier", "student.net.classifier"):
        assert kept_layers(network, [name]) == ("student.net.classifier",)


def test_answers_that_change_in_more_than_a_tenth_are_refused_unless_asked_for() -> None:
    found = Agreement(1000, 1.0, 2.0, 85.5, 1000)
    said = found.objection("int8")
    assert "85.50% of the answers are the same (at least 90% for int8; --min_same 85 takes it)" in said
    assert found.objection("int8", 85) == ""
    assert Agreement(1000, 1.0, 2.0, 90.0, 1000).objection("int8") == ""


def test_a_share_of_answers_is_asked_for_of_8_bits_alone(digits_run: Path, run: Run) -> None:
    for flags, said in (
        (["--min_same", "80"], "min_same is of int8"),
        (["--opset", "11"], "opset must be 13 to"),
        (["--keep", "classifier", "--calibration_images", "8"], "calibration_images, keep: this is of int8"),
    ):
        code, _, err = run("export", digits_run, "--to", "onnx", *flags, "--out", "new")
        assert (code, said in err) == (2, True), err
    code, _, err = run("export", digits_run, "--to", "onnx", "--precision", "int8", "--min_same", "101", "--out", "new")
    assert (code, "0 to 100; got 101" in err) == (2, True), err
    with pytest.raises(ConfigError, match="calibration, keep are given, and calibration says all of it"):
        counterpoise.export(digits_run, to="onnx", precision="int8", calibration={"images": 8}, keep=["classifier"])
    assert not Path("new").exists()


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_sums_of_two_products_fit_in_16_bits_as_processors_without_vnni_hold_them(
    digits_run: Path, tmp_path: Path, to: str
) -> None:
    out = tmp_path / "export"
    counterpoise.export(digits_run, to=to, precision="int8", out=out, images=60, calibration={"images": 64})
    weights = weights_of_onnx(out) if to == "onnx" else weights_of_openvino(out)
    assert weights
    for weight in weights:
        assert 2 * 255 * abs(weight.astype(int)).max() < 2**15
        assert len(numpy.unique(weight)) > 16  # and they are not all rounded away


def weights_of_onnx(folder: Path) -> list[Any]:
    import onnx

    model = onnx.load(folder / "model.onnx")
    held = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    return [array for array in held if array.dtype == numpy.int8 and array.ndim > 1]


def weights_of_openvino(folder: Path) -> list[Any]:
    import openvino

    held = openvino.Core().read_model(folder / "model.xml").get_ordered_ops()
    arrays = [operator.data for operator in held if operator.get_type_name() == "Constant"]
    return [array for array in arrays if array.dtype == numpy.int8 and array.ndim > 1]
