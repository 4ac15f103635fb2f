"""Tversky and focal Tversky loss against their formulas, and where they are Dice, Jaccard and each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.dice import Dice
from counterpoise.objectives.focal_tversky import FocalTversky
from counterpoise.objectives.tversky import Tversky

VOID = 255


def draw(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks(seed: int, classes: int, *shape: int) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


@given(
    st.integers(0, 2**31),
    st.sampled_from(((0.3, 0.7), (1.0, 0.0), (0.0, 2.0))),
    st.sampled_from((0.0, 1.0)),
    st.sampled_from((1.0, 4 / 3, 3.0)),
)
@settings(max_examples=25)
def test_value_is_that_of_the_formula(seed: int, sides: tuple[float, float], smooth: float, gamma: float) -> None:
    logits, target = draw(seed, 2, 6, 3, 4), masks(seed, 4, 2, 3, 4)  # two of six classes are never there
    target[0, 0] = VOID
    kept = (target != VOID).flatten().numpy()
    p = softmax(logits.movedim(1, -1).reshape(-1, 6).numpy(), 1)[kept]
    g = np.eye(6)[target.flatten().numpy()[kept]]
    hit, wrong, missed = (p * g).sum(0), (p * (1 - g)).sum(0), ((1 - p) * g).sum(0)
    there = g.sum(0) > 0
    index = (hit + smooth)[there] / (hit + sides[0] * wrong + sides[1] * missed + smooth)[there]
    assert Tversky(*sides, smooth)(logits, None, target).item() == pytest.approx(1 - index.mean(), rel=1e-9, abs=1e-12)
    expected = ((1 - index) ** (1 / gamma)).mean()
    found = FocalTversky(*sides, gamma, smooth)(logits, None, target).item()
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-4)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_with_halves_it_is_dice_with_ones_jaccard_and_with_gamma_1_the_focal_one_is_it(sigmoid: bool) -> None:
    logits, target = draw(0, 2, 3, 4, 4), masks(1, 3, 2, 4, 4)
    dice = Dice(power=1.0, sigmoid=sigmoid)(logits, None, target)
    torch.testing.assert_close(Tversky(0.5, 0.5, sigmoid=sigmoid)(logits, None, target), dice)
    focal = FocalTversky(0.3, 0.7, gamma=1.0, sigmoid=sigmoid)(logits, None, target)
    torch.testing.assert_close(focal, Tversky(sigmoid=sigmoid)(logits, None, target))
    hard = 500.0 * torch.nn.functional.one_hot(masks(2, 3, 2, 4, 4), 3).movedim(-1, 1).double() - 250
    marked, there = hard > 0, target.unsqueeze(1) == torch.arange(3).view(3, 1, 1)
    overlap = (marked & there).sum((0, 2, 3)) / (marked | there).sum((0, 2, 3))
    found = Tversky(1.0, 1.0, sigmoid=sigmoid)(hard, None, target)
    torch.testing.assert_close(found, 1 - overlap.double().mean(), rtol=1e-6, atol=1e-6)


def test_beta_above_alpha_favors_recall() -> None:
    target = torch.tensor([[1, 1, 0, 0]])
    timid, bold = torch.tensor([[[9.0, -9, -9, -9]]]), torch.tensor([[[9.0, 9, 9, -9]]])  # one missed, one too many
    for objective in (Tversky(sigmoid=True), FocalTversky(sigmoid=True)):
        assert objective(bold, None, target) < objective(timid, None, target)
    assert Tversky(0.7, 0.3, sigmoid=True)(bold, None, target) > Tversky(0.7, 0.3, sigmoid=True)(timid, None, target)


@pytest.mark.parametrize("objective", [Tversky(), Tversky(sigmoid=True), FocalTversky(), FocalTversky(gamma=3.0)])
def test_gradient_is_that_of_the_loss_and_finite_where_the_student_is_right(objective: Tversky | FocalTversky) -> None:
    target = masks(1, 3, 2, 2, 3)
    target[0, 0, 0] = VOID
    assert torch.autograd.gradcheck(lambda x: objective(x, None, target), draw(2, 2, 3, 2, 3).requires_grad_())
    right = (100.0 * (target.unsqueeze(1) == torch.arange(3).view(3, 1, 1)) - 50).requires_grad_()
    loss = objective(right, None, target)
    loss.backward()
    assert loss < 1e-6
    assert right.grad is not None
    assert right.grad.isfinite().all()


def test_mistakes_are_named() -> None:
    for kind in (Tversky, FocalTversky):
        with pytest.raises(ObjectiveError, match="alpha must be at least 0"):
            kind(alpha=-1.0)
        with pytest.raises(ObjectiveError, match="both 0"):
            kind(alpha=0.0, beta=0.0)
    with pytest.raises(ObjectiveError, match="gamma must be at least 1"):
        FocalTversky(gamma=0.75)
    with pytest.raises(ObjectiveError, match="focal_tversky needs a target"):
        FocalTversky()(torch.zeros(2, 3))
