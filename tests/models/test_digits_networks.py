from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from counterpoise.errors import ModelError
from counterpoise.models import digits


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


@pytest.mark.parametrize("name", ["cnn_4", "cnn_0_8", "cnn_4_8_16_32", "cnn", "mlp_4_8"])
def test_other_names_are_unknown(name: str) -> None:
    with pytest.raises(ModelError, match="unknown"):
        digits.create(name)


def test_all_listed_names_can_be_created() -> None:
    assert all(digits.create(name)(torch.zeros(1, 3, 8, 8)).shape == (1, 10) for name in digits.names())


def test_building_one_imports_neither_torchvision_nor_timm() -> None:
    script = (
        "import sys; from counterpoise.models import catalog; catalog.build('digits/cnn_4_8', num_classes=10); "
        "sys.exit(bool({'torchvision', 'timm'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
