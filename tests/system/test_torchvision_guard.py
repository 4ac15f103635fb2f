from __future__ import annotations

import importlib.machinery
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors

from counterpoise.system import torchvision_guard

SCRIPT = """
from counterpoise.system import torchvision_guard

torchvision_guard.ready()
torchvision_guard.ready()
import torch
import torchvision
import torchvision.transforms.v2.functional as kernels
import timm
import segmentation_models_pytorch

image = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4)
assert torch.equal(kernels.horizontal_flip(image), image.flip(2))
assert kernels.resize(image, [8, 8]).shape == (3, 8, 8)
assert torchvision.models.squeezenet1_1(num_classes=3)(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
if torchvision.extension._has_ops():
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 30, 30]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
    assert kept.tolist() == [0, 2]
"""


def test_torchvision_timm_and_smp_can_be_imported_after_the_guard() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["_C", "_C_stable"])
def test_a_library_that_fails_is_told_from_one_that_loads_and_from_none(tmp_path: Path, name: str) -> None:
    library = tmp_path / f"{name}{importlib.machinery.EXTENSION_SUFFIXES[-1]}"
    (tmp_path / "_C.py").touch()
    assert not torchvision_guard._library_fails([tmp_path]), "schemas must not be defined twice"
    library.write_bytes(b"no library")
    assert torchvision_guard._library_fails([tmp_path])
    library.unlink()
    library.write_bytes(Path(safetensors._safetensors_rust.__file__).read_bytes())  # stands for torchvision's own
    assert not torchvision_guard._library_fails([tmp_path])
