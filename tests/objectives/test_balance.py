"""Balance Divergence against values worked out in numpy, and its promises over dtypes, temperatures and shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from counterpoise import BalanceDivergence, balance_divergence
from counterpoise.errors import ObjectiveError

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
temperatures = st.floats(0.05, 20.0)
seeds = st.integers(0, 2**31)


def logits(seed: int, *shape: int, scale: float = 3.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale).to(dtype)


def expected(student: Tensor, teacher: Tensor, a: float, b: float, forward: float, reverse: float) -> np.ndarray:
    """One value a row, from the paper's formula in numpy float64."""

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return (p * np.log(p / q)).sum(axis=1)

    s, t = student.double().numpy(), teacher.double().numpy()
    return a * forward**2 * kl(softmax(t / forward), softmax(s / forward)) + b * reverse**2 * kl(
        softmax(s / reverse), softmax(t / reverse)
    )


@given(seed=seeds, a=st.floats(0, 5), b=st.floats(0, 5), forward=st.floats(0.5, 20), reverse=st.floats(0.5, 20))
@settings(max_examples=40)
def test_value_is_the_papers_formula(seed: int, a: float, b: float, forward: float, reverse: float) -> None:
    student, teacher = logits(seed, 5, 7, dtype=torch.float64), logits(seed + 1, 5, 7, dtype=torch.float64)
    loss = BalanceDivergence(a, b, forward, reverse, reduction="none")(student, teacher)
    np.testing.assert_allclose(loss.numpy(), expected(student, teacher, a, b, forward, reverse), rtol=1e-9, atol=1e-10)


def test_module_and_function_agree_and_mean_is_over_rows() -> None:
    student, teacher = logits(0, 6, 10), logits(1, 6, 10)
    rows = balance_divergence(student, teacher, reduction="none")
    assert rows.shape == (6,)
    torch.testing.assert_close(BalanceDivergence()(student, teacher), rows.mean())
    torch.testing.assert_close(balance_divergence(student, teacher, reduction="sum"), rows.sum())
    np.testing.assert_allclose(rows.numpy(), expected(student, teacher, 1, 1, 4, 2), rtol=1e-4)


@given(
    seed=seeds,
    forward=temperatures,
    reverse=temperatures,
    dtype=st.sampled_from(DTYPES),
    scale=st.sampled_from((1.0, 1e2, 1e4)),
)
@settings(max_examples=120)
def test_loss_and_gradient_are_finite_for_extreme_logits(
    seed: int, forward: float, reverse: float, dtype: torch.dtype, scale: float
) -> None:
    student = logits(seed, 4, 11).clamp(-1, 1).mul(scale).to(dtype).requires_grad_()
    teacher = logits(seed + 1, 4, 11).clamp(-1, 1).mul(scale).to(dtype)
    loss = balance_divergence(student, teacher, forward_temperature=forward, reverse_temperature=reverse)
    loss.backward()
    assert loss.isfinite()
    assert loss >= -1e-3
    assert student.grad is not None
    assert student.grad.dtype == dtype
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_class_against_the_teachers_opposite_is_finite_and_felt(dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4]], dtype=dtype)
    loss = balance_divergence(student, teacher, forward_temperature=0.05, reverse_temperature=0.05)
    loss.backward()
    assert loss.isfinite()
    assert loss > 100
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0


@given(seed=seeds, forward=st.floats(0.5, 8), reverse=st.floats(0.5, 8))
@settings(max_examples=10)
def test_gradient_is_the_loss_derivative_in_float64(seed: int, forward: float, reverse: float) -> None:
    student = logits(seed, 3, 5, 2, dtype=torch.float64).requires_grad_()
    teacher = logits(seed + 1, 3, 5, 2, dtype=torch.float64)
    target = torch.tensor([[0, 255], [1, 2], [255, 4]])
    objective = BalanceDivergence(0.7, 1.3, forward, reverse, ignore_index=255)
    assert torch.autograd.gradcheck(lambda s: objective(s, teacher, target), (student,))


@given(seed=seeds, forward=temperatures, reverse=temperatures, dtype=st.sampled_from((torch.float32, torch.float64)))
@settings(max_examples=40)
def test_loss_and_gradient_vanish_where_student_equals_teacher(
    seed: int, forward: float, reverse: float, dtype: torch.dtype
) -> None:
    teacher = logits(seed, 4, 9, dtype=dtype)
    student = teacher.clone().requires_grad_()
    loss = balance_divergence(student, teacher, forward_temperature=forward, reverse_temperature=reverse)
    loss.backward()
    assert loss.abs() < 1e-6
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-5


