"""Classes at -inf, in the student, in the teacher or in both, are left out: what remains is compared as if alone."""

from __future__ import annotations

import inspect
from fractions import Fraction
from math import ceil, floor
from typing import Any

import pytest
import torch
from torch import Tensor

from counterpoise import BalanceDivergence, balance_divergence
from counterpoise.config import Term
from counterpoise.objectives.base import LogitObjective, Objective, entries, means
from counterpoise.objectives.binary_cross_entropy import BinaryCrossEntropy
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.cross_entropy import CrossEntropy
from counterpoise.objectives.dense import DenseSum
from counterpoise.objectives.kernels.upsampling import upsample
from counterpoise.outputs import Outputs

LOGITS = {name: entry for name, entry in entries().items() if "features" not in entry.kind.needs}
TAUGHT = [name for name, entry in LOGITS.items() if "teacher" in entry.kind.needs]
CLASSES, OUT = 7, [2, 5]
KEPT = [0, 1, 3, 4, 6]


def pair(shape: tuple[int, ...] = (6, CLASSES), dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(2, *shape, generator=generator, dtype=torch.float64)).to(dtype)
    return student, teacher


def out(logits: Tensor, classes: list[int] = OUT) -> Tensor:
    logits = logits.clone()
    logits[:, classes] = -torch.inf
    return logits


