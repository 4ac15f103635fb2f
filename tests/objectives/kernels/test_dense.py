"""The dense fast form against upsample-then-reference: value and gradient over shapes, strides, dtypes and masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from counterpoise import BalanceDivergence
from counterpoise.config import Term
from counterpoise.errors import ObjectiveError
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.dense import DenseSum
from counterpoise.objectives.kernels import blocks, compiling, dense_strips, function
from counterpoise.objectives.kernels.compiling import Compiler
from counterpoise.objectives.kernels.function import covered, fused
from counterpoise.objectives.kernels.fused_terms import fuse
from counterpoise.objectives.kernels.mixture import Divergence, Inputs, Labels, Mixture, reference
from counterpoise.objectives.kernels.upsampling import taps
from counterpoise.outputs import Outputs

FULL = Mixture(Divergence(0.7, 4.0), Divergence(1.3, 2.0), Labels(0.5, -1, 0.1), ignore_index=-1)
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 5e-5, torch.float64: 1e-10}
# classes, student, teacher, full
SHAPES = (
    (3, (2, 3), (2, 3), (8, 12)),
    (19, (3, 2), (5, 1), (7, 9)),
    (2, (1, 1), (2, 2), (3, 2)),
    (5, (4, 6), (2, 3), (4, 6)),
    (5, (2, 3), (4, 6), (4, 6)),
    (4, (4, 2), (3, 5), (4, 5)),
    (1, (2, 2), (2, 2), (5, 5)),
)
numbers = st.floats(0.0, 3.0)
divergences = st.none() | st.builds(Divergence, numbers, st.floats(0.3, 20.0))
mixtures = st.builds(
    Mixture,
    divergences,
    divergences,
    st.none() | st.builds(Labels, numbers, st.sampled_from((-1, 255)), st.sampled_from((0.0, 0.1))),
    st.sampled_from((None, -1, 255)),
    st.sampled_from(("mean", "sum")),
).filter(lambda mixture: mixture.size > 0)


@pytest.fixture(scope="module", autouse=True)
def small_logits_too() -> Iterator[None]:
    """Fast forms at any size: else small logits are left to the reference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "WORTHWHILE_FROM", 0)
        yield


def example(seed: int, index: int = 0, dtype: torch.dtype = torch.float32, scale: float = 3.0) -> tuple[Any, ...]:
    """Student, teacher, target with a fifth of it void (-1), and the full size."""
    classes, small, other, size = SHAPES[index]
    generator = torch.Generator().manual_seed(seed)
    student = (scale * torch.randn(2, classes, *small, generator=generator)).to(dtype).requires_grad_()
    teacher = (scale * torch.randn(2, classes, *other, generator=generator)).to(dtype)
    target = torch.randint(0, classes, (2, *size), generator=generator)
    return student, teacher, target.masked_fill(torch.rand(target.shape, generator=generator) < 0.2, -1), size


def dense_loss(mixture: Mixture, *given: Any) -> tuple[Tensor, Tensor]:
    """Total and terms by a fast form, where there is one."""
    return fused(mixture, Inputs(*given)) or dense_reference(mixture, *given)


def dense_reference(mixture: Mixture, *given: Any) -> tuple[Tensor, Tensor]:
    values = reference(mixture, Inputs(*given))
    return values.sum(0), values


def check_equal(mixture: Mixture, student: Tensor, *rest: Any) -> None:
    """Value and gradient, the latter by its size over the whole, so that no term can be missing from it."""
    found, wanted = [], []
    for loss, into in ((dense_loss, found), (dense_reference, wanted)):
        total, values = loss(mixture, student, *rest)
        into += [total.detach(), values.detach(), *torch.autograd.grad(total, student)]
    tolerance = TOLERANCE[student.dtype]
    bound = min(5e-5, tolerance) * max(1.0, wanted[1].abs().max().item())
    for ours, theirs in zip(found[:2], wanted[:2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=min(5e-5, tolerance), atol=bound)
    assert found[2].dtype == student.dtype
    difference = (found[2].double() - wanted[2].double()).abs().max()
    assert difference <= tolerance * wanted[2].double().abs().max() + 1e-6


@given(
    seed=st.integers(0, 2**31),
    mixture=mixtures,
    index=st.integers(0, len(SHAPES) - 1),
    dtype=st.sampled_from(tuple(TOLERANCE)),
    weighted=st.sampled_from(("no", "samples", "positions")),
    channels_last=st.booleans(),
)
@settings(max_examples=150)
def test_dense_loss_equals_upsampling_and_reference(
    seed: int, mixture: Mixture, index: int, dtype: torch.dtype, weighted: str, channels_last: bool
) -> None:
    student, teacher, target, size = example(seed, index, dtype)
    if mixture.labels is not None and mixture.labels.ignore_index == 255:
        target = target.masked_fill(target == -1, 255)
    if channels_last:
        student = student.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = None if weighted == "no" else torch.rand((2,) if weighted == "samples" else target.shape)
    far = teacher if mixture.needs_teacher else None
    assert covered(mixture, Inputs(student, far, target, weight, size))
    check_equal(mixture, student, teacher, target, weight, size)


def test_bands_and_strips_smaller_than_the_logits_equal_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    for strip, band in ((1, 1), (100, 1), (1, 200), (60, 300)):
        monkeypatch.setattr(blocks, "PLAIN_ELEMENTS", strip)
        monkeypatch.setattr(dense_strips, "BAND_ELEMENTS", band)
        for index in range(len(SHAPES)):
            student, teacher, target, size = example(3, index)
            check_equal(FULL, student, teacher, target, torch.rand(2), size)


@pytest.mark.slow  # a minute of the C++ compiler
def test_compiled_strips_equal_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "COMPILE_FROM", 0)
    monkeypatch.setattr(blocks, "COMPILED_ELEMENTS", 19 * 9 * 3)
    student, teacher, target, size = example(5, 1)
    compiler = Compiler()
    check_equal(replace(FULL, compiler=compiler), student, teacher, target, None, size)
    assert not compiling._broken
    assert compiler.seconds > 0


