"""The Lovasz extension against its definition by sets, and where it is intersection over union."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from torch import Tensor

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.lovasz import LovaszHinge, LovaszSoftmax

VOID = 255


def draw(seed: int, *shape: int) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def masks(seed: int, classes: int, *shape: int) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def of_sets(errors: np.ndarray, truth: np.ndarray) -> float:
    """sum_k m_(k) (Delta of the k largest - Delta of the k - 1 largest), sets as Python has them."""
    own = set(np.flatnonzero(truth))
    order = np.argsort(-errors, kind="stable")

    def lost(wrong: set[int]) -> float:
        union = own | wrong
        return 1 - len(own - wrong) / len(union) if union else 0.0

    return sum(errors[p] * (lost(set(order[: k + 1])) - lost(set(order[:k]))) for k, p in enumerate(order))


@given(st.integers(0, 2**31), st.booleans())
@settings(max_examples=25)
def test_value_is_that_of_the_definition(seed: int, per_image: bool) -> None:
    logits, target = draw(seed, 2, 5, 3, 4), masks(seed, 4, 2, 3, 4)  # one of five classes is never there
    target[0, 0] = VOID
    soft, hinge = [], []
    for images in ([0], [1]) if per_image else ([0, 1],):
        scores, labels = logits[images].movedim(1, -1).reshape(-1, 5).numpy(), target[images].flatten().numpy()
        scores, labels = scores[labels != VOID], labels[labels != VOID]
        p = softmax(scores, 1)
        classes = [labels == c for c in range(5)]
        present = [(c, g) for c, g in enumerate(classes) if g.any()]
        soft.append(np.mean([of_sets(np.where(g, 1 - p[:, c], p[:, c]), g) for c, g in present]))
        margins = [(np.maximum(0, 1 - np.where(g, 1, -1) * scores[:, c]), g) for c, g in enumerate(classes)]
        hinge.append(np.mean([of_sets(*each) for each in margins]))
    assert LovaszSoftmax(per_image)(logits, None, target).item() == pytest.approx(np.mean(soft), rel=1e-9)
    assert LovaszHinge(per_image)(logits, None, target).item() == pytest.approx(np.mean(hinge), rel=1e-9)


def test_of_sure_answers_it_is_one_less_the_mean_intersection_over_union() -> None:
    target, answers = masks(0, 3, 2, 9, 9), masks(1, 3, 2, 9, 9)
    marked, there = (each.unsqueeze(1) == torch.arange(3).view(3, 1, 1) for each in (answers, target))
    overlap = ((marked & there).sum((0, 2, 3)) / (marked | there).sum((0, 2, 3))).double()
    lost = 1 - overlap.mean()
    sure = 1000.0 * marked.double() - 500
    torch.testing.assert_close(LovaszSoftmax()(sure, None, target), lost)
    torch.testing.assert_close(LovaszSoftmax(sigmoid=True)(sure, None, target), lost)
    torch.testing.assert_close(LovaszHinge()(2.0 * marked.double() - 1, None, target), 2 * lost)  # errors 0 and 2


def test_an_answer_where_nothing_is_costs_the_hinge_its_largest_error_and_the_softmax_nothing() -> None:
    logits, nothing = torch.tensor([[[[-3.0, 0.5, -2.0]]]]), torch.zeros(1, 1, 3, dtype=torch.int64)
    assert LovaszHinge()(logits, None, nothing) == 1.5
    assert LovaszSoftmax(sigmoid=True)(logits, None, nothing) == 0


def test_a_weight_repeats_a_position() -> None:
    logits, target = draw(0, 3, 4), torch.tensor([0, 2, 2])
    weight, again = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([0, 1, 1, 2])
    for objective in (LovaszSoftmax(), LovaszHinge()):
        found, repeated = objective(logits, None, target, weight), objective(logits[again], None, target[again])
        torch.testing.assert_close(found, repeated)


def test_gradient_is_that_of_the_loss() -> None:
    target = masks(1, 3, 2, 2, 3)
    target[0, 0, 0] = VOID
    for objective in (LovaszSoftmax(), LovaszSoftmax(True, sigmoid=True), LovaszHinge()):
        assert torch.autograd.gradcheck(lambda x, f=objective: f(x, None, target), draw(2, 2, 3, 2, 3).requires_grad_())


def test_mistakes_are_named() -> None:
    with pytest.raises(ObjectiveError, match="lovasz_softmax needs a target"):
        LovaszSoftmax()(torch.zeros(2, 3))
    with pytest.raises(ObjectiveError, match="label 3 is beyond the 3 classes"):
        LovaszHinge()(torch.zeros(2, 3, 4), None, torch.full((2, 4), 3))