def test_teacher_gets_no_gradient() -> None:
    student, teacher = logits(0, 4, 5).requires_grad_(), logits(1, 4, 5).requires_grad_()
    balance_divergence(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_reverse_term_feels_what_the_teacher_rules_out_and_forward_term_hardly_does() -> None:
    teacher = torch.tensor([[10.0, 0.0, 0.0, -20.0]])
    student = torch.tensor([[10.0, 0.0, 0.0, 8.0]], requires_grad=True)
    gradients = {}
    for name, weights in {"forward": (1.0, 0.0), "reverse": (0.0, 1.0)}.items():
        loss = BalanceDivergence(*weights, forward_temperature=1.0, reverse_temperature=1.0)(student, teacher)
        (gradient,) = torch.autograd.grad(loss, student)
        gradients[name] = gradient[0, 3].item()
    assert gradients["reverse"] > 10 * gradients["forward"] > 0


def test_dense_logits_give_one_value_a_pixel_and_mean_weighs_pictures_alike() -> None:
    student, teacher = logits(0, 2, 5, 3, 4), logits(1, 2, 5, 3, 4)
    values = balance_divergence(student, teacher, reduction="none")
    assert values.shape == (2, 3, 4)
    flat = balance_divergence(
        student.permute(0, 2, 3, 1).reshape(-1, 5), teacher.permute(0, 2, 3, 1).reshape(-1, 5), reduction="none"
    )
    torch.testing.assert_close(values.flatten(), flat)
    large = (
        torch.nn.functional.interpolate(student, scale_factor=2.0),
        torch.nn.functional.interpolate(teacher, scale_factor=2.0),
    )
    torch.testing.assert_close(balance_divergence(*large), values.mean())


def test_ignored_positions_count_neither_in_the_mean_nor_in_the_gradient() -> None:
    student, teacher = logits(0, 2, 5, 3).requires_grad_(), logits(1, 2, 5, 3)
    target = torch.tensor([[0, 255, 1], [255, 255, 2]])
    values = balance_divergence(student, teacher, reduction="none")
    loss = balance_divergence(student, teacher, target, ignore_index=255)
    torch.testing.assert_close(loss, values[target != 255].mean())
    loss.backward()
    assert student.grad is not None
    ignored = (target == 255)[:, None].expand_as(student)
    assert student.grad[ignored].abs().max() == 0
    assert student.grad[~ignored].abs().min() > 0


def test_all_positions_ignored_is_zero_and_not_nan() -> None:
    student, teacher = logits(0, 3, 4).requires_grad_(), logits(1, 3, 4)
    loss = balance_divergence(student, teacher, torch.full((3,), 255), ignore_index=255)
    loss.backward()
    assert loss == 0
    assert student.grad is not None
    assert (student.grad == 0).all()


def test_weights_make_a_weighted_mean() -> None:
    student, teacher = logits(0, 3, 4), logits(1, 3, 4)
    weight = torch.tensor([1.0, 0.0, 3.0])
    values = balance_divergence(student, teacher, reduction="none")
    torch.testing.assert_close(balance_divergence(student, teacher, None, weight), (values[0] + 3 * values[2]) / 4)


@pytest.mark.parametrize("classes", [1, 2, 21_841])
def test_any_number_of_classes(classes: int) -> None:
    student = logits(0, 1, classes).requires_grad_()
    loss = balance_divergence(student, logits(1, 1, classes))
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (torch.zeros(2, 10), torch.zeros(2, 12), "class counts of student and teacher differ"),
        (torch.zeros(2, 10), torch.zeros(3, 10), "shapes of student and teacher differ"),
        (torch.zeros(10), torch.zeros(10), "must be \\[N, C\\]"),
        (torch.zeros(2, 10, dtype=torch.int64), torch.zeros(2, 10), "floating point"),
    ],
)
def test_tensors_that_do_not_fit_are_named(student: Tensor, teacher: Tensor, message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        balance_divergence(student, teacher)


@pytest.mark.parametrize(
    "arguments", [{"forward_temperature": 0.0}, {"reverse_temperature": -1.0}, {"reduction": "avg"}]
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ObjectiveError):
        BalanceDivergence(**arguments)  # type: ignore[arg-type]


def test_under_autocast_the_loss_stays_in_float32() -> None:
    student, teacher = logits(0, 4, 8).requires_grad_(), logits(1, 4, 8)
    plain = balance_divergence(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        loss = balance_divergence(student, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain)
