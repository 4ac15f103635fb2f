"""Compares the Triton kernels with the reference; run by test_gpu.py. Fresh random inputs each time, seed printed."""

from __future__ import annotations

import itertools
import random
import warnings

import dense_gpu_host
import torch

from counterpoise.objectives.kernels import gpu
from counterpoise.objectives.kernels.mixture import Divergence, Inputs, Labels, Mixture, reference

TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 2e-5}
SHAPES = ((5, 7), (40, 100), (1, 1), (3, 2), (2, 19, 3, 5), (3, 4, 9), (1, 1000))


def without_some(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """With some classes at -inf."""
    classes = torch.arange(logits.shape[1], device=logits.device).view(-1, *(1,) * (logits.ndim - 2))
    out = (torch.rand(logits.shape, device=logits.device) < 0.3) & (classes != target.unsqueeze(1))
    return logits.masked_fill(out, -torch.inf)


def main() -> None:
    warnings.simplefilter("ignore")  # the interpreter is numpy, which minds infinities
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seed = random.SystemRandom().randrange(2**31)
    print("seed", seed)
    draw = random.Random(seed)
    torch.manual_seed(seed)
    cases = 0
    for shape, dtype in zip(SHAPES, itertools.cycle(draw.sample(list(TOLERANCE), len(TOLERANCE))), strict=False):
        student, teacher = (3 * torch.randn(2, *shape, device=device)).to(dtype)
        if len(shape) == 4 and draw.random() < 0.5:
            student = student.contiguous(memory_format=torch.channels_last)
        target = torch.randint(-1, shape[1], shape[:1] + shape[2:], device=device)
        if draw.random() < 0.3:  # classes that are left out, never that of the label
            student, teacher = without_some(student, target), without_some(teacher, target)
        weight = draw.choice((None, torch.rand(shape[0], device=device), torch.rand(target.shape, device=device)))
        kept = draw.choice(((1, 1, 1), (1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)))
        mixture = Mixture(
            Divergence(draw.random(), draw.uniform(0.3, 20)) if kept[0] else None,
            Divergence(draw.random(), draw.uniform(0.3, 20)) if kept[1] else None,
            Labels(draw.random(), -1, draw.choice((0.0, 0.1))) if kept[2] else None,
            draw.choice((None, -1)),
            draw.choice(("mean", "sum")),
        )
        scale = draw.choice((None, torch.tensor(3.0, device=device)))
        values, gradient = gpu.compute(mixture, Inputs(student, teacher, target, weight), True, scale)
        leaf = student.detach().requires_grad_()
        expected = reference(mixture, Inputs(leaf, teacher, target, weight))
        (wanted,) = torch.autograd.grad((1.0 if scale is None else scale) * expected.sum(), leaf)
        case = f"{shape} {dtype} {mixture} weight {weight is not None} scale {scale}"
        bound = 2e-5 * max(1.0, expected.abs().max().item())
        torch.testing.assert_close(values, expected.detach(), rtol=2e-5, atol=bound, msg=lambda m, c=case: f"{c}: {m}")
        assert gradient is not None
        assert gradient.stride() == student.stride(), case
        difference = (gradient.double() - wanted.double()).abs().max()
        assert difference <= TOLERANCE[dtype] * wanted.double().abs().max() + 1e-6, f"{case}: gradient by {difference}"
        cases += 1
    wrong = gpu.compute(Mixture(labels=Labels(1.0, -1)), Inputs(student, None, torch.full_like(target, 1000)), True)[0]
    assert wrong.isnan().all()
    logits = torch.randn(5, 7, device=device)
    assert torch.equal(gpu.scale(logits.clone(), torch.tensor(2.0, device=device)), 2 * logits)
    print(cases, "cases equal")


if __name__ == "__main__":
    main()
    dense_gpu_host.main()
