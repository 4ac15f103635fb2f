"""Exports to Core ML: what is in the package. Its answers are checked on Apple's machines only."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import counterpoise
from counterpoise.deploy import base, folder
from counterpoise.deploy.base import Request
from counterpoise.errors import ExportError
from counterpoise.models import catalog

# Not imported before a test of it runs: that takes seconds.
pytestmark = pytest.mark.skipif(find_spec("coremltools") is None, reason="needs the extra 'coreml'")
Run = Callable[..., tuple[int, str, str]]


@pytest.mark.skipif(sys.platform == "darwin", reason="here it would be verified")
def test_package_is_whole_and_says_that_it_is_not_verified(digits_run: Path, run: Run, tmp_path: Path) -> None:
    from coremltools.models.utils import load_spec

    place = tmp_path / "export"
    code, out, _ = run("export", digits_run, "--to", "coreml", "--out", place)
    assert (code, "Not verified: its runtime does not run here" in out) == (0, True)
    described = folder.read(place)
    assert (described.verified, described.agreement) == (False, None)
    assert "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin" in described.files
    spec = load_spec(str(place / "model.mlpackage"))
    (taken,), (given,) = spec.description.input, spec.description.output
    image = taken.type.imageType
    assert (taken.name, image.height, image.width, image.ColorSpace.Name(image.colorSpace)) == ("pixels", 8, 8, "RGB")
    assert (given.name, list(given.type.multiArrayType.shape)) == ("logits", [1, 10])
    assert json.loads(spec.description.metadata.userDefined["classes"]) == list("0123456789")

    code, _, err = run("verify", place)
    assert (code, "is intact, and its answers cannot be checked here: Core ML runs on macOS only" in err) == (2, True)
    weights = place / "model.mlpackage" / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    code, _, err = run("verify", place)
    assert (code, "weight.bin is not the file that export.json describes" in err) == (2, True)


def test_verify_where_the_runtime_runs_marks_an_export_as_verified(digits_run: Path, tmp_path: Path) -> None:
    counterpoise.export(digits_run, to="onnx", out=tmp_path / "export")
    described = folder.read(tmp_path / "export")
    folder.describe(tmp_path / "export", described.model_copy(update={"verified": False}))
    counterpoise.verify(tmp_path / "export")
    assert folder.read(tmp_path / "export") == described


@pytest.mark.slow
def test_half_precision_halves_the_weights(tmp_path: Path) -> None:
    net = catalog.build("digits/cnn_8_16", num_classes=10, input_size=8).eval()
    bytes_of = {}
    for precision in ("float32", "float16"):
        (tmp_path / precision).mkdir()
        base.find("coreml").convert(net, Request(precision, (8, 8), 1), {}, tmp_path / precision)
        files = folder.measured(tmp_path / precision, ("model.mlpackage",))
        bytes_of[precision] = files["model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"].bytes
    assert bytes_of["float16"] == pytest.approx(bytes_of["float32"] / 2, rel=0.1)


def test_what_it_cannot_do_is_refused(digits_run: Path, tmp_path: Path) -> None:
    with pytest.raises(counterpoise.CounterpoiseError, match=r"coreml has no int8 here\. Available: float32, float16"):
        counterpoise.export(digits_run, to="coreml", precision="int8")
    net = catalog.build("digits/cnn_4_8", num_classes=10, input_size=8).eval()
    with pytest.raises(ExportError, match="coreml takes one image at once, not 4: --batch 1"):
        base.find("coreml").convert(net, Request("float32", (8, 8), 4), {}, tmp_path)


@pytest.mark.slow
def test_operator_that_it_lacks_is_named_with_its_layer(tmp_path: Path) -> None:
    class Curve(nn.Module):
        def forward(self, shown: Tensor) -> Tensor:
            return torch.special.i0(shown)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.curve = Curve()

        def forward(self, shown: Tensor) -> Tensor:
            return self.curve(shown).mean((2, 3))

    with pytest.raises(ExportError, match=r"coreml lacks the operator aten\.special_i0\.default, .* '.*curve'"):
        base.find("coreml").convert(Odd().eval(), Request("float32", (8, 8), 1), {}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm/mobilenetv3_small_100", "smp/pspnet:resnet18", "smp/unet:resnet18"])
def test_networks_of_both_tasks_are_converted(name: str, tmp_path: Path) -> None:
    net = catalog.build(name, num_classes=5, input_size=64 if name.startswith("timm") else None).eval()
    size = (60, 64) if name.startswith("smp") else (64, 64)  # of which a stride of 8 leaves something over
    base.find("coreml").convert(net, Request("float32", size, 1), {}, tmp_path)
    weights = sum(value.numel() for key, value in net.state_dict().items() if "running" not in key)
    files = folder.measured(tmp_path, ("model.mlpackage",))
    assert sum(file.bytes for file in files.values()) == pytest.approx(4 * weights, rel=0.05)
