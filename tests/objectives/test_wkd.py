"""Wasserstein distillation against a linear program, in its limits, and with what it is told of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from scipy.optimize import linprog
from torch import Tensor

from counterpoise.errors import ConfigError, ObjectiveError
from counterpoise.objectives.base import means
from counterpoise.objectives.composite import WeightedSum
from counterpoise.objectives.wkd import WassersteinLogits, cosines, transport_cost
from counterpoise.outputs import Outputs

RANDOM = np.random.default_rng(0)
STUDENT, TEACHER = (torch.from_numpy(RANDOM.normal(0, 2, (6, 5))) for _ in range(2))
TARGET = torch.tensor([0, 4, 2, 2, 1, 3])
ROWS = torch.from_numpy(RANDOM.normal(0, 1, (5, 4)))
COST = 1 - (-(1 - cosines(ROWS).double())).exp()
UNLIKE = torch.eye(5).tolist()
"""A likeness: no class is like another."""


def others(student: Tensor = STUDENT, teacher: Tensor = TEACHER, target: Tensor = TARGET, **given: object) -> Tensor:
    """The first part alone, a value a row."""
    told = {"likeness": cosines(ROWS).tolist(), "transport_weight": 1.0, "target_weight": 0.0, **given}
    loss: Tensor = WassersteinLogits(reduction="none", **told)(student, teacher, target)  # type: ignore[arg-type]
    return loss


def least(a: np.ndarray, b: np.ndarray, cost: np.ndarray) -> float:
    """The cost of the best plan from a to b, by linear programming."""
    count = len(a)
    plan = np.eye(count * count).reshape(count, count, -1)
    sums = np.concatenate([plan.sum(1), plan.sum(0)])
    return float(linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([a, b])).fun)


def test_where_it_is_little_regularized_it_is_the_wasserstein_distance() -> None:
    a, b = STUDENT.softmax(1), TEACHER.softmax(1)
    found = transport_cost(a.log(), b.log(), COST, 0.02, 2000)
    expected = [least(*sides, COST.numpy()) for sides in zip(a.numpy(), b.numpy(), strict=True)]
    # The blur costs something, never less than nothing.
    assert (found >= torch.tensor(expected) - 1e-9).all()
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_value_is_that_of_sinkhorns_plain_iterations_over_the_classes_but_the_label() -> None:
    expected = []
    for s, t, label in zip(STUDENT.numpy(), TEACHER.numpy(), TARGET.tolist(), strict=True):
        keep = [c for c in range(5) if c != label]
        a, b = (np.exp(x[keep] / 2) / np.exp(x[keep] / 2).sum() for x in (s, t))
        cost = COST.numpy()[np.ix_(keep, keep)]
        kernel, u = np.exp(-cost / 0.05), a
        for _ in range(10):
            v = b / (kernel.T @ u)
            u = a / (kernel @ v)
        expected.append((u[:, None] * kernel * v * cost).sum())
    np.testing.assert_allclose(others(), expected, rtol=1e-6)


def test_the_part_of_the_label_is_cross_entropy_by_the_teachers_word_for_it() -> None:
    loss = WassersteinLogits(transport_weight=0.0, target_weight=0.5, likeness=UNLIKE, reduction="none")
    share = TEACHER.softmax(1).gather(1, TARGET[:, None])[:, 0]
    expected = 0.5 * share * F.cross_entropy(STUDENT, TARGET, reduction="none")
    torch.testing.assert_close(loss(STUDENT, TEACHER, TARGET), expected)


def test_classes_that_are_all_alike_cost_nothing_to_confuse() -> None:
    student = STUDENT.clone().requires_grad_()
    values = others(student, likeness=torch.ones(5, 5).tolist())
    values.sum().backward()
    assert student.grad is not None
    assert (values == 0).all()
    assert (student.grad == 0).all()


def test_classes_that_are_all_unlike_cost_what_they_are_off_by() -> None:
    """Total variation, times the one cost that there is."""
    without = [F.softmax(side.scatter(1, TARGET[:, None], -torch.inf), 1) for side in (STUDENT, TEACHER)]
    varied = (without[0] - without[1]).abs().sum(1) / 2
    found = others(likeness=UNLIKE, temperature=1.0, regularization=0.02, iterations=500)
    torch.testing.assert_close(found, (1 - torch.tensor(-1.0).exp()) * varied, rtol=1e-3, atol=1e-6)


def test_where_regularization_is_all_the_plan_is_the_product_of_both_sides() -> None:
    a, b = (F.softmax(side.scatter(1, TARGET[:, None], -torch.inf) / 2, 1) for side in (STUDENT, TEACHER))
    expected = torch.einsum("ni,ij,nj->n", a, COST, b)
    torch.testing.assert_close(others(regularization=1e6), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("regularization", [0.02, 0.05, 1.0])
def test_between_two_classes_that_are_believed_in_alone_it_is_their_cost(regularization: float) -> None:
    student, teacher = 1e3 * torch.eye(5)[[1]].double(), 1e3 * torch.eye(5)[[3]].double()
    found = others(student, teacher, torch.tensor([0]), regularization=regularization)
    torch.testing.assert_close(found, COST[1, 3].view(1), rtol=1e-6, atol=0)


def test_the_student_is_pushed_less_between_classes_that_are_alike() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    teacher, target = torch.tensor([[3.0, 0.0, 0.0, 0.0]]), torch.tensor([3])
    near, far = (8 * torch.eye(4)[[c]] for c in (1, 2))
    told = {"likeness": cosines(rows).tolist()}
    assert others(near, teacher, target, **told) < 0.2 * others(far, teacher, target, **told)


def test_of_two_classes_only_the_label_is_left_to_speak_of() -> None:
    loss = WassersteinLogits(likeness=[[1.0, 0.2], [0.2, 1.0]])
    parts = means(loss.terms(Outputs(STUDENT[:, :2]), Outputs(TEACHER[:, :2]), TARGET % 2))
    assert parts["others"] == 0
    assert parts["target"] > 0


def test_gradient_is_the_loss_derivative_through_all_iterations() -> None:
    student = STUDENT.clone().requires_grad_()
    loss = WassersteinLogits(likeness=cosines(ROWS).tolist())
    assert torch.autograd.gradcheck(lambda s: loss(s, TEACHER, TARGET), (student,))


def test_cosines_are_those_of_the_rows_and_a_row_of_zeros_is_like_itself_alone() -> None:
    expected = F.cosine_similarity(ROWS[:, None], ROWS[None], dim=2).float().fill_diagonal_(1.0)
    torch.testing.assert_close(cosines(ROWS), expected)
    torch.testing.assert_close(cosines(7 * ROWS.half()[:, :, None, None]), expected, rtol=0, atol=2e-3)
    assert torch.equal(cosines(torch.zeros(3, 2)), torch.eye(3))


def test_what_it_is_told_is_kept_in_its_state_and_what_it_was_given_is_not_overruled(tmp_path: Path) -> None:
    told = WassersteinLogits()
    told.set_classifier(ROWS)
    assert told.state_dict().keys() == {"likeness"}
    again = WassersteinLogits()
    again.set_classifier(torch.eye(5))
    again.load_state_dict(told.state_dict())
    assert torch.equal(again(STUDENT, TEACHER, TARGET), told(STUDENT, TEACHER, TARGET))
    save_file({"rows": ROWS}, tmp_path / "rows.safetensors")
    save_file({"likeness": cosines(ROWS)}, tmp_path / "likeness.safetensors")
    for name in ("rows", "likeness"):
        given = WassersteinLogits(likeness=str(tmp_path / f"{name}.safetensors"))
        assert "classifier" not in given.needs
        given.set_classifier(torch.eye(5))
        assert torch.equal(given(STUDENT, TEACHER, TARGET), told(STUDENT, TEACHER, TARGET))


def test_it_says_what_it_lacks() -> None:
    with pytest.raises(ObjectiveError, match=r"call set_classifier\(rows\).* or give likeness"):
        WassersteinLogits()(STUDENT, TEACHER, TARGET)
    with pytest.raises(ObjectiveError, match="how alike 2 classes are, and the logits have 5"):
        WassersteinLogits(likeness=[[1.0, 0.0], [0.0, 1.0]])(STUDENT, TEACHER, TARGET)
    with pytest.raises(ObjectiveError, match="wkd needs a target"):
        WassersteinLogits(likeness=UNLIKE)(STUDENT, TEACHER)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weights": torch.eye(3)}, "must hold likeness.*'likeness' is unknown"),
        ({"rows": torch.eye(3), "likeness": torch.eye(3)}, "has both"),
        ({"rows": torch.ones(3)}, r"finite numbers \[C, D\], got \[3\]"),
        ({"rows": torch.full((3, 2), torch.nan)}, "finite numbers"),
        ({"likeness": torch.ones(3, 2)}, r"must be \[C, C\], got \[3, 2\]"),
        ({"likeness": 2 * torch.eye(3)}, "numbers from -1 to 1"),
        ({"likeness": torch.full((3, 3), torch.nan)}, "numbers from -1 to 1"),
        ({"likeness": torch.eye(3).add(torch.triu(torch.ones(3, 3), 1))}, "the same of two classes either way"),
    ],
)
def test_files_that_say_nothing_of_classes_are_refused(
    tmp_path: Path, tensors: dict[str, Tensor], message: str
) -> None:
    file = tmp_path / "file.safetensors"
    save_file(tensors, file)
    with pytest.raises(ConfigError, match=message):
        WeightedSum({"wkd": {"likeness": str(file)}})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"likeness": "missing.safetensors"}, "missing.safetensors cannot be read"),
        ({"likeness": [[1.0, 0.5], [0.5]]}, "rows of numbers or a safetensors file"),
        ({"regularization": 0.01}, "regularization must be at least 0.02"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"sharpness": 0.0}, "sharpness must be above 0"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WeightedSum({"wkd": given})
