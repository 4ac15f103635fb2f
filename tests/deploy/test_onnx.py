"""Exports to ONNX: equal answers in onnxruntime, one file, its runner, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import counterpoise
from counterpoise.deploy import base, folder
from counterpoise.deploy.base import Request
from counterpoise.errors import ConfigError, ExportError, RunError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def digits(digits_run: Path) -> Path:
    """An export of the digits' student, any number at once."""
    counterpoise.export(digits_run, to="onnx")
    return digits_run / "exports" / "onnx-float32"


@pytest.fixture(scope="session")
def scenes(scenes_run: Path) -> Path:
    """An export of the scenes' student, two at once."""
    counterpoise.export(scenes_run, to="onnx", batch=2)
    return scenes_run / "exports" / "onnx-float32"


def runner(place: Path, *arguments: str | Path) -> str:
    """What run.py prints, in a Python that cannot see this project or torch."""
    hide = "import sys; sys.modules.update(torch=None, counterpoise=None); import runpy; sys.argv = sys.argv[1:]; "
    command = [
        sys.executable,
        "-c",
        f"{hide}runpy.run_path(sys.argv[0], run_name='__main__')",
        place / "run.py",
        *arguments,
    ]
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout


def test_answers_are_the_students(digits: Path, digits_run: Path) -> None:
    described = folder.read(digits)
    found = described.agreement
    assert found is not None
    assert found["images"] == 180
    assert found["same"] == 100
    assert found["largest_difference"] < 1e-4
    assert found["student"] == found["export"]
    student = counterpoise.load_student(digits_run)
    runtime = base.find("onnx").open(digits, threads=1)
    for count in (1, 5):
        pixels = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8)
        with torch.inference_mode():
            assert np.allclose(runtime(pixels.numpy()), student(pixels), atol=1e-4)


def test_the_opset_that_was_asked_for_is_written(digits_run: Path, tmp_path: Path) -> None:
    made = counterpoise.export(digits_run, to="onnx", opset=18, images=20, out=tmp_path / "old")
    assert made["notes"]["opset"] == 18
    model = onnx.load(tmp_path / "old" / "model.onnx")
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    assert made["agreement"]["images"] == 20


