"""Focal loss against its formula, and where it is cross-entropy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.focal import Focal

VOID = 255


def draw(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks(seed: int, classes: int, *shape: int) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 2**31), st.sampled_from((0.0, 0.5, 2.0, 5.0)), st.sampled_from((None, 0.25)))
@settings(max_examples=25)
def test_value_is_that_of_the_formula(seed: int, gamma: float, alpha: float | None) -> None:
    logits, target = draw(seed, 2, 4, 3, 4), masks(seed, 4, 2, 3, 4)
    target[0, 0] = VOID
    target[1, 2, :2] = -1
    kept = ((target >= 0) & (target != VOID)).flatten().numpy()
    scores, labels = logits.movedim(1, -1).reshape(-1, 4).numpy()[kept], target.flatten().numpy()[kept]
    p = softmax(scores, 1)[np.arange(len(labels)), labels]
    assert Focal(gamma)(logits, None, target).item() == pytest.approx(-((1 - p) ** gamma * np.log(p)).mean(), rel=1e-9)
    truth = np.eye(4)[labels]
    p = np.where(truth == 1, expit(scores), expit(-scores))
    weight = 1.0 if alpha is None else np.where(truth == 1, alpha, 1 - alpha)
    expected = -(weight * (1 - p) ** gamma * np.log(p)).sum(1).mean()
    assert Focal(gamma, alpha, sigmoid=True)(logits, None, target).item() == pytest.approx(expected, rel=1e-9)


def test_with_gamma_0_it_is_cross_entropy_and_with_sigmoids_the_binary_one() -> None:
    logits, target = draw(0, 2, 3, 4, 4), masks(1, 3, 2, 4, 4)
    torch.testing.assert_close(Focal(0.0)(logits, None, target), F.cross_entropy(logits, target))
    several = masks(2, 2, 2, 3, 4, 4).double()
    plain = F.binary_cross_entropy_with_logits(logits, several, reduction="none").sum(1).mean()
    torch.testing.assert_close(Focal(0.0, sigmoid=True)(logits, None, several), plain)
    torch.testing.assert_close(Focal(0.0, 0.5, sigmoid=True)(logits, None, several), plain / 2)


def test_what_is_easy_counts_little_and_what_is_hard_as_ever() -> None:
    sure, target = torch.tensor([[6.0]]), torch.tensor([1])
    for logits, share in ((sure, 1e-5), (-sure, 0.99)):
        focal = Focal(2.0, sigmoid=True)(logits, None, target)
        plain = F.binary_cross_entropy_with_logits(logits, torch.ones(1, 1))
        assert focal / plain == pytest.approx(share, rel=0.5 if share < 0.5 else 0.01)


@pytest.mark.parametrize("gamma", [0.1, 2.0])
def test_gradient_is_that_of_the_loss_and_finite_where_the_student_is_sure(gamma: float) -> None:
    target = masks(1, 3, 2, 2, 3)
    for objective in (Focal(gamma), Focal(gamma, 0.25, sigmoid=True)):
        assert torch.autograd.gradcheck(lambda x, f=objective: f(x, None, target), draw(2, 2, 3, 2, 3).requires_grad_())
        sure = (1e4 * F.one_hot(target, 3).movedim(-1, 1)).float().requires_grad_()
        objective(sure, None, target).backward()
        assert sure.grad is not None
        assert sure.grad.isfinite().all()


def test_unknown_labels_of_several_count_nowhere() -> None:
    logits, several = draw(0, 1, 2, 3, 1), torch.tensor([[1.0, -1, -1], [0, 1, -1]]).double().view(1, 2, 3, 1)
    places = ((0, 0), (1, 0), (1, 1))
    values = [F.binary_cross_entropy_with_logits(logits[0, c, i, 0], several[0, c, i, 0]) for c, i in places]
    torch.testing.assert_close(Focal(0.0, sigmoid=True)(logits, None, several), torch.stack(values).sum() / 2)


def test_mistakes_are_named() -> None:
    with pytest.raises(ObjectiveError, match="gamma must be at least 0"):
        Focal(-1.0)
    with pytest.raises(ObjectiveError, match="alpha must be 0 to 1"):
        Focal(alpha=2.0, sigmoid=True)
    with pytest.raises(ObjectiveError, match="say sigmoid: true"):
        Focal(alpha=0.25)
    with pytest.raises(ObjectiveError, match="focal needs a target"):
        Focal()(torch.zeros(2, 3))
