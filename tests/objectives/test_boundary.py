"""Boundary loss against distances found by trying every pair of pixels, and what it does without an edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.boundary import Boundary, signed_distances

VOID = 255


def draw(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks(seed: int, classes: int, *shape: int) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def by_pairs(region: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The distance of each pixel to the nearest on the other side, half a pixel less, negative within."""
    found = np.zeros(region.shape)
    for place in np.ndindex(region.shape):
        others = np.argwhere(~region & known if region[place] else region)
        nearest = np.sqrt(((others - place) ** 2).sum(1)).min()
        found[place] = 0.5 - nearest if region[place] else nearest - 0.5
    return found


@pytest.mark.parametrize("sigmoid", [False, True])
def test_value_is_that_of_the_formula(sigmoid: bool) -> None:
    logits, target = draw(0, 2, 3, 5, 6), masks(1, 3, 2, 5, 6)
    target[0, 1:3, 2:4] = VOID
    p = (logits.sigmoid() if sigmoid else logits.softmax(1)).numpy()
    known = (target != VOID).numpy()
    total = 0.0
    for image in range(2):
        for c in range(3):
            phi = by_pairs((target[image] == c).numpy(), known[image])
            total += (phi * p[image, c])[known[image]].sum()
    assert Boundary(sigmoid)(logits, None, target).item() == pytest.approx(total / known.sum(), rel=1e-9)


def test_distances_of_a_line_are_those_one_counts() -> None:
    inside = torch.tensor([False, True, True, True, False, False]).view(1, 1, 6)
    found = signed_distances(inside, torch.ones_like(inside)).flatten().tolist()
    assert found == [0.5, -0.5, -1.5, -0.5, 0.5, 1.5]


def test_it_is_least_where_the_student_is_right_and_farther_off_costs_more() -> None:
    target = torch.zeros(1, 9, 9, dtype=torch.int64)
    target[0, 3:6, 3:6] = 1
    right = 40.0 * target.unsqueeze(1) - 20
    near, far = right.clone(), right.clone()
    near[0, 0, 4, 6] = far[0, 0, 4, 8] = 20.0
    losses = [Boundary(sigmoid=True)(each, None, target).item() for each in (right, near, far)]
    assert losses == sorted(losses)
    assert losses[0] < 0


def test_without_an_edge_it_says_nothing() -> None:
    logits = draw(0, 1, 1, 4, 4).requires_grad_()
    for value in (0, 1, VOID):
        loss = Boundary(sigmoid=True)(logits, None, torch.full((1, 4, 4), value))
        assert loss == 0
        assert not torch.autograd.grad(loss, logits)[0].any()


def test_mistakes_are_named() -> None:
    with pytest.raises(ObjectiveError, match="boundary measures distances in maps"):
        Boundary()(torch.zeros(2, 3), None, torch.zeros(2, dtype=torch.int64))