def test_an_opset_is_of_onnx_alone(digits_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(ConfigError, match="opset is of --to onnx"):
        counterpoise.export(digits_run, to="openvino", opset=18, out=tmp_path / "x")


def test_the_file_is_one_and_says_what_it_is(digits: Path) -> None:
    names = {path.name for path in digits.iterdir()}
    assert names == {"model.onnx", "run.py", "reference.safetensors", "export.json"}
    model = onnx.load(digits / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["classes"]) == [str(digit) for digit in range(10)]
    assert json.loads(said["input"])["size"] == [8, 8]
    assert str(Path.cwd()) not in (digits / "model.onnx").read_bytes().decode("latin-1")


def test_run_py_answers_as_predict_does(
    digits: Path, digits_run: Path, make_picture: Callable[..., Image.Image], tmp_path: Path
) -> None:
    picture = make_picture("circle", 3, (8, 8))
    picture.save(tmp_path / "picture.png")
    (answer,) = counterpoise.predict([tmp_path / "picture.png"], digits_run)
    lines = runner(digits, tmp_path / "picture.png").split("\n")
    assert lines[:5] == [f"{row['probability']:8.4f}  {row['class']}" for row in answer["top"]]


def test_scenes_through_a_window_are_answered_by_it(
    scenes: Path, scenes_run: Path, make_picture: Callable[..., Image.Image], tmp_path: Path
) -> None:
    described = folder.read(scenes)
    assert described.agreement is not None
    assert described.agreement["same"] == 100
    assert described.agreement["positions"] == 12 * 24 * 24
    assert described.input.size == (16, 20)
    operators = {node.op_type for node in onnx.load(scenes / "model.onnx").graph.node}
    assert not operators & {"Equal", "Where", "Or"}, "the file asks its own logits for classes that are left out"
    make_picture("square", 3, (24, 24)).save(tmp_path / "scene.png")
    runner(scenes, tmp_path / "scene.png", "--out", tmp_path / "mask.png")
    counterpoise.predict([tmp_path / "scene.png"], scenes_run, out=tmp_path / "painted")
    painted = Image.open(tmp_path / "painted" / "scene-mask.png")
    assert np.array_equal(Image.open(tmp_path / "mask.png"), painted)


def test_verify_needs_the_folder_alone_and_finds_what_changed(
    digits: Path, digits_run: Path, scenes_run: Path, run: Run, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in digits.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    code, out, err = run("verify", moved, "--json")
    assert code == 0, err
    assert json.loads(out)["reference"] == {"student": pytest.approx(0, abs=1e-5), "export": 0.0}
    assert run("verify", moved, "--student", digits_run)[0] == 0
    code, _, err = run("verify", moved, "--student", scenes_run)
    assert code == 2
    assert "was made from another student" in err
    # Another file with a description that fits: only its answers tell.
    model = onnx.load(moved / "model.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("weight"))
    weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * 1.5).tobytes()
    onnx.save(model, moved / "model.onnx")
    code, _, err = run("verify", moved)
    assert code == 2
    assert "model.onnx is not the file that export.json describes" in err
    values = json.loads((moved / "export.json").read_text())
    values["files"]["model.onnx"] = folder.measured(moved, ("model.onnx",))["model.onnx"].model_dump()
    (moved / "export.json").write_text(json.dumps(values))
    code, _, err = run("verify", moved)
    assert code == 2
    assert "answers generated pictures otherwise than" in err


def test_a_file_that_is_no_graph_or_no_file_is_refused_in_a_sentence(digits: Path, run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(digits, broken)
    (broken / "model.onnx").write_bytes((broken / "model.onnx").read_bytes()[:-200])
    values = json.loads((broken / "export.json").read_text())
    values["files"]["model.onnx"] = folder.measured(broken, ("model.onnx",))["model.onnx"].model_dump()
    (broken / "export.json").write_text(json.dumps(values))
    answers = [run(command, broken) for command in ("verify", "measure")]
    with (broken / "model.onnx").open("r+b") as file:
        file.truncate(2**40)  # a hole: it takes no room, and would be hashed for an hour
    answers.append(run("verify", broken))
    assert "has 1,099,511,627,776 bytes, expected at most" in answers[-1][2]
    (broken / "model.onnx").unlink()
    os.mkfifo(broken / "model.onnx")  # opened, it would wait for good
    answers += [run(command, broken) for command in ("verify", "measure")]
    for code, _, err in answers:
        assert code == 2
        assert err.startswith("Error: ")
        assert "Traceback" not in err


def test_a_student_with_changed_weights_is_refused(digits_run: Path, run: Run, tmp_path: Path) -> None:
    changed = tmp_path / "student"
    changed.mkdir()
    for path in (digits_run / "student").iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    content = bytearray((changed / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (changed / "model.safetensors").write_bytes(content)
    for command in (["export", changed, "--to", "onnx"], ["verify", changed]):
        code, _, err = run(*command)
        assert code == 2
        assert "is not the file that student.json describes" in err
    assert list(tmp_path.iterdir()) == [changed]


def test_verify_scores_a_student(digits_run: Path, run: Run) -> None:
    code, out, _ = run("verify", digits_run, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["report"]["top1"] == pytest.approx(found["stated"]["last"]["top1"])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--to", "onxn"], ("Format 'onxn' is unknown", "Did you mean 'onnx'?")),
        (["--to", "onnx", "--precision", "int4"], ("Precision 'int4' is unknown", "int8")),
        (["--to", "onnx", "--batch", "many"], ("--batch is a number of pictures or dynamic, got 'many'",)),
        (["--to", "onnx", "--batch", "0"], ("batch must be at least 1",)),
        (["--to", "onnx", "--images", "0"], ("images must be at least 1",)),
        (["--to", "onnx", "--data", "nowhere"], ("nowhere", "does not exist")),
    ],
)
def test_bad_flags_are_named(digits_run: Path, run: Run, arguments: list[str], parts: tuple[str, ...]) -> None:
    code, _, err = run("export", digits_run, *arguments, "--out", "new")
    assert code == 2
    assert all(part in err for part in parts), err
    assert not Path("new").exists()


def test_nothing_is_overwritten_unasked(digits: Path, digits_run: Path, run: Run, tmp_path: Path) -> None:
    before = (digits / "model.onnx").stat().st_mtime_ns
    code, _, err = run("export", digits_run, "--to", "onnx")
    assert code == 2
    assert "is there already: give --overwrite" in err
    assert (digits / "model.onnx").stat().st_mtime_ns == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    code, _, err = run("export", digits_run, "--to", "onnx", "--overwrite", "--out", "mine")
    assert code == 2
    assert "is no export folder, so it is not replaced" in err
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_missing_runtime_is_said_with_its_extra(
    digits_run: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    code, _, said = run("export", digits_run, "--to", "onnx", "--out", "new")
    assert code == 2
    assert "--to onnx needs the extra 'onnx': pip install 'counterpoise[onnx]'" in said


class Spectrum(nn.Module):
    """Whose second layer needs an operator that ONNX has not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.second = Sorted()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.second(self.first(pixels.float()))


class Sorted(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.linalg.lu_factor(images.mean(1))[0].mean(2)


def test_an_operator_that_onnx_lacks_is_named_with_its_layer(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"ONNX lacks the operator aten\.linalg_lu_factor\S*, which layer 'second'"):
        base.find("onnx").convert(Spectrum().eval(), Request("float32", (8, 8), 1), {}, tmp_path)
    assert not list(tmp_path.iterdir())


class Deeper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3) for _ in range(3))

    def forward(self, pixels: Tensor) -> Any:
        return self.third(self.second(self.first(pixels.float())).relu()).mean((2, 3))


def test_the_layer_where_answers_part_is_named(tmp_path: Path) -> None:
    network = Deeper().eval()
    onnx_format = base.find("onnx")
    onnx_format.convert(network, Request("float32", (8, 8), None), {}, tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    spoilt = next(tensor for tensor in model.graph.initializer if tensor.name == "second.weight")
    spoilt.raw_data = (np.frombuffer(spoilt.raw_data, np.float32) + 0.1).tobytes()
    onnx.save(model, tmp_path / "model.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    layers = dict(onnx_format.layers(network, tmp_path, pixels) or [])
    assert list(layers) == ["first", "second", "third"]
    assert layers["first"] < 1e-5
    assert min(layers["second"], layers["third"]) > 1e-3


def test_an_export_that_disagrees_is_refused_and_leaves_nothing(
    digits_run: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx_format = base.find("onnx")
    convert = type(onnx_format).convert

    def spoil(self: Any, network: Any, request: Any, metadata: Any, out: Path) -> Any:
        notes = convert(self, network, request, metadata, out)
        model = onnx.load(out / "model.onnx")
        weight = next(tensor for tensor in model.graph.initializer if "stage2.0.weight" in tensor.name)
        weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * 1.2).tobytes()
        onnx.save(model, out / "model.onnx")
        return notes

    monkeypatch.setattr(type(onnx_format), "convert", spoil)
    code, _, err = run("export", digits_run, "--to", "onnx", "--out", "new")
    assert code == 2
    assert "The onnx export disagrees with the student: logits differ by up to" in err
    assert "It starts at layer 'student.net.features.stage2.1'" in err
    assert not list(Path.cwd().iterdir())


def test_a_picture_larger_than_the_input_is_seen_as_in_evaluation(
    make_picture: Callable[..., Image.Image], tmp_path: Path
) -> None:
    from counterpoise.engine.student import save_student
    from counterpoise.models import catalog

    torch.manual_seed(0)
    model = catalog.build("cifar/resnet8", num_classes=3, classes=["a", "b", "c"], input_size=24)
    model.crop_share = 0.875
    save_student(model, tmp_path / "student", classes=["a", "b", "c"], metrics={}, provenance={})
    exif = Image.Exif()
    exif[0x0112] = 8
    make_picture("circle", 3, (330, 210)).save(tmp_path / "photo.jpg", exif=exif)
    described = counterpoise.export(tmp_path / "student", to="onnx", out=tmp_path / "out", precision="float16")
    assert described["agreement"] is None
    (answer,) = counterpoise.predict([tmp_path / "photo.jpg"], tmp_path / "student")
    lines = [line.split() for line in runner(tmp_path / "out", tmp_path / "photo.jpg").splitlines()]
    assert [name for _, name in lines] == [row["class"] for row in answer["top"]]
    for (share, _), row in zip(lines, answer["top"], strict=True):
        assert float(share) == pytest.approx(row["probability"], abs=0.01)


def test_too_little_disk_is_said_and_leaves_nothing(digits_run: Path, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    if mounted.returncode:
        pytest.skip(f"may not mount a file system here: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(RunError, match=r"needs up to 4\.\d MB, and 0\.1 MB are free there"):
            counterpoise.export(digits_run, to="onnx", out=place / "out")
        assert not list(place.iterdir())
    finally:
        subprocess.run(["umount", str(place)], check=True)
