"""Labels are counted once, and as they are now."""

from __future__ import annotations

import pytest
import torch

from counterpoise.data import labels
from counterpoise.data.sources.arrays import ArraySet


def a_set(values: list[int]) -> ArraySet:
    return ArraySet(torch.zeros(len(values), 3, 2, 2, dtype=torch.uint8), torch.tensor(values), "abc")


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_counts_are_those_of_all_parts_of_the_labels(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "_AT_ONCE", at_once)
    images = a_set([-1, 2, 0, 2, -1])
    assert labels.counts(images.labels, 3) == [2, 1, 0, 2]
    assert images.unlabeled == 2
    assert images.per_class() == [1, 0, 2]


def test_the_same_images_in_another_order_of_classes_are_counted_anew() -> None:
    images = a_set([0, 2, 2])
    assert images.per_class() == [1, 0, 2]
    assert images.in_order("cab").per_class() == [2, 1, 0]
    images.labels = torch.tensor([1, 1, -1])
    assert (images.unlabeled, images.per_class()) == (1, [0, 2, 0])


def test_labels_beyond_the_classes_are_counted_too() -> None:
    assert labels.counts(torch.tensor([4, 0]), 3) == [0, 1, 0, 0, 0, 1]
