"""What stands in the place of a tensor or of a number is named; nobody saw it, or a step of training failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch

from counterpoise import BalanceDivergence, Gauge, WeightedSum, balance_divergence
from counterpoise.errors import CounterpoiseError, ObjectiveError
from counterpoise.objectives.base import Objective, entries
from counterpoise.outputs import Outputs

LOGITS, TARGET = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 4])
NAN = float("nan")
balance: Any = BalanceDivergence  # which a type checker would not let be given these
function: Any = balance_divergence
weighted: Any = WeightedSum
WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "text": (lambda: balance(forward_temperature="4"), "forward_temperature must be a number, got '4'"),
    "no number": (lambda: balance(forward_weight=NAN), "forward_weight must be finite, got nan"),
    "none": (lambda: balance(reverse_weight=None), "reverse_weight must be a number, got None"),
    "a label": (lambda: balance(ignore_index="a"), "ignore_index must be a whole number or None, got 'a'"),
    "a rule": (lambda: balance(rule_arguments={"x": 1}), "'fixed' has no argument 'x'. Available: none"),
    "weights as a list": (
        lambda: balance()(LOGITS, LOGITS, weight=[1] * 4),
        "weight must be a tensor, got list. torch.",
    ),
    "of the function": (lambda: function(LOGITS, LOGITS, reverse_weight=NAN), "reverse_weight must be finite, got nan"),
    "an array": (lambda: function(LOGITS, LOGITS.numpy()), "teacher_logits must be a tensor, got numpy.ndarray"),
    "no terms": (lambda: weighted({}), "The objective has no terms"),
    "a term": (lambda: weighted({"balance": {"weight": NAN}}), "objective.balance.weight must be finite"),
    "tensors in a sum": (
        lambda: weighted({"balance": {}})(LOGITS, LOGITS, TARGET),
        "student must be Outputs(logits), of counterpoise.outputs, got a tensor [4, 5] of float32",
    ),
    "an array in a sum": (
        lambda: weighted({"balance": {}})(Outputs(LOGITS), Outputs(np.zeros((4, 5))), TARGET),  # type: ignore[arg-type]
        "teacher_logits must be a tensor, got numpy.ndarray",
    ),
    "classes as floats": (
        lambda: Gauge(5).update(LOGITS, LOGITS, TARGET.float()),
        "target must be whole numbers, the class of each position, got a tensor [4] of float32",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_was_given_and_what_goes_there_is_said(case: str) -> None:
    call, message = WRONG[case]
    with pytest.raises(CounterpoiseError) as caught:
        call()
    assert message in str(caught.value)


@pytest.mark.parametrize("name", [name for name, entry in entries().items() if "features" not in entry.kind.needs])
def test_only_tensors_stand_in_the_place_of_tensors(name: str) -> None:
    objective: Objective = entries()[name].kind()
    right = {"student_logits": LOGITS, "teacher_logits": LOGITS, "target": TARGET}
    for place, value, told in (
        ("student_logits", (LOGITS,), "tuple. Give the one of them that is meant"),
        ("teacher_logits", np.zeros((4, 5)), "numpy.ndarray. torch.as_tensor makes one of it"),
        ("target", [0, 1, 2, 4], "list. torch.as_tensor makes one of it"),
    ):
        with pytest.raises(ObjectiveError, match=f"{place} must be a tensor, got {told}"):
            objective(**{**right, place: value})
        with pytest.raises(ObjectiveError, match=f"{place} must be a tensor, got {told}"):
            objective(*{**right, place: value}.values())


def test_numbers_of_other_libraries_and_tensors_of_one_number_are_numbers() -> None:
    expected = BalanceDivergence(forward_temperature=3.0)(LOGITS, -LOGITS)
    kinds: Mapping[str, Any] = {"int": 3, "numpy": np.float32(3), "tensor": torch.tensor(3.0)}
    for value in kinds.values():
        torch.testing.assert_close(BalanceDivergence(forward_temperature=value)(LOGITS, -LOGITS), expected)
    assert BalanceDivergence(ignore_index=np.int64(2)).ignore_index == 2  # type: ignore[arg-type]
