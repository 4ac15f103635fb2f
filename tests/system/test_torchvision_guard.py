from __future__ import annotations

import importlib.machinery
import subprocess
import sys
from pathlib import Path

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


def test_library_that_loads_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    library = tmp_path / f"_C{importlib.machinery.EXTENSION_SUFFIXES[-1]}"
    assert not torchvision_guard._library_loads([tmp_path])
    library.write_bytes(b"no library")
    assert not torchvision_guard._library_loads([tmp_path])
    library.unlink()
    library.write_bytes(Path(safetensors._safetensors_rust.__file__).read_bytes())  # stands for torchvision's own
    assert torchvision_guard._library_loads([tmp_path])
