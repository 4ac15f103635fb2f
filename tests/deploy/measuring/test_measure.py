"""Students, exports and files of someone else's, measured by their runtimes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import counterpoise
from counterpoise.deploy.measuring import counting
from counterpoise.models import catalog

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--rounds", "6", "--seconds", "0.001", "--threads", "1", "--quiet")


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    data = {"source": "digits", "options": {"train_size": 60}, "views": {"crop": "none", "flip": False}}
    train = {"epochs": 1, "batch_size": 30, "precision": "fp32", "device": "cpu"}
    counterpoise.train({"data": data, "student": {"model": "digits/cnn_4_8"}, "train": train, "out": out})
    return out


def foreign(path: Path, shape: list[Any], kind: int = TensorProto.FLOAT, apart: bool = False) -> Path:
    """An ONNX file that averages pictures, times 1,000 weights: what we did not make."""
    weight = numpy_helper.from_array(np.ones((1, 1000), np.float32), "weight")
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "weight"], ["scores"]),
    ]
    inputs = [helper.make_tensor_value_info("pixels", kind, shape)]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1000])]
    graph = helper.make_graph(nodes, "someone", inputs, outputs, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path, save_as_external_data=apart, location="weights.bin", size_threshold=0)
    return path


def test_multiply_adds_are_those_of_the_papers() -> None:
    """1.82 G in torchvision's table of weights, batch norms and pooling included; 1.81 in convolutions and the head."""
    network = catalog.build("torchvision/resnet18", num_classes=1000).eval()
    assert counting.parameters(network) == 11_689_512
    assert counting.multiply_adds(network, (224, 224)) == 1_814_073_344
    small = catalog.build("digits/cnn_4_8", num_classes=10).eval()
    assert counting.multiply_adds(small, (8, 8)) == 64 * 3 * 4 * 9 + 16 * 4 * 8 * 9 + 8 * 10


def test_a_student_is_measured(run: Run, student: Path) -> None:
    code, out, error = run("measure", student, *QUICK, "--batch", "1", "2", "--json", "--out", "cost.json")
    assert code == 0, error
    result = json.loads(out)
    assert json.loads(Path("cost.json").read_text()) == result
    (entry,) = result["measured"]
    weights = (student / "student" / "model.safetensors").stat().st_size
    assert (entry["runtime"], entry["versions"]) == ("pytorch", {"torch": torch.__version__})
    assert (entry["parameters"], entry["multiply_adds"]) == (510, 11_600)
    assert entry["files"]["model.safetensors"] == weights < entry["bytes"] < weights + 10_000
    assert {"processor", "cores", "system", "load_before"} <= result["machine"].keys()
    for case, batch in zip(entry["cases"], (1, 2), strict=True):
        assert (case["threads"], case["batch"], len(case["round_ms"])) == (1, batch, 6)
        assert 0 < case["low_ms"] <= case["median_ms"] <= case["high_ms"]
        assert case["peak_mb"] > 100  # torch
    assert run("measure", student, *QUICK, "--out", "cost.json")[0] == 2  # it is there
    assert json.loads(Path("cost.json").read_text()) == result


