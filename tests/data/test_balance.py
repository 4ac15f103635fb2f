"""Epochs in which rare classes come more often, as a function of seed and epoch alone."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from counterpoise import config
from counterpoise.config import keys
from counterpoise.data import balance
from counterpoise.data.loader import TrainLoader
from counterpoise.data.order import BalancedOrder, FullOrder, plan_order
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import ImageSet, Subset
from counterpoise.engine import remarks
from counterpoise.errors import ConfigError

SIZES = [30, 9, 4, 1]
LABELS = torch.repeat_interleave(torch.arange(4), torch.tensor(SIZES))[
    torch.randperm(44, generator=torch.manual_seed(5))
]
SOME = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def order(power: float = 1.0, seed: int = 3, labels: Tensor = LABELS) -> BalancedOrder:
    return BalancedOrder(seed, labels, power)


def whole(made: FullOrder, epoch: int) -> Tensor:
    return made.at(epoch, 0, made.count)


def a_set(held: bool = True) -> ImageSet:
    pixels = torch.randint(0, 256, (44, 3, 8, 8), dtype=torch.uint8, generator=torch.manual_seed(1))
    images = ArraySet(pixels, LABELS, "abcd")
    return images if held else Subset(images, torch.arange(44))


def loader(held: bool = True, **changed: Any) -> TrainLoader:
    images = a_set(held)
    options: dict[str, Any] = {"num_classes": 4, "batch_size": 8, "seed": 11, "size": 8, "workers": 0, **changed}
    return TrainLoader(
        images, config.Views(crop="pad"), order=plan_order(images, config.Data(balance=1.0), 11), **options
    )


def joined(batches: Any) -> list[Tensor]:
    batches = list(batches)
    return [torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "target", "indices")]


@pytest.mark.parametrize(
    ("power", "places"), [(0.0, SIZES), (0.5, [21, 11, 8, 4]), (1.0, [11] * 4)], ids=["as they are", "between", "alike"]
)
def test_classes_have_their_places_in_every_epoch(power: float, places: list[int]) -> None:
    for epoch in range(3):
        assert LABELS[whole(order(power), epoch)].bincount().tolist() == places


def test_images_without_a_label_come_as_they_are() -> None:
    labels = torch.cat([torch.full((6,), -1), LABELS])
    made = order(labels=labels)
    shown = whole(made, 4)
    assert sorted(shown[shown < 6].tolist()) == list(range(6))
    assert labels[shown[shown >= 6]].bincount().tolist() == [11] * 4
    assert made.shown().startswith("balanced: classes of 1 to 30 images take 11 places of an epoch, an image up to 11")


@settings(max_examples=30)
@given(SOME, st.sampled_from([0.3, 0.5, 1.0]), st.integers(0, 2**64 - 1), st.integers(1, 40))
def test_no_image_is_shown_again_before_all_of_its_class_were(
    sizes: list[int], power: float, seed: int, epochs: int
) -> None:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    made = order(power, seed, labels)
    assert int(made.shares.places.sum()) == made.count
    often = sum(torch.bincount(whole(made, epoch), minlength=made.count) for epoch in range(epochs))
    for number in range(len(sizes)):
        own = often[labels == number]
        assert int(own.max() - own.min()) <= 1
        assert int(own.sum()) == epochs * int(made.shares.places[number])


def test_an_epoch_is_a_function_of_seed_and_epoch_in_these_very_images(monkeypatch: pytest.MonkeyPatch) -> None:
    made, fresh = order(), order()
    for epoch in (0, 1, 2, 7):
        whole(made, epoch)
    assert torch.equal(whole(made, 7)[5:20], pickle.loads(pickle.dumps(fresh)).at(7, 5, 20))
    assert whole(order(labels=torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])), 1).tolist() == [0, 2, 6, 1, 7, 7, 4, 6]
    assert not torch.equal(whole(made, 0), whole(made, 1))
    assert not torch.equal(whole(made, 0), whole(order(seed=4), 0))
    assert len(whole(made, 10**6)) == 44  # the only image of a class is in its ten millionth round
    expected = whole(made, 3)
    monkeypatch.setattr(balance, "_AT_ONCE", 7)
    assert torch.equal(whole(order(), 3), expected)


def test_where_an_image_comes_next_is_told() -> None:
    made = order()
    shown = whole(made, 2).tolist()
    for near in (0, 17, 43):
        for image, found in enumerate(made.places(2, torch.arange(44), near).tolist()):
            places = [place for place, other in enumerate(shown) if other == image]
            assert found == next((place for place in places if place >= near), min(places, default=44))


@pytest.mark.parametrize("world", [1, 3])
def test_any_processes_see_the_batches_of_one_from_any_step_on(world: int) -> None:
    alone = list(loader().epoch(1))
    assert loader().steps_per_epoch == len(alone) == 6
    assert torch.equal(torch.cat([batch.indices for batch in alone]), whole(loader().order, 1))
    for first, held in ((0, True), (4, False)):
        shares = [list(loader(held, rank=rank, world=world).epoch(1, first)) for rank in range(world)]
        for step, batch in enumerate(alone[first:]):
            assert all(map(torch.equal, joined([batch]), joined(share[step] for share in shares)))


def test_images_on_disk_make_the_same_batches_and_a_teacher_is_shown_the_same_views() -> None:
    images, target, indices = joined(loader().epoch(2))
    assert all(map(torch.equal, (images, target, indices), joined(loader(False).epoch(2))))
    assert target.bincount().tolist() == [11] * 4
    (views,) = loader().views_of([torch.arange(44)], 2)
    assert torch.equal(views[indices], images)  # one view an image and epoch, however often it is shown
    assert torch.equal(loader().draw_epoch(2)[0], indices)


def test_a_store_fits_with_or_without_and_the_key_is_part_of_what_a_run_is() -> None:
    plain = TrainLoader(a_set(), config.Views(crop="pad"), num_classes=4, batch_size=8, seed=11, size=8)
    assert loader().specification == plain.specification
    assert keys.row("data.balance") == keys.Key()
    assert type(plan_order(a_set(), config.Data(), 0)) is FullOrder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balance": 1.5}, "less than or equal to 1"),
        ({"balance": 0.5, "shuffle": "blocks"}, "reads what lies together: take one"),
        ({"balance": 0.5, "views": {"cutmix": 1.0}}, "mixup and cutmix would mix it with another each time"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config.Data.model_validate(options)


def test_images_that_have_not_one_class_each_are_refused() -> None:
    pixels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    several = ArraySet(pixels, torch.ones(4, 2, dtype=torch.int8), "ab")
    scenes = ArraySet.of_scenes(pixels, torch.zeros(4, 8, 8, dtype=torch.uint8), "ab")
    none = ArraySet(pixels, torch.full((4,), -1), "ab")
    for images, message in ((several, "pos_weight"), (scenes, "class_weight"), (none, "none of the 4 has a label")):
        with pytest.raises(ConfigError, match=message):
            plan_order(images, config.Data(balance=1.0), 0)
    with pytest.raises(ConfigError, match="none has one partner"):
        order().partners(0, torch.arange(3))


def test_weights_that_count_rare_classes_twice_are_told() -> None:
    objective = {"cross_entropy": {"class_weight": "effective"}, "balance": {}}
    run = config.Run.model_validate({"data": {"balance": 1.0}, "objective": objective, "student": {"model": "a/b"}})
    (said,) = remarks.of_balance(run)
    assert said.startswith("data.balance shows rare classes more often, and objective.cross_entropy.class_weight")
    assert not list(remarks.of_balance(run.model_copy(update={"data": config.Data()})))
