"""Balance Divergence of sigmoids against numpy, and against that of softmaxes over two classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.balance import BalanceDivergence
from counterpoise.objectives.binary_balance import BinaryBalance


def draw(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bernoulli_kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


@given(st.integers(0, 2**31), st.floats(1, 8), st.floats(1, 8), st.floats(0, 3), st.floats(0, 3))
@settings(max_examples=25)
def test_value_is_that_of_the_formula(seed: int, tau_f: float, tau_r: float, a: float, b: float) -> None:
    student, teacher = draw(seed, 2, 3, 2, 4), draw(seed + 1, 2, 3, 2, 4)
    s, t = student.numpy(), teacher.numpy()
    forward = tau_f**2 * bernoulli_kl(expit(t / tau_f), expit(s / tau_f)).sum(1)
    reverse = tau_r**2 * bernoulli_kl(expit(s / tau_r), expit(t / tau_r)).sum(1)
    values = BinaryBalance(a, b, tau_f, tau_r, reduction="none")(student, teacher)
    np.testing.assert_allclose(values.numpy(), a * forward + b * reverse, rtol=1e-8, atol=1e-10)


def test_one_logit_is_a_softmax_over_it_and_zero() -> None:
    student, teacher = draw(0, 2, 1, 4, 4), draw(1, 2, 1, 4, 4)
    pairs = [torch.cat([logits, torch.zeros_like(logits)], 1) for logits in (student, teacher)]
    arguments = {"forward_weight": 2.0, "forward_temperature": 3.0, "reverse_temperature": 1.5}
    expected = BalanceDivergence(**arguments)(pairs[0], pairs[1])  # type: ignore[arg-type]
    torch.testing.assert_close(BinaryBalance(**arguments)(student, teacher), expected)  # type: ignore[arg-type]


def test_gradient_is_that_of_the_docstring() -> None:
    student, teacher = draw(0, 1, 3).requires_grad_(), draw(1, 1, 3)
    q, p = (student / 3).sigmoid(), (teacher / 3).sigmoid()
    (forward,) = torch.autograd.grad(BinaryBalance(1.0, 0.0, 3.0, 3.0)(student, teacher), student)
    torch.testing.assert_close(forward, (3 * (q - p)).detach())
    (reverse,) = torch.autograd.grad(BinaryBalance(0.0, 1.0, 3.0, 3.0)(student, teacher), student)
    torch.testing.assert_close(reverse, (q * (1 - q) * (student - teacher)).detach())


def test_labels_do_not_compete() -> None:
    student, teacher = draw(0, 2, 3, 4), draw(1, 2, 3, 4)
    single = [BinaryBalance()(student[:, c : c + 1], teacher[:, c : c + 1]) for c in range(3)]
    torch.testing.assert_close(BinaryBalance()(student, teacher), torch.stack(single).sum())


def test_void_is_not_counted() -> None:
    student, teacher = draw(0, 2, 1, 3), draw(1, 2, 1, 3)
    target = torch.tensor([[0, 255, 1], [255, 255, 255]])
    kept = student[0, 0, [0, 2]].view(2, 1), teacher[0, 0, [0, 2]].view(2, 1)
    torch.testing.assert_close(BinaryBalance(ignore_index=255)(student, teacher, target), BinaryBalance()(*kept))


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ObjectiveError, match="reverse_temperature must be above 0"):
        BinaryBalance(reverse_temperature=0.0)
