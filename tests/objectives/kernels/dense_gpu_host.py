"""Compares the dense Triton kernel with the reference; run by gpu_host.py. Fresh inputs, seed printed."""

from __future__ import annotations

import random
import warnings

import torch

from counterpoise.objectives.kernels import dense_gpu
from counterpoise.objectives.kernels.mixture import Divergence, Inputs, Labels, Mixture, reference

# (classes, student, teacher, full)
SHAPES = (
    (3, (2, 3), (2, 3), (5, 6)),
    (5, (2, 2), (3, 1), (3, 5)),
    (40, (1, 40), (2, 3), (2, 41)),
    (2, (1, 1), (1, 1), (3, 2)),
    (7, (2, 3), (2, 2), (2, 3)),
    (700, (1, 2), (1, 2), (2, 3)),
)


def main() -> None:
    warnings.simplefilter("ignore")  # the interpreter is numpy, which minds infinities
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seed = random.SystemRandom().randrange(2**31)
    print("seed", seed)
    draw = random.Random(seed)
    torch.manual_seed(seed)
    cases = 0
    for classes, small, other, size in SHAPES:
        dtype = draw.choice((torch.float16, torch.bfloat16, torch.float32))
        student = (3 * torch.randn(2, classes, *small, device=device)).to(dtype)
        teacher = (3 * torch.randn(2, classes, *other, device=device)).to(dtype)
        if draw.random() < 0.5:
            student = student.contiguous(memory_format=torch.channels_last)
        target = torch.randint(-1, classes, (2, *size), device=device)
        if draw.random() < 0.3:  # classes that are left out, here and there, and that are no label
            target = target.clamp(max=classes // 2)
            for logits in (student, teacher):
                upper = logits[:, classes // 2 + 1 :]
                upper[torch.rand(upper.shape, device=device) < 0.4] = -torch.inf
        weight = draw.choice((None, torch.rand(2, device=device), torch.rand(target.shape, device=device)))
        kept = draw.choice(((1, 1, 1), (1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)))
        mixture = Mixture(
            Divergence(draw.random(), draw.uniform(0.3, 20)) if kept[0] else None,
            Divergence(draw.random(), draw.uniform(0.3, 20)) if kept[1] else None,
            Labels(draw.random(), -1, draw.choice((0.0, 0.1))) if kept[2] else None,
            draw.choice((None, -1)),
            draw.choice(("mean", "sum")),
        )
        far = teacher if mixture.needs_teacher else None
        values, gradient = dense_gpu.compute(mixture, Inputs(student, far, target, weight, size), True)
        leaf = student.detach().double().requires_grad_()  # in float32 the reference is the less exact of the two
        exact = None if far is None else far.double()
        expected = reference(mixture, Inputs(leaf, exact, target, weight, size))
        (wanted,) = torch.autograd.grad(expected.sum(), leaf)
        expected, wanted = expected.detach().float(), wanted.float()
        case = f"{classes} {small} {other} {size} {dtype} {mixture} weight {weight is not None}"
        bound = 5e-5 * max(1.0, expected.abs().max().item())
        torch.testing.assert_close(values, expected, rtol=5e-5, atol=bound, msg=lambda m, c=case: f"{c}: {m}")
        assert gradient is not None
        assert gradient.dtype == torch.float32, case
        difference = (gradient - wanted).abs().max()
        assert difference <= 5e-5 * wanted.abs().max() + 1e-6, f"{case}: gradient by {difference}"
        cases += 1
    labels = Mixture(labels=Labels(1.0, -1))
    inputs = Inputs(student, None, torch.full_like(target, 1000), None, size)
    values, gradient = dense_gpu.compute(labels, inputs, False)
    assert gradient is None
    assert values.isnan().all()
    values, gradient = dense_gpu.compute(labels, inputs._replace(target=torch.full_like(target, -1)), True)
    assert values.eq(0).all()
    assert gradient is not None
    assert gradient.eq(0).all()
    print(cases, "cases equal")
