"""The fast forms against the reference: value and gradient over shapes, dtypes, layouts, temperatures and masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

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
from counterpoise.objectives.kernels import blocks, compiling
from counterpoise.objectives.kernels.compiling import Compiler
from counterpoise.objectives.kernels.function import fused
from counterpoise.objectives.kernels.mixture import Divergence, Inputs, Labels, Mixture, reference
from counterpoise.outputs import Outputs

FULL = Mixture(Divergence(0.7, 4.0), Divergence(1.3, 2.0), Labels(0.5, -1, 0.1), ignore_index=255)
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float32: 2e-5, torch.float64: 1e-10}
SHAPES = ((5, 7), (64, 100), (1, 1), (3, 2), (2, 19, 6, 5), (3, 4, 9), (300, 3), (1, 1000))
LAYOUTS = ("contiguous", "channels_last", "transposed", "expanded", "sliced")
numbers = st.floats(0.0, 3.0)
temperatures = st.floats(0.3, 20.0)
divergences = st.none() | st.builds(Divergence, numbers, temperatures)
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


def lay(logits: Tensor, layout: str) -> Tensor:
    """The same numbers, lying otherwise in memory."""
    if layout == "channels_last":
        return logits.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "transposed":
        return logits.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "expanded":
        return logits[:1].expand_as(logits)
    if layout == "sliced":
        return torch.cat([logits, logits], 1)[:, : logits.shape[1]]
    return logits


def example(
    seed: int, shape: tuple[int, ...], dtype: torch.dtype, layout: str = "contiguous", scale: float = 3.0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (scale * torch.randn(2, *shape, generator=generator)).to(dtype)
    positions = shape[:1] + shape[2:]
    target = torch.randint(0, shape[1], positions, generator=generator)
    chance = torch.rand(positions, generator=generator)
    target = target.masked_fill(chance < 0.2, -1)
    return lay(student, layout).requires_grad_(), lay(teacher, layout), target


def check_equal(mixture: Mixture, student: Tensor, teacher: Tensor, target: Tensor, weight: Tensor | None) -> None:
    """Values and gradient, the latter by its size over the whole, so that no term can be missing from it."""
    far = teacher if mixture.needs_teacher else None
    values, gradient = blocks.compute(mixture, Inputs(student.detach(), far, target, weight), want_gradient=True)
    expected = reference(mixture, Inputs(student, teacher, target, weight))
    (wanted,) = torch.autograd.grad(expected.sum(), student)
    tolerance = TOLERANCE[student.dtype]
    # A position's KL is a difference of logarithms times tau^2, each of them rounded; alike positions err alike.
    heat = max((one.temperature**2 for one in (mixture.forward, mixture.reverse) if one is not None), default=1.0)
    rounding = torch.finfo(torch.float32).eps * heat * (target.numel() if mixture.reduction == "sum" else 1)
    bound = 2e-5 * max(1, expected.abs().max().item()) + rounding
    torch.testing.assert_close(values, expected.detach(), rtol=2e-5, atol=bound)
    assert gradient is not None
    assert gradient.dtype == student.dtype
    difference = (gradient.double() - wanted.double()).abs().max()
    assert difference <= tolerance * wanted.double().abs().max() + 1e-6


@given(
    seed=st.integers(0, 2**31),
    mixture=mixtures,
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from(tuple(TOLERANCE)),
    layout=st.sampled_from(LAYOUTS),
    weighted=st.sampled_from(("no", "samples", "positions")),
)
@settings(max_examples=250)
def test_plain_blocks_equal_the_reference(
    seed: int, mixture: Mixture, shape: tuple[int, ...], dtype: torch.dtype, layout: str, weighted: str
) -> None:
    student, teacher, target = example(seed, shape, dtype, layout)
    if mixture.labels is not None and mixture.labels.ignore_index == 255:
        target = target.masked_fill(target == -1, 255)
    weight = None if weighted == "no" else torch.rand(shape[:1] if weighted == "samples" else target.shape)
    if blocks.flat(student) is None or blocks.flat(teacher) is None:
        assert fused(mixture, Inputs(student, teacher, target, weight)) is None
        return
    check_equal(mixture, student, teacher, target, weight)


def test_blocks_smaller_than_the_logits_equal_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "PLAIN_ELEMENTS", 50)
    for layout in ("contiguous", "channels_last"):
        for shape in ((31, 7), (3, 19, 6, 5), (5, 60)):
            student, teacher, target = example(3, shape, torch.float32, layout)
            mixture = replace(FULL, ignore_index=-1)
            check_equal(mixture, student, teacher, target, torch.rand(shape[:1]))


@pytest.mark.slow  # half a minute where the compiler has not met it yet
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_compiled_blocks_equal_the_reference_and_keep_the_labels_gradient(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "COMPILED_ELEMENTS", 400)
    monkeypatch.setattr(blocks, "COMPILE_FROM", 0)
    said: list[str] = []
    compiler = Compiler(said.append)
    labels_alone = Labels(5.0, -1)
    for seed, shape in enumerate(((30, 13), (4, 19, 6, 5))):
        student, teacher, target = example(seed, shape, torch.float32, layout)
        # Divergences that weigh almost nothing: a lost label gradient cannot hide behind them.
        mixture = Mixture(Divergence(1e-3, 3.0 + seed), Divergence(1e-3, 1.5), labels_alone, compiler=compiler)
        check_equal(mixture, student, teacher, target, None)
        mixture = Mixture(Divergence(1.0, 0.5), Divergence(0.8, 5.0), Labels(0.1, -1, 0.1), compiler=compiler)
        check_equal(mixture, student, teacher, target, None)
    assert not compiling._broken
    # Whoever asked was told of it, and has the seconds.
    assert [text.split()[0] for text in said] == ["compiling", "compiled"] * (len(said) // 2)
    assert (compiler.seconds > 0) == bool(said)


def test_a_loss_does_not_compile_by_itself_and_a_run_compiles_what_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call with a million elements took 80 s of a busy core, in loops that nobody had told of it."""
    calls = []

    def spy(*arguments: object) -> Tensor:
        calls.append(1)
        return blocks._block(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(compiling, "_compiled", lambda plain: spy)
    monkeypatch.setattr(blocks, "COMPILE_FROM", 64 * 100)
    student, teacher, target = example(0, (64, 100), torch.float32)
    BalanceDivergence()(student, teacher)
    objective = WeightedSum({"cross_entropy": Term(), "balance": Term()})
    objective(Outputs(student), Outputs(teacher), target)
    fused(FULL, Inputs(student, teacher, target))
    assert not calls
    objective.compiler = Compiler()
    monkeypatch.setattr(blocks, "WORTHWHILE_FROM", 0)
    objective(Outputs(student[:-1]), Outputs(teacher[:-1]), target[:-1])
    assert not calls
    objective(Outputs(student), Outputs(teacher), target)
    assert calls


def test_without_a_compiler_the_plain_form_is_used_and_a_warning_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(plain: object) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(compiling, "_compiled", fail)
    monkeypatch.setattr(compiling, "_broken", False)
    monkeypatch.setattr(blocks, "COMPILE_FROM", 0)
    student, teacher, target = example(0, (20, 9), torch.float32)
    mixture = replace(FULL, compiler=Compiler())
    check_equal(mixture, student, teacher, target, None)
    check_equal(mixture, student, teacher, target, None)
    assert [record.message for record in caplog.records].count(caplog.records[0].message) == 1
    assert "no C++ compiler" in caplog.text


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_gradient_follows_what_comes_after_even_twice(dtype: torch.dtype) -> None:
    student, teacher, target = example(1, (6, 9), dtype)
    expected = torch.autograd.grad(4096 * reference(FULL, Inputs(student, teacher, target)).sum(), student)[0]
    result = fused(FULL, Inputs(student, teacher, target))
    assert result is not None
    loss = 4096 * result[0]
    first = torch.autograd.grad(loss, student, retain_graph=True)[0]
    second = torch.autograd.grad(loss, student)[0]
    size = TOLERANCE[dtype] * float(expected.abs().max())  # small ones are differences of large ones
    for gradient in (first, second):
        torch.testing.assert_close(gradient, expected, rtol=TOLERANCE[dtype], atol=size)


def test_half_precision_does_not_lose_small_gradients_before_the_loss_scale() -> None:
    student, teacher, _ = example(2, (65536, 2), torch.float16, scale=0.01)
    mixture = Mixture(Divergence(1.0, 4.0), reduction="mean")
    result = fused(mixture, Inputs(student, teacher))
    assert result is not None
    (gradient,) = torch.autograd.grad(result[0] * 65536, student)
    assert (gradient != 0).float().mean() > 0.9


def test_single_terms_and_second_derivatives_are_those_of_the_reference() -> None:
    student, teacher, target = example(4, (4, 5), torch.float64)
    mixture = replace(FULL, ignore_index=None)
    result = fused(mixture, Inputs(student, teacher, target))
    assert result is not None
    plain = reference(mixture, Inputs(student, teacher, target))
    for index in range(3):
        ours = torch.autograd.grad(result[1][index], student, retain_graph=True)[0]
        torch.testing.assert_close(ours, torch.autograd.grad(plain[index], student, retain_graph=True)[0])

    def total(logits: Tensor) -> Tensor:
        computed = fused(mixture, Inputs(logits, teacher, target))
        assert computed is not None
        return computed[0]

    assert torch.autograd.gradcheck(total, (student,))
    assert torch.autograd.gradgradcheck(total, (student,))


@given(
    seed=st.integers(0, 2**31),
    forward=st.floats(0.05, 20),
    reverse=st.floats(0.05, 20),
    dtype=st.sampled_from(tuple(TOLERANCE)),
    scale=st.sampled_from((1.0, 1e2, 1e4)),
)
@settings(max_examples=60)
def test_extreme_logits_give_a_finite_loss_and_gradient(
    seed: int, forward: float, reverse: float, dtype: torch.dtype, scale: float
) -> None:
    student, teacher, target = example(seed, (4, 11), torch.float64)
    student = (student.detach().clamp(-1, 1) * scale).to(dtype).requires_grad_()
    teacher = (teacher.clamp(-1, 1) * scale).to(dtype)
    mixture = Mixture(Divergence(1.0, forward), Divergence(1.0, reverse), Labels(1.0, -1))
    result = fused(mixture, Inputs(student, teacher, target))
    assert result is not None
    result[0].backward()
    assert result[0].isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    expected = reference(mixture, Inputs(student, teacher, target)).sum()
    torch.testing.assert_close(result[0], expected, rtol=1e-4, atol=1e-4 * max(1.0, scale))


def test_all_ignored_is_zero_and_no_gradient() -> None:
    student, teacher, target = example(0, (3, 4), torch.float32)
    result = fused(replace(FULL, ignore_index=-1), Inputs(student, teacher, torch.full_like(target, -1)))
    assert result is not None
    result[0].backward()
    assert result[0] == 0
    assert student.grad is not None
    assert (student.grad == 0).all()


def test_a_teacher_from_inference_mode_and_a_student_without_gradient_are_taken() -> None:
    student, teacher, target = example(0, (6, 5), torch.float32)
    with torch.inference_mode():
        teacher = teacher * 1.0
    total, values = fused(FULL, Inputs(student, teacher, target)) or pytest.fail("not covered")
    total.backward()
    with torch.no_grad():
        again = fused(FULL, Inputs(student, teacher, target))
    assert again is not None
    assert not again[0].requires_grad
    torch.testing.assert_close(again[1], values.detach())


def test_a_label_that_is_no_class_is_named() -> None:
    student, teacher, target = example(0, (3, 4), torch.float32)
    target[1] = 4
    with pytest.raises(ObjectiveError, match="1 labels are not among the 4 classes"):
        fused(FULL, Inputs(student, teacher, target))


@pytest.mark.parametrize("case", ["probabilities", "learned weight", "mixed dtypes", "no target", "none", "subclass"])
def test_what_no_fast_form_covers_goes_to_the_reference(case: str) -> None:
    student, teacher, target = example(0, (6, 5), torch.float32)
    weight: Tensor | None = None
    mixture = FULL
    if case == "probabilities":
        target = torch.rand(6, 5)
    elif case == "learned weight":
        weight = torch.ones(6, requires_grad=True)
    elif case == "mixed dtypes":
        teacher = teacher.double()
    elif case == "none":
        mixture = replace(FULL, reduction="none")
    elif case == "subclass":
        student = torch.nn.Buffer(student.detach()).as_subclass(type("Odd", (Tensor,), {}))
    assert fused(mixture, Inputs(student, teacher, None if case == "no target" else target, weight)) is None


def test_under_torch_func_balance_still_works() -> None:
    student, teacher, _ = example(0, (6, 5), torch.float32)
    objective = BalanceDivergence()
    gradient = torch.func.grad(lambda logits: objective(logits, teacher))(student.detach())
    (expected,) = torch.autograd.grad(objective(student, teacher), student)
    torch.testing.assert_close(gradient, expected)


def test_a_run_of_labels_and_balance_trains_the_same_network_as_the_reference() -> None:
    """Ten steps of gradient descent on a linear model: what matters in the end."""
    generator = torch.Generator().manual_seed(0)
    inputs, teacher = torch.randn(64, 8, generator=generator), torch.randn(64, 5, generator=generator)
    target = torch.randint(0, 5, (64,), generator=generator)
    objective = WeightedSum({"cross_entropy": Term(weight=0.5), "balance": Term(weight=2.0)})
    weights = []
    for fast in (True, False):
        weight = torch.zeros(5, 8, requires_grad=True)
        for _ in range(10):
            logits = F.linear(inputs, weight)
            mixture = Mixture(Divergence(2.0, 4.0), Divergence(2.0, 2.0), Labels(0.5, -1))
            loss = (
                objective(Outputs(logits), Outputs(teacher), target).total
                if fast
                else reference(mixture, Inputs(logits, teacher, target)).sum()
            )
            (gradient,) = torch.autograd.grad(loss, weight)
            weight = (weight - 0.1 * gradient).detach().requires_grad_()
        weights.append(weight.detach())
    torch.testing.assert_close(*weights)


def test_small_logits_are_left_to_the_reference_and_large_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "WORTHWHILE_FROM", 6 * 5)
    student, teacher, target = example(0, (6, 5), torch.float32)
    assert fused(FULL, Inputs(student, teacher, target)) is not None
    assert fused(FULL, Inputs(student[1:], teacher[1:], target[1:])) is None


def test_classes_ruled_out_by_infinite_logits_leave_the_cross_entropy_finite() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1000, 100, generator=generator)
    logits[:, 90:] = -float("inf")
    target = torch.randint(0, 90, (1000,), generator=generator)
    total = WeightedSum({"cross_entropy": Term()})(Outputs(logits.requires_grad_()), None, target).total
    torch.testing.assert_close(total, torch.nn.functional.cross_entropy(logits, target))


def test_many_gradients_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1000, 100, generator=generator, requires_grad=True)
    total = WeightedSum({"cross_entropy": Term()})(Outputs(logits), None, torch.arange(1000) % 100).total
    (both,) = torch.autograd.grad(total, logits, torch.tensor([1.0, 2.0]), is_grads_batched=True, retain_graph=True)
    (one,) = torch.autograd.grad(total, logits)
    torch.testing.assert_close(both, torch.stack([one, 2 * one]))