@given(small=st.integers(1, 40), large=st.integers(1, 90), double=st.booleans())
@settings(max_examples=60)
def test_taps_are_those_of_interpolate(small: int, large: int, double: bool) -> None:
    dtype = torch.float64 if double else torch.float32
    line = torch.randn(small, dtype=dtype)
    first, second, share = taps(small, large, dtype)
    ours = line[first] * (1 - share) + line[second] * share
    theirs = F.interpolate(line.view(1, 1, -1, 1), size=(large, 1), mode="bilinear").flatten()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12 if double else 2e-5)


def test_logits_of_full_size_are_not_touched() -> None:
    student, _, target, size = example(0, 3)
    teacher = torch.randn_like(student)
    ours, plain = dense_loss(FULL, student, teacher, target, None, size), fused(FULL, Inputs(student, teacher, target))
    assert plain is not None
    assert torch.equal(ours[1], plain[1])
    side = dense_strips._Side(student.detach(), size, torch.float32)
    band = side.widen(1, slice(1, 4))
    assert torch.equal(side.mix(band, slice(1, 4), slice(2, 4), torch.empty(0)), student[1, :, 2:4].transpose(0, 1))
    alone = replace(FULL, ignore_index=None, labels=None)  # the student as it is beside a teacher that is not
    check_equal(alone, student, teacher[:, :, ::2, ::2], None, None, size)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_all_void_is_zero_and_no_gradient(reduction: Any) -> None:
    student, teacher, target, size = example(0)
    void = torch.full_like(target, -1)
    total, values = dense_loss(replace(FULL, reduction=reduction), student, teacher, void, None, size)
    total.backward()
    assert total == 0
    assert (values == 0).all()
    assert student.grad is not None
    assert (student.grad == 0).all()


@given(seed=st.integers(0, 2**31), dtype=st.sampled_from(tuple(TOLERANCE)), temperature=st.floats(0.05, 20))
@settings(max_examples=30)
def test_extreme_logits_give_a_finite_loss_and_gradient(seed: int, dtype: torch.dtype, temperature: float) -> None:
    student, teacher, target, size = example(seed, 1, torch.float64)
    student = (1e4 * student.detach().clamp(-1, 1)).to(dtype).requires_grad_()
    teacher = (1e4 * teacher.clamp(-1, 1)).to(dtype)
    mixture = Mixture(Divergence(1.0, temperature), Divergence(1.0, temperature), Labels(1.0, -1))
    total, _ = dense_loss(mixture, student, teacher, target, None, size)
    total.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    expected, _ = dense_reference(mixture, student, teacher, target, None, size)
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1.0)


