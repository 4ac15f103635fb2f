"""Soft Dice against its formula in numpy, and what it does with void, weights and sigmoids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.dice import Dice

VOID = 255


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks(seed: int, classes: int, *shape: int) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def expected(p: np.ndarray, g: np.ndarray, power: float, smooth: float) -> float:
    """From probabilities and truths [positions, classes]."""
    scores = [
        (2 * (p[:, c] * g[:, c]).sum() + smooth) / ((p[:, c] ** power).sum() + (g[:, c] ** power).sum() + smooth)
        for c in range(p.shape[1])
        if g[:, c].sum() > 0
    ]
    return 1 - float(np.mean(scores))


@given(st.integers(0, 2**31), st.sampled_from((1.0, 2.0, 3.0)), st.sampled_from((0.0, 1e-5, 1.0)))
@settings(max_examples=25)
def test_value_is_that_of_the_formula(seed: int, power: float, smooth: float) -> None:
    logits, target = 2 * draw(seed, 2, 6, 3, 4), masks(seed, 4, 2, 3, 4)  # two of six classes are never there
    target[0, 0] = VOID
    target[1, 2, :2] = -1
    kept = ((target >= 0) & (target != VOID)).flatten().numpy()
    p = softmax(logits.movedim(1, -1).reshape(-1, 6).numpy(), 1)[kept]
    g = np.eye(6)[target.flatten().numpy()[kept]]
    assert Dice(power, smooth)(logits, None, target).item() == pytest.approx(expected(p, g, power, smooth), rel=1e-10)


def test_a_student_that_is_right_costs_nothing_and_one_that_is_wrong_one() -> None:
    target = masks(0, 3, 2, 5, 5)
    right = 200.0 * (target.unsqueeze(1) == torch.arange(3).view(3, 1, 1))
    assert Dice()(right, None, target).item() == pytest.approx(0.0, abs=1e-6)
    assert Dice()(right.roll(1, 1), None, target).item() == pytest.approx(1.0, abs=1e-6)


def test_a_class_counts_alike_however_small_it_is() -> None:
    target = torch.zeros(1, 40, 40, dtype=torch.int64)
    target[0, 0, 0] = 1
    blind = torch.zeros(1, 2, 40, 40)
    blind[:, 0] = 50.0
    assert Dice()(blind, None, target).item() == pytest.approx(0.5, abs=1e-3)


def test_gradient_is_that_of_the_loss() -> None:
    target = masks(1, 3, 2, 2, 3)
    target[0, 0, 0] = VOID
    for objective in (Dice(), Dice(1.0, 1.0), Dice(sigmoid=True)):
        logits = draw(2, 2, 3, 2, 3).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, f=objective: f(x, None, target), logits)


def test_one_logit_by_sigmoid_is_the_mask_of_label_one() -> None:
    logits, target = draw(0, 2, 1, 4, 4), masks(3, 2, 2, 4, 4)
    p, g = expit(logits.numpy()).reshape(-1, 1), target.numpy().reshape(-1, 1).astype(float)
    assert Dice(sigmoid=True)(logits, None, target).item() == pytest.approx(expected(p, g, 2, 0), rel=1e-10)
    nothing = torch.zeros_like(target)
    assert Dice(sigmoid=True)(logits, None, nothing) == 0  # no position is of the class


def test_several_labels_at_once_are_floats() -> None:
    logits, target = draw(0, 2, 3, 4, 4), masks(3, 2, 2, 3, 4, 4).double()
    p, g = (x.movedim(1, -1).reshape(-1, 3).numpy() for x in (logits.sigmoid(), target))
    assert Dice(sigmoid=True)(logits, None, target).item() == pytest.approx(expected(p, g, 2, 0), rel=1e-10)
    target[0, 1, :2] = -1  # of one of them nothing is known here
    known = (target[:, 1] >= 0).flatten().numpy()
    each = [expected(p[keep, c : c + 1], g[keep, c : c + 1], 2, 0) for c, keep in enumerate((..., known, ...))]
    assert Dice(sigmoid=True)(logits, None, target).item() == pytest.approx(np.mean(each), rel=1e-10)


def test_probabilities_of_labels_are_those_labels() -> None:
    logits, target = draw(0, 2, 3, 4, 4), masks(3, 3, 2, 4, 4)
    soft = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).double()
    soft[0, :, 0, 0] = 0.0  # no label
    target[0, 0, 0] = -1
    torch.testing.assert_close(Dice()(logits, None, soft), Dice()(logits, None, target))


def test_a_weight_repeats_a_position() -> None:
    logits, target = draw(0, 3, 4), torch.tensor([0, 2, 2])
    weight = torch.tensor([1.0, 2.0, 1.0])
    again = torch.tensor([0, 1, 1, 2])
    torch.testing.assert_close(Dice()(logits, None, target, weight), Dice()(logits[again], None, target[again]))


def test_void_may_hold_anything() -> None:
    logits, target = draw(0, 2, 3, 4, 4), masks(3, 3, 2, 4, 4)
    target[:, 0] = VOID
    plain = Dice()(logits, None, target)
    logits[:, :, 0] = torch.nan
    logits.requires_grad_()
    loss = Dice()(logits, None, target)
    torch.testing.assert_close(loss, plain)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()
    assert (gradient[:, :, 0] == 0).all()


def test_mistakes_are_named() -> None:
    logits = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ObjectiveError, match="dice needs a target"):
        Dice()(logits)
    with pytest.raises(ObjectiveError, match=r"target must have shape \[2, 4, 4\], got \[2, 8, 8\]"):
        Dice()(logits, None, masks(0, 3, 2, 8, 8))
    with pytest.raises(ObjectiveError, match="label 3 is beyond the 3 classes"):
        Dice()(logits, None, torch.full((2, 4, 4), 3))
    with pytest.raises(ObjectiveError, match="must have the logits' shape"):
        Dice()(logits, None, torch.zeros(2, 3))
    with pytest.raises(ObjectiveError, match="power must be at least 1"):
        Dice(power=0.5)
    with pytest.raises(ObjectiveError, match="smooth must be at least 0"):
        Dice(smooth=-1.0)