@pytest.mark.slow
def test_a_student_of_ones_own_code_is_measured_where_the_code_is_named(run: Run, tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text(
        "from torch import nn\n\n\ndef net(num_classes=10):\n"
        "    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), *head)\n"
    )
    data = {"source": "digits", "options": {"train_size": 60}, "views": {"crop": "none", "flip": False}}
    train = {"epochs": 1, "batch_size": 30, "precision": "fp32", "device": "cpu"}
    name = f"{code}:net"
    counterpoise.train(
        {"data": data, "student": {"model": name, "input_size": 8}, "train": train, "out": tmp_path / "own"}
    )
    for command in (["measure"], ["export", "--to", "onnx"], ["verify"], ["try"], ["finetune", "--out", "new"]):
        code_, _, error = run(command[0], tmp_path / "own", *command[1:])
        assert code_ == 2
        assert f"name it: --model {name}" in error
    code_, out, error = run("measure", tmp_path / "own", "--model", name, *QUICK, "--batch", "1", "--json")
    assert code_ == 0, error
    assert json.loads(out)["measured"][0]["parameters"] == 3 * 4 * 9 + 4 + 4 * 10 + 10


@pytest.mark.parametrize(
    ("shape", "kind", "apart", "flags", "size", "batches"),
    [
        (["N", 3, "H", "W"], TensorProto.FLOAT, False, (), [224, 224], [1, 8]),
        (["N", 3, "H", "W"], TensorProto.UINT8, True, ("--size", "32", "48"), [32, 48], [1, 8]),
        ([2, 16, 24, 3], TensorProto.FLOAT16, False, (), [16, 24], [2]),
    ],
)
def test_an_onnx_file_of_someone_else_is_measured_without_claims(
    run: Run, tmp_path: Path, shape: list[Any], kind: int, apart: bool, flags: Any, size: list[int], batches: list[int]
) -> None:
    path = foreign(tmp_path / "theirs.onnx", shape, kind, apart)
    code, out, error = run("measure", path, *QUICK, *flags, "--json")
    assert code == 0, error
    (entry,) = json.loads(out)["measured"]
    assert (entry["size"], entry["parameters"], entry["precision"]) == (size, 1000, "float32")
    assert entry["multiply_adds"] is None
    assert [case["batch"] for case in entry["cases"]] == batches
    assert entry["files"].keys() == ({"theirs.onnx", "weights.bin"} if apart else {"theirs.onnx"})
    assert entry["bytes"] >= 4000
    assert not {"top1", "miou", "agreement", "verified"} & entry.keys()


def test_tables_name_all_that_was_measured(run: Run, tmp_path: Path) -> None:
    files = [foreign(tmp_path / f"{name}.onnx", [1, 3, 8, 8]) for name in "xy"]
    code, out, _ = run("measure", *files, *QUICK)
    assert code == 0
    for word in ("x.onnx", "y.onnx", "onnxruntime", "95% interval", "CPU ms", "peak MB"):
        assert word in out


def test_what_cannot_be_measured_is_said(run: Run, student: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "mine.pte").write_text("hello")
    foreign(tmp_path / "words.onnx", [1, 128])
    foreign(tmp_path / "fixed.onnx", [1, 3, 8, 8])
    foreign(tmp_path / "endless.onnx", [1, 3, 2**40, 8])
    for arguments, told in (
        ((), "measure needs something to measure"),
        (("nowhere",), "nowhere does not exist"),
        (("text.onnx",), "text.onnx is no ONNX file"),
        (("mine.pte",), "mine.pte cannot be measured by itself"),
        (("words.onnx",), "words.onnx takes pixels [1, 128]; what can be measured takes one batch of pictures"),
        (("endless.onnx",), "batches and edges of pictures are 1 to 32,768"),
        (("fixed.onnx", "--size", "9", "9"), "takes pictures of 8 x 8, got --size 9 9"),
        ((student, "--size", "9", "9"), "takes pictures of 8 x 8, got --size 9 9"),
        ((student, "--rounds", "3"), "rounds must be 6 or more, got 3"),
        ((student, "--batch", "0"), "batch must be 1 or more"),
        ((student, "--bundle", "b"), "counterpoise export STUDENT --to executorch"),
    ):
        code, _, error = run("measure", *arguments)
        assert (code, told in error) == (2, True), error


def test_an_export_is_measured_by_its_runtime(run: Run, student: Path, tmp_path: Path) -> None:
    done = run("export", student, "--to", "onnx", "--out", tmp_path / "exported", "--json")
    assert done[0] == 0, done[2]
    code, out, error = run("measure", tmp_path / "exported", *QUICK, "--batch", "1", "--json")
    assert code == 0, error
    (entry,) = json.loads(out)["measured"]
    assert (entry["runtime"], entry["precision"], entry["size"]) == ("onnx", "float32", [8, 8])
    assert (entry["parameters"], entry["multiply_adds"]) == (510, 11_600)
    assert entry["bytes"] == (tmp_path / "exported" / "model.onnx").stat().st_size
    assert entry["cases"][0]["peak_mb"] < 150  # no torch in its process
    (tmp_path / "exported" / "model.onnx").write_bytes(b"another")
    code, _, error = run("measure", tmp_path / "exported", *QUICK)
    assert (code, "model.onnx is not the file that export.json describes" in error) == (2, True)