def sides(which: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Class 2 and 5 out: of both sides, of one, or one of each."""
    if which == "each":
        return out(student, OUT[:1]), out(teacher, OUT[1:])
    return out(student) if which != "teacher" else student, out(teacher) if which != "student" else teacher


def value_and_gradient(
    objective: Objective, student: Tensor, teacher: Tensor, target: Tensor | None
) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    if "classifier" in objective.needs:
        rows = torch.randn(CLASSES, 4, generator=torch.Generator().manual_seed(0))
        objective.set_classifier(rows if student.shape[1] == CLASSES else rows[KEPT])
    total = torch.stack(list(means(objective.terms(Outputs(student), Outputs(teacher), target)).values())).sum()
    total.backward()
    assert student.grad is not None
    return total.detach(), student.grad


@pytest.mark.parametrize("which", ["student", "teacher", "both", "each"])
@pytest.mark.parametrize("name", TAUGHT)
def test_what_remains_is_compared_as_if_there_were_no_other_class(name: str, which: str) -> None:
    objective, target = LOGITS[name].kind(), torch.tensor([0, 1, 1, 2, 3, 4])
    maps = "maps" in objective.needs
    student, teacher = pair((6, CLASSES, 2, 2) if maps else (6, CLASSES))
    target = target[:, None, None].expand(6, 2, 2) if maps else target
    expected, wanted = value_and_gradient(objective, student[:, KEPT], teacher[:, KEPT], target)
    labels = torch.tensor(KEPT)[target]
    found, gradient = value_and_gradient(objective, *sides(which, student, teacher), labels)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient[:, KEPT], wanted)
    assert (gradient[:, OUT] == 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_position_without_a_label_has_no_gradient_even_where_no_class_remains(smoothing: float, mixed: bool) -> None:
    student, _ = pair((3, CLASSES))
    student[1] = -torch.inf
    student.requires_grad_()
    target = torch.tensor([0, -1, 4])
    if mixed:
        target = torch.nn.functional.one_hot(target.clamp(min=0), CLASSES).double() * (target >= 0).unsqueeze(1)
    CrossEntropy(label_smoothing=smoothing)(student, target=target).backward()
    assert student.grad is not None
    assert (student.grad[1] == 0).all()
    assert student.grad[[0, 2]].isfinite().all()
    assert (student.grad[[0, 2]] != 0).all()


@pytest.mark.parametrize("which", ["student", "teacher", "both", "each"])
@pytest.mark.parametrize("name", LOGITS)
def test_loss_and_gradient_are_finite(name: str, which: str) -> None:
    maps = "maps" in LOGITS[name].kind.needs
    shape = (6, CLASSES, 2, 2) if maps else (6, CLASSES)
    student, teacher = sides(which, *pair(shape, torch.float32))
    target = torch.tensor(KEPT).repeat(6)[: 24 if maps else 6]
    total, gradient = value_and_gradient(LOGITS[name].kind(), student, teacher, target.view(6, *shape[2:]))
    assert total.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("rule", ["entropy", "head_tail", "class_ratio", "self_tuning", "per_sample"])
def test_rules_see_what_remains(rule: str) -> None:
    student, teacher = pair()

    def build() -> BalanceDivergence:
        return BalanceDivergence(temperature_rule=rule) if rule == "per_sample" else BalanceDivergence(rule=rule)

    expected, wanted = value_and_gradient(build(), student[:, KEPT], teacher[:, KEPT], None)
    found, gradient = value_and_gradient(build(), *sides("each", student, teacher), None)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient[:, KEPT], wanted)


@pytest.mark.parametrize("shape", [(6, CLASSES), (3000, CLASSES * 5)], ids=["few", "blocks"])
@pytest.mark.parametrize("which", ["student", "teacher", "both", "each"])
def test_the_fast_form_is_the_reference(which: str, shape: tuple[int, int]) -> None:
    student, teacher = sides(which, *pair(shape, torch.float32))
    target = torch.zeros(shape[0], dtype=torch.int64)
    student.requires_grad_()
    fast = balance_divergence(student, teacher)
    (found,) = torch.autograd.grad(fast, student)
    plain = LogitObjective.forward(BalanceDivergence(), student, teacher)
    (wanted,) = torch.autograd.grad(plain, student)
    torch.testing.assert_close((fast, found), (plain, wanted))
    # Beside labels, whose softmax knows only of the student's own.
    terms = {"cross_entropy": Term(label_smoothing=0.1), "balance": Term(ignore_index=-1)}
    total = WeightedSum(terms)(Outputs(student), Outputs(teacher), target).total
    apart = [
        WeightedSum({name: term})(Outputs(student), Outputs(teacher), target).total for name, term in terms.items()
    ]
    torch.testing.assert_close(total, apart[0] + apart[1])
    (gradient,) = torch.autograd.grad(total, student)
    assert gradient.isfinite().all()


def test_a_position_that_does_not_count_does_not_spoil_the_gradient_of_others() -> None:
    student, teacher = pair((3000, CLASSES * 5), torch.float32)
    target = torch.arange(3000) % 5
    target[::2] = 255
    student[::2, 3] = -torch.inf
    student.requires_grad_()
    loss = balance_divergence(student, teacher, target, ignore_index=255)
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert (student.grad[::2] == 0).all()


def test_masks_between_whose_logits_a_class_is_out_leave_it_out_there() -> None:
    student, teacher = pair((2, CLASSES, 32, 32), torch.float32)
    student[:, 5], teacher[:, 2, :3] = -torch.inf, -torch.inf
    masks = torch.zeros(2, 128, 128, dtype=torch.int64)
    student.requires_grad_()
    objective = DenseSum({"cross_entropy": Term(label_smoothing=0.1), "balance": Term()}, void=255)
    total = objective(Outputs(student), Outputs(teacher), masks).total
    (gradient,) = torch.autograd.grad(total, student)
    assert total.isfinite()
    assert gradient.isfinite().all()
    assert (gradient[:, 5] == 0).all()
    assert (gradient[:, [0, 1, 3, 4, 6]] != 0).any((0, 2, 3)).all()


def test_where_no_class_remains_there_is_nothing_to_learn() -> None:
    student, teacher = pair()
    student[0, :4], teacher[0, 4:] = -torch.inf, -torch.inf
    total, gradient = value_and_gradient(BalanceDivergence(), student, teacher, None)
    expected, wanted = value_and_gradient(BalanceDivergence(), student[1:], teacher[1:], None)
    torch.testing.assert_close(total, expected * 5 / 6)
    torch.testing.assert_close(gradient[1:], wanted * 5 / 6)
    assert (gradient[0] == 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_are_learned_over_the_classes_that_remain_and_one_that_is_out_costs_infinitely(smoothing: float) -> None:
    student, _ = pair()
    loss = CrossEntropy(smoothing)
    target = torch.tensor([0, 1, 1, 2, 3, 4])
    expected, labels = loss(student[:, KEPT], None, target), torch.tensor(KEPT)[target]
    torch.testing.assert_close(loss(out(student), None, labels), expected)
    one_hot = torch.nn.functional.one_hot(labels, CLASSES).double()
    torch.testing.assert_close(loss(out(student), None, one_hot), expected)
    for wrong in (torch.full_like(labels, 2), torch.eye(CLASSES)[[2] * 6].double()):
        assert loss(out(student), None, wrong) == torch.inf
    assert BinaryCrossEntropy()(out(student), None, torch.full_like(labels, 2)) == torch.inf
    assert BinaryCrossEntropy()(out(student), None, labels).isfinite()


def test_all_losses_of_logits_are_tried() -> None:
    arguments: Any = {name: inspect.signature(entry.kind).parameters for name, entry in LOGITS.items()}
    assert {"balance", "forward_kl", "abkd", "dkd", "binary_balance", "standardized"} <= arguments.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("width", "columns"), [(40, 41), (30, 90), (2, 41)])
def test_a_class_is_out_of_the_pixels_that_touch_it_and_of_no_other(
    width: int, columns: int, dtype: torch.dtype
) -> None:
    """In float32 an interpolation gives a pixel that lies on one place a trace of the next."""
    logits = torch.randn(1, 2, 1, width, dtype=dtype)
    logits[:, 1, :, 1::3] = -torch.inf
    found = upsample(logits, (1, columns))
    places = range(columns)
    exact = [Fraction(width, columns) * (place + Fraction(1, 2)) - Fraction(1, 2) for place in places]
    exact = [max(place, Fraction(0)) for place in exact]
    touched = [{floor(place), min(ceil(place), width - 1)} for place in exact]
    expected = [any(place % 3 == 1 for place in near) for near in touched]
    assert (found[0, 1, 0] == -torch.inf).tolist() == expected
    assert found[0, 0].isfinite().all()
