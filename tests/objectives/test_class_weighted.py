"""Positions that count by the class of their label, in any host."""

from __future__ import annotations

import pytest
import torch

from counterpoise.config import Term
from counterpoise.errors import ObjectiveError
from counterpoise.objectives.balance import BalanceDivergence
from counterpoise.objectives.base import means
from counterpoise.objectives.class_weighted import ClassWeighted
from counterpoise.objectives.dense import DenseSum
from counterpoise.outputs import Outputs

WEIGHTS = [0.5, 2.0, 1.0]


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 4, 5, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(3, (2, 4, 5), generator=generator)


@pytest.mark.parametrize("of", ["balance", "forward_kl", "reverse_kl", "jsd"])
def test_value_is_the_mean_of_the_hosts_values_weighed_by_class(of: str) -> None:
    student, teacher, target = example()
    values = ClassWeighted(of, reduction="none")(student, teacher, target)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)[target]
    expected = (weights * values).sum() / weights.sum()
    torch.testing.assert_close(ClassWeighted(of, WEIGHTS)(student, teacher, target), expected)
    assert not torch.isclose(expected, values.mean())


def test_parts_are_those_of_the_host() -> None:
    student, teacher, target = example()
    parts = means(ClassWeighted("balance", WEIGHTS).terms(Outputs(student), Outputs(teacher), target))
    assert set(parts) == {"forward", "reverse"}
    total = ClassWeighted("balance", WEIGHTS)(student, teacher, target)
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(), total)


def test_weights_that_are_alike_change_nothing() -> None:
    student, teacher, target = example()
    plain = BalanceDivergence()(student, teacher)
    torch.testing.assert_close(ClassWeighted("balance", [3.0] * 3)(student, teacher, target), plain)
    torch.testing.assert_close(ClassWeighted("balance")(student, teacher, target), plain)


def test_void_counts_once() -> None:
    student, teacher, target = example()
    target[0] = 255
    values = BalanceDivergence(reduction="none")(student, teacher)
    weights = torch.ones(2, 4, 5, dtype=torch.float64)
    weights[1] = torch.tensor(WEIGHTS, dtype=torch.float64)[target[1]]
    expected = (weights * values).sum() / weights.sum()
    torch.testing.assert_close(ClassWeighted("balance", WEIGHTS)(student, teacher, target), expected)
    terms = {"b": Term(objective="class_weighted", of="balance", class_weight=WEIGHTS)}  # type: ignore[call-arg]
    total, _ = DenseSum(terms, void=255)(Outputs(student), Outputs(teacher), target)
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"of": "dist"}, "mean over positions, such as balance, which dist is not"),
        ({"of": "balance", "forward_wait": 1.0}, "Did you mean 'forward_weight'"),
        ({"class_weight": [1.0, -1.0]}, "numbers from 0 on"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ObjectiveError, match=message):
        ClassWeighted(**arguments)  # type: ignore[arg-type]


def test_one_weight_a_class() -> None:
    student, teacher, target = example()
    with pytest.raises(ObjectiveError, match="2 numbers, and the logits 3 classes"):
        ClassWeighted("balance", [1.0, 2.0])(student, teacher, target)
