from __future__ import annotations
import __future__

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from counterpoise.deploy import base
from counterpoise.deploy.base import Calibration, Request
from counterpoise.deploy.measuring.subjects import source_of
from counterpoise.errors import ExportError
from counterpoise.models import catalog
from counterpoise.models.padding import Padded

# Not imported before a test of it runs: that takes seconds.
pytestmark = pytest.mark.skipif(find_spec("executorch") is None, reason="needs the extra 'executorch'")


def pixels(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Smooth pictures, so that ranges of activations are those of pictures."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)


def network(name: str, classes: int, size: int | None) -> nn.Module:
    torch.manual_seed(0)
    return catalog.build(name, num_classes=classes, input_size=size, std=(0.2, 0.3, 0.4)).eval()


def answers(net: nn.Module, shown: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return net(shown).numpy()


@pytest.mark.slow
def test_any_number_of_pictures_is_answered_as_by_the_student(tmp_path: Path) -> None:
    from executorch.runtime import Runtime

    net, chosen = network("digits/cnn_4_8", 10, 8), base.find("executorch")
    told = chosen.convert(net, Request("float32", (8, 8)), {"classes": '["a", "b"]'}, tmp_path)
    run = chosen.open(tmp_path, threads=1)
    for count in (1, 16, 33):  # 33 are more than its memory is planned for
        shown = pixels(count, 8, 8)
        np.testing.assert_allclose(run(shown.numpy()), answers(net, shown), atol=1e-5)
    alone: dict[str, Any] = {}  # as run.py and the process that measures have it
    exec(compile(source_of(type(chosen).load), "load", "exec", __future__.annotations.compiler_flag), alone)
    assert alone["load"](str(tmp_path / "model.pte"), 1)(pixels(2, 8, 8).numpy()).shape == (2, 10)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.pte").write_bytes(b"\xff" * 300)  # for which the runtime would end the process
    with pytest.raises(ExportError, match="it is no ExecuTorch program"):
        chosen.open(tmp_path / "other")
    with pytest.raises(ExportError, match="cannot run what it makes of this network at 64 x 64 in float32"):
        base.find("executorch")._try(Request("float32", (64, 64)), tmp_path)
    # taken: two each of convolution, batch normalization and ReLU; the pixels' normalization, the classifier
    assert (told["xnnpack"], told["portable"]["aten_mean_dim"]) == (11, 1)
    assert told["xnnpack_share"] == told["xnnpack"] / told["operators"]
    kept = Runtime.get().load_program(tmp_path / "model.pte").load_method("metadata").execute([])
    assert json.loads(kept[0]) == {"classes": '["a", "b"]'}


@pytest.mark.slow
def test_eight_bits_hold_weights_by_channel_and_keep_what_they_are_told_to(tmp_path: Path) -> None:
    net, chosen = network("digits/cnn_4_8", 10, 8), base.find("executorch")
    calibration = Calibration(pixels(40, 8, 8), keep=("net.classifier",))
    chosen.quantize(net, Request("int8", (8, 8)), {}, tmp_path, calibration)
    shown = pixels(20, 8, 8, seed=1)
    expected, found = answers(net, shown), chosen.open(tmp_path)(shown.numpy())
    assert 0 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    file = (tmp_path / "model.pte").read_bytes()
    assert net.get_submodule("net.classifier").weight.detach().numpy().tobytes() in file
    conv, norm = net.get_submodule("net.features.stage2")[:2]
    folded = conv.weight * (norm.weight / (norm.running_var + norm.eps).sqrt()).view(-1, 1, 1, 1)
    steps = folded.abs().amax((1, 2, 3), keepdim=True) / 127
    rounded = (folded / steps).round().to(torch.int8)
    assert rounded.permute(0, 2, 3, 1).contiguous().numpy().tobytes() in file  # as XNNPACK has it: channels last


@pytest.mark.slow
def test_operator_without_a_kernel_is_named_with_its_layer(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.curve = nn.Module()
            self.curve.forward = torch.special.i0  # type: ignore[method-assign]

        def forward(self, shown: Tensor) -> Tensor:
            return self.curve(shown.float()).mean((2, 3))

    with pytest.raises(ExportError, match=r"i0.* 'curve'"):
        base.find("executorch").convert(Odd().eval(), Request("float32", (8, 8), 1), {}, tmp_path)
    assert not list(tmp_path.iterdir())


class Cells(Padded):
    """A dense network whose answers have an eighth of the pixels' resolution, as PSPNet's."""

    def __init__(self) -> None:
        super().__init__(8)
        self.head = nn.Conv2d(3, 5, 8, 8)

    def forward(self, shown: Tensor) -> Tensor:
        return super().forward(shown / 255)

    def answer(self, images: Tensor) -> Tensor:
        return self.head(images)


@pytest.mark.slow
def test_eight_bits_take_sizes_that_the_stride_does_not_divide(tmp_path: Path) -> None:
    net, shown = Cells().eval(), pixels(8, 20, 28)
    base.find("executorch").quantize(net, Request("int8", (20, 28), 1), {}, tmp_path, Calibration(shown))
    expected = answers(net, shown[:1])
    found = base.find("executorch").open(tmp_path)(shown[:1].numpy())
    assert found.shape == (1, 5, 3, 4)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.slow
def test_network_that_it_cannot_divide_is_refused(tmp_path: Path) -> None:
    class Knot(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(3, 5, 8, 8)

        def forward(self, shown: Tensor) -> Tensor:
            cells = self.head(shown / 255)
            before = torch.cat([cells.narrow(2, 0, 1), cells.narrow(2, 0, 3)], 2)
            return cells + torch.linspace(0, 0.4, 4).view(-1, 1) * (before - cells)

    with pytest.raises(ExportError, match="executorch cannot hold this network: Invalid partition"):
        base.find("executorch").quantize(
            Knot().eval(), Request("int8", (32, 40), 1), {}, tmp_path, Calibration(pixels(8, 32, 40))
        )


def test_too_few_calibration_images_for_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="A batch of 8 is calibrated on at least 8 images, got 4"):
        base.find("executorch").quantize(
            network("digits/cnn_4_8", 10, 8), Request("int8", (8, 8), 8), {}, tmp_path, Calibration(pixels(4, 8, 8))
        )


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("timm/mobilenetv3_small_100", (64, 64)),
        ("smp/pspnet:resnet18", (64, 96)),
        ("smp/unet:resnet18", (64, 96)),
    ],
)
def test_networks_of_both_tasks_are_answered_alike(
    name: str, size: tuple[int, int], batch: int | None, tmp_path: Path
) -> None:
    net = network(name, 5, size[0] if name.startswith("timm") else None)
    chosen, shown = base.find("executorch"), pixels(2, *size)
    told = chosen.convert(net, Request("float32", size, batch), {}, tmp_path)
    expected = answers(net, shown)
    np.testing.assert_allclose(chosen.open(tmp_path)(shown.numpy()), expected, atol=1e-4 * np.abs(expected).max())
    assert told["xnnpack_share"] > 0.8  # 0.81 of MobileNetV3 where any number of pictures may come


@pytest.mark.slow
@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_eight_bits_are_a_quarter_of_the_size(method: str, tmp_path: Path) -> None:
    net, chosen = network("cifar/resnet8", 10, 32), base.find("executorch")
    chosen.quantize(net, Request("int8", (32, 32)), {}, tmp_path, Calibration(pixels(64, 32, 32), method))
    weights = sum(value.nbytes for value in net.state_dict().values())
    assert (tmp_path / "model.pte").stat().st_size < 0.32 * weights
