from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from counterpoise.errors import ModelError
from counterpoise.models import catalog, digits


@pytest.mark.parametrize(("name", "maps"), [("cnn_4_8", [8, 4]), ("cnn_32_64", [8, 4]), ("cnn_4_8_16", [8, 4, 2])])
def test_first_convolution_keeps_the_size_and_others_halve_it(name: str, maps: list[int]) -> None:
    net = digits.create(name, 7).eval()
    value = torch.zeros(2, 3, 8, 8)
    sizes = []
    for stage in net.features:
        value = stage(value)
        sizes.append(value.shape[-1])
    assert sizes == maps
    assert net(torch.zeros(2, 3, 8, 8)).shape == (2, 7)


def test_parameters_of_the_demo_student() -> None:
    # 3*4*9 + 2*4 of the first stage, 4*8*9 + 2*8 of the second, 8*10 + 10 of the classifier
    assert sum(parameter.numel() for parameter in digits.create("cnn_4_8").parameters()) == 116 + 304 + 90


@pytest.mark.parametrize(("name", "maps"), [("unet_8_12_20", [24, 12, 6]), ("unet_4_8", [24, 12])])
def test_encoder_halves_the_size_with_one_more_convolution_a_stage(name: str, maps: list[int]) -> None:
    net = digits.create(name, 5).eval()
    assert isinstance(net, digits.ScenesNetwork)
    value = torch.zeros(2, 3, 48, 48)
    sizes = []
    for number, stage in enumerate(net.encoder, 1):
        value = stage(value)
        sizes.append(value.shape[-1])
        assert sum(isinstance(module, torch.nn.Conv2d) for module in stage.modules()) == number
    assert sizes == maps
    assert [name for name, _ in net.decoder.named_children()] == [f"stage{n}" for n in range(len(maps) - 1, 0, -1)]


@pytest.mark.parametrize(("size", "logits"), [((48, 48), (24, 24)), ((37, 50), (19, 25))])
def test_logits_of_scenes_have_half_the_resolution_at_any_size(size: tuple[int, int], logits: tuple[int, int]) -> None:
    net = digits.create("unet_8_12_20", 5).eval()
    assert net(torch.zeros(2, 3, *size)).shape == (2, 5, *logits)


def test_all_of_a_network_for_scenes_takes_part() -> None:
    net = digits.create("unet_8_12_20")
    net(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.parameters())


def test_catalog_knows_the_task_of_a_network_and_its_stages() -> None:
    scenes = catalog.build("digits/unet_4_8", num_classes=3)
    assert (scenes.task, scenes.num_classes, scenes.input_size) == ("segmentation", 3, None)
    found = scenes(torch.zeros(1, 3, 16, 16), features=["@0", "@-1"])
    assert [found.features[name].shape[1:] for name in ("@0", "@-1")] == [(4, 8, 8), (4, 8, 8)]
    assert catalog.build("digits/cnn_4_8").task == "classification"
    with pytest.raises(ModelError, match="takes no arguments, got depth"):
        catalog.build("digits/unet_4_8", arguments={"depth": 2})


@pytest.mark.parametrize("name", ["cnn_4", "cnn_0_8", "cnn_4_8_16_32", "cnn", "mlp_4_8", "unet_4", "unet_4_8_0"])
def test_other_names_are_unknown(name: str) -> None:
    with pytest.raises(ModelError, match="unknown"):
        digits.create(name)


def test_all_listed_names_can_be_created() -> None:
    for name in digits.names():
        logits = digits.create(name).eval()(torch.zeros(1, 3, 8, 8))
        assert logits.shape == ((1, 10) if name.startswith("cnn") else (1, 11, 4, 4))


def test_building_one_imports_neither_torchvision_nor_timm() -> None:
    script = (
        "import sys; from counterpoise.models import catalog; catalog.build('digits/cnn_4_8', num_classes=10); "
        "sys.exit(bool({'torchvision', 'timm'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