def test_result_is_the_same_each_time_and_for_any_number_of_threads() -> None:
    torch.manual_seed(0)
    student = torch.randn(2, 19, 16, 24, requires_grad=True)
    teacher, target = torch.randn(2, 19, 8, 12), torch.randint(-1, 19, (2, 64, 96))
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (threads, 1, 2, 1):
            torch.set_num_threads(count)
            total, _ = dense_loss(FULL, student, teacher, target, None, (64, 96))
            found.append((total.detach(), *torch.autograd.grad(total, student)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for result in found[1:] for one, other in zip(found[0], result, strict=True))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_gradient_follows_what_comes_after_even_twice(dtype: torch.dtype) -> None:
    student, teacher, target, size = example(1, 0, dtype)
    expected = torch.autograd.grad(64 * dense_reference(FULL, student, teacher, target, None, size)[0], student)[0]
    loss = 64 * dense_loss(FULL, student, teacher, target, None, size)[0]
    for again in (True, False):
        gradient = torch.autograd.grad(loss, student, retain_graph=again)[0]
        difference = (gradient.double() - expected.double()).abs().max()
        assert difference <= TOLERANCE[dtype] * expected.double().abs().max()


def test_single_terms_and_second_derivatives_are_those_of_the_reference() -> None:
    student, teacher, target, size = example(4, 2, torch.float64)
    values = dense_loss(FULL, student, teacher, target, None, size)[1]
    plain = dense_reference(FULL, student, teacher, target, None, size)[1]
    for index in range(3):
        ours = torch.autograd.grad(values[index], student, retain_graph=True)[0]
        torch.testing.assert_close(ours, torch.autograd.grad(plain[index], student, retain_graph=True)[0])
    arguments = (teacher, target, None, size)
    assert torch.autograd.gradcheck(lambda logits: dense_loss(FULL, logits, *arguments)[0], (student,))
    assert torch.autograd.gradgradcheck(lambda logits: dense_loss(FULL, logits, *arguments)[0], (student,))


def test_what_no_fast_form_covers_goes_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, target, size = example(2)

    def refuse(*_: object) -> None:
        raise AssertionError("the fast form was used")

    monkeypatch.setattr(function.FusedLoss, "apply", refuse)
    learned = Divergence(torch.tensor(1.0, requires_grad=True), 2.0)  # type: ignore[arg-type]
    cases: tuple[tuple[Mixture, Tensor, Tensor], ...] = (
        (Mixture(learned), student, teacher),
        (replace(FULL, reduction="none"), student, teacher),
        (FULL, student, teacher.double()),
        (FULL, F.interpolate(student, size=(9, 13)), teacher),
    )
    for mixture, x, z in cases:
        values = dense_loss(mixture, x, z, target, None, size)[1]
        wide, far = (F.interpolate(v, size=size, mode="bilinear") for v in (x, z))
        torch.testing.assert_close(values, reference(mixture, Inputs(wide, far, target)))
    vmapped = torch.func.vmap(lambda x: dense_loss(FULL, x, teacher, target, None, size)[0])(torch.stack([student] * 2))
    torch.testing.assert_close(vmapped[0], dense_reference(FULL, student, teacher, target, None, size)[0])
    monkeypatch.setattr(blocks, "WORTHWHILE_FROM", student.numel() * 100)
    assert not covered(FULL, Inputs(student, teacher, target, None, size))


def test_inference_mode_and_frozen_logits_give_the_value_alone() -> None:
    student, teacher, target, size = example(6)
    expected = dense_reference(FULL, student, teacher, target, None, size)[0].detach()
    torch.testing.assert_close(dense_loss(FULL, student.detach(), teacher, target, None, size)[0], expected)
    with torch.inference_mode():
        torch.testing.assert_close(dense_loss(FULL, student, teacher, target, None, size)[0], expected)
        far = teacher + 0
    total = dense_loss(FULL, student, far, target, None, size)[0]
    total.backward()
    torch.testing.assert_close(total.detach(), expected)


def test_misfits_are_told() -> None:
    student, teacher, target, _ = example(0)
    objective = DenseSum({"cross_entropy": Term(), "balance": Term()})
    for mine, other, masks, message in (
        (student[0], teacher, target, "Dense terms need logits"),
        (student, None, target, "needs teacher logits"),
        (student, teacher[:, :2], target, "class counts of student and teacher differ"),
        (student, teacher, None, "Dense terms need"),
        (student, teacher, target.masked_fill(target == 0, 3), "labels are not among the 3 classes"),
    ):
        with pytest.raises(ObjectiveError, match=message):
            objective(Outputs(mine), None if other is None else Outputs(other), masks)


def test_terms_of_a_run_are_fused_and_the_rest_is_left() -> None:
    student, teacher, target, size = example(7)
    objective = WeightedSum(
        {
            "labels": Term(objective="cross_entropy", weight=0.5, ignore_index=-1),
            "balance": Term(weight=2.0, ignore_index=-1),
            "dice": Term(),
            "again": Term(objective="forward_kl"),
        }
    )
    terms = {name: (objective.objective(name), objective.weights[name]) for name in objective.terms}
    result = fuse(terms, Inputs(student, teacher, target, None, size))
    assert result is not None
    assert {name: list(parts) for name, parts in result.parts.items()} == {
        "labels": [""],
        "balance": ["forward", "reverse"],
    }
    wide, far = (F.interpolate(logits, size=size, mode="bilinear") for logits in (student, teacher))
    torch.testing.assert_close(
        result.total,
        0.5 * F.cross_entropy(wide, target, ignore_index=-1)
        + 2.0 * BalanceDivergence(ignore_index=-1)(wide, far, target),
    )
    torch.testing.assert_close(sum(result.parts["balance"].values()) + result.parts["labels"][""], result.total)
    assert fuse({"dice": terms["dice"]}, Inputs(student, teacher, target, None, size)) is None
