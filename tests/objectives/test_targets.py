"""Labels of positions, and of those of a map."""

from __future__ import annotations

import pytest
import torch

from counterpoise.errors import ObjectiveError
from counterpoise.objectives.base import entries
from counterpoise.objectives.features import class_means
from counterpoise.objectives.targets import UNLABELED, labels_at, one_hot

VOID = 255


def test_labels_are_those_of_the_nearest_pixel() -> None:
    target = torch.arange(24).view(1, 4, 6)
    assert labels_at(target, (2, 3), 24, None, "x").tolist() == [[[0, 2, 4], [12, 14, 16]]]
    assert labels_at(target, (4, 6), 24, None, "x").equal(target)
    nearest = torch.nn.functional.interpolate(target[None].float(), (3, 4), mode="nearest")[0]
    assert labels_at(target, (3, 4), 24, None, "x").equal(nearest.long())


def test_void_and_unlabeled_do_not_count() -> None:
    target = torch.tensor([[[0, VOID], [-1, 2]]])
    assert labels_at(target, (2, 2), 3, VOID, "x").tolist() == [[[0, UNLABELED], [UNLABELED, 2]]]
    assert labels_at(target.where(target != VOID, 1), (2, 2), 3, 2, "x").tolist() == [[[0, 1], [UNLABELED, UNLABELED]]]


def test_labels_of_whole_images_hold_everywhere() -> None:
    assert labels_at(torch.tensor([1, -1]), (1, 2), 3, VOID, "x").tolist() == [[[1, 1]], [[UNLABELED, UNLABELED]]]
    mixed = torch.tensor([[0.2, 0.0, 0.8], [0.0, 0.0, 0.0]])
    assert labels_at(mixed, (1, 2), 3, VOID, "x").tolist() == [[[2, 2]], [[UNLABELED, UNLABELED]]]


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "focal", "dice", "lovasz_hinge"])
def test_what_weighs_nothing_may_cost_infinitely_much(name: str) -> None:
    logits = torch.tensor([[0.0, -torch.inf, 1.0], [1.0, 0.0, 0.0]])
    target, weight = torch.tensor([1, 0]), torch.tensor([0.0, 1.0])
    logits.requires_grad_()
    loss = entries()[name].kind()
    found = loss(logits, None, target, weight)
    found.backward()
    torch.testing.assert_close(found, loss(logits[1:], None, target[1:]))
    assert logits.grad is not None
    assert (logits.grad[0] == 0).all()
    assert (logits.grad[1] != 0).any()


def test_means_are_by_class_and_image() -> None:
    labels = torch.tensor([[[0, 0], [2, UNLABELED]]])
    feature = torch.tensor([[[[1.0, 3.0], [5.0, 100.0]], [[0.0, 2.0], [4.0, 100.0]]]])
    means = class_means(feature, one_hot(labels.flatten(1), 3).float())
    assert means.tolist() == [[[2.0, 1.0], [0.0, 0.0], [5.0, 4.0]]]


def test_mistakes_are_named() -> None:
    with pytest.raises(ObjectiveError, match="x needs labels, got none"):
        labels_at(None, (2, 2), 3, VOID, "x")
    with pytest.raises(ObjectiveError, match="label 3 is beyond the 3 classes"):
        labels_at(torch.full((1, 2, 2), 3), (2, 2), 3, VOID, "x")
    with pytest.raises(ObjectiveError, match=r"got \[1, 3, 2, 2\] of torch.float32"):
        labels_at(torch.zeros(1, 3, 2, 2), (2, 2), 3, VOID, "x")
