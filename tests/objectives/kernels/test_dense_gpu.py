"""The dense loss on a GPU. That its kernel equals the reference is shown by test_gpu.py."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from counterpoise.objectives.kernels.function import fused
from counterpoise.objectives.kernels.mixture import Divergence, Inputs, Labels, Mixture, reference

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs the extra 'triton'")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loss_and_gradient_on_the_gpu_are_those_of_the_reference_in_a_fraction_of_its_memory(
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    mixture = Mixture(Divergence(0.7, 4.0), Divergence(1.3, 2.0), Labels(0.5, -1, 0.1), -1)
    student = torch.randn(2, 19, 32, 64, device="cuda").to(dtype).requires_grad_()
    teacher = torch.randn(2, 19, 16, 32, device="cuda").to(dtype)
    target = torch.randint(-1, 19, (2, 256, 512), device="cuda")
    inputs = Inputs(student, teacher, target, None, (256, 512))
    found, peaks = [], []
    for fast in (True, False, True):
        for _ in range(2):  # tables are made the first time
            student.grad = None
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            if fast:
                total, values = fused(mixture, inputs) or pytest.fail("not covered")
            else:
                values = reference(mixture, inputs)
                total = values.sum()
            (3 * total).backward()
            torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated() - before)
        assert student.grad is not None
        found.append((values.detach(), student.grad.float()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    assert (found[0][1] - found[1][1]).abs().max() <= tolerance * found[1][1].abs().max()
    assert 8 * peaks[0] <= peaks[1]
    assert all(torch.equal(*pair) for pair in zip(found[0], found[2], strict=True))
