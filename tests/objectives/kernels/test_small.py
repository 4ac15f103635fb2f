"""The form for few logits against the reference: value and gradient over shapes, dtypes, temperatures and labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from counterpoise.objectives.kernels import small
from counterpoise.objectives.kernels.function import fused
from counterpoise.objectives.kernels.mixture import Divergence, Inputs, Labels, Mixture, reference

FULL = Mixture(Divergence(0.7, 4.0), Divergence(1.3, 2.0), Labels(0.5, -1, 0.1))
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 2e-5, torch.float64: 1e-10}
numbers = st.floats(0.0, 3.0)
divergences = st.none() | st.builds(Divergence, numbers, st.sampled_from((0.3, 1.0, 4.0, 20.0)))
mixtures = st.builds(
    Mixture,
    divergences,
    divergences,
    st.none() | st.builds(Labels, numbers, st.just(-1), st.sampled_from((0.0, 0.1))),
    st.sampled_from((None, -1, 255)),
    st.sampled_from(("mean", "sum")),
).filter(lambda mixture: mixture.needs_teacher)


def example(shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(2, *shape, generator=generator)).to(dtype)
    target = torch.randint(0, shape[1], shape[:1] + shape[2:], generator=generator)
    return student.requires_grad_(), teacher, target


@given(
    seed=st.integers(0, 2**31),
    mixture=mixtures,
    shape=st.sampled_from(((5, 7), (64, 100), (1, 1), (3, 2), (2, 19, 6, 5), (3, 4, 9))),
    dtype=st.sampled_from(tuple(TOLERANCE)),
    scaled=st.booleans(),
)
@settings(max_examples=150)
def test_value_and_gradient_are_those_of_the_reference(
    seed: int, mixture: Mixture, shape: tuple[int, ...], dtype: torch.dtype, scaled: bool
) -> None:
    student, teacher, target = example(shape, seed, dtype)
    assert small.counts_all(mixture, Inputs(student, teacher, target))
    scale = torch.full((1,), 8.0) if scaled else None
    values, gradient = small.compute(mixture, Inputs(student.detach(), teacher, target), True, scale)
    expected = reference(mixture, Inputs(student, teacher, target))
    (wanted,) = torch.autograd.grad(expected.sum() * (8.0 if scaled else 1.0), student)
    torch.testing.assert_close(values, expected.detach(), rtol=2e-5, atol=2e-5 * max(1, expected.abs().max().item()))
    assert gradient is not None
    assert gradient.dtype == dtype
    difference = (gradient.double() - wanted.double()).abs().max()
    assert difference <= TOLERANCE[dtype] * wanted.double().abs().max() + 1e-6


@pytest.mark.parametrize(
    ("mixture", "label", "taken"),
    [
        (FULL, 3, True),
        (FULL, -1, False),  # unlabeled
        (FULL, 10, False),  # no class: left to torch's own error
        (replace(FULL, ignore_index=3), 3, False),
        (replace(FULL, ignore_index=4), 3, True),
        (replace(FULL, labels=None), -1, True),  # labels are not looked at
        (replace(FULL, labels=None, ignore_index=-1), -1, False),
        (replace(FULL, forward=None, reverse=None), 3, False),  # torch's own cross-entropy is as fast
    ],
)
def test_positions_that_do_not_count_are_left_to_the_reference(mixture: Mixture, label: int, taken: bool) -> None:
    assert small.counts_all(mixture, Inputs(torch.zeros(6, 10), target=torch.full((6,), label))) is taken


def test_weighted_positions_are_left_to_the_reference() -> None:
    student, teacher, target = example((6, 10))
    assert not small.counts_all(FULL, Inputs(student, teacher, target, torch.ones(6)))
    assert fused(FULL, Inputs(student, teacher, target, torch.ones(6))) is None


def test_a_training_step_gets_its_gradient_from_it() -> None:
    student, teacher, target = example((6, 10))
    found = fused(FULL, Inputs(student, teacher, target))
    assert found is not None
    (gradient,) = torch.autograd.grad(found[0], student)
    (wanted,) = torch.autograd.grad(reference(FULL, Inputs(student, teacher, target)).sum(), student)
    torch.testing.assert_close(gradient, wanted)


def test_without_labels_no_target_is_needed() -> None:
    student, teacher, _ = example((6, 10))
    mixture = replace(FULL, labels=None)
    found = fused(mixture, Inputs(student, teacher))
    assert found is not None
    torch.testing.assert_close(found[1], reference(mixture, Inputs(student, teacher)))
