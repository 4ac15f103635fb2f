"""Eight bits by each runtime's own quantizer: layers counted, layers kept, and what calibration may be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import counterpoise
from counterpoise.deploy.base import Calibration
from counterpoise.errors import ConfigError

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_layers_are_in_8_bits_and_kept_ones_are_not(digits_run: Path, tmp_path: Path, to: str) -> None:
    from counterpoise.deploy.network import Deployed
    from counterpoise.models.student import load_student

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


def test_calibration_of_another_size_or_method_is_refused(
    digits_run: Path, scenes_run: Path, run: Run, tmp_path: Path
) -> None:
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
    code, _, err = run(*int8, "--size", "16", "16")
    assert (code, "size is 16 x 16, and the student takes 8 x 8" in err) == (2, True)
    code, _, err = run("export", scenes_run, *int8[2:], "--size", "32", "32")
    assert (code, "are 24 x 24 pixels" in err, "takes 32 x 32" in err) == (2, True, True)
    assert not Path("new").exists()
