"""What a teacher is recorded on, `views_of`, is what a student is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data.epochs import Epochs
from counterpoise.data.loader import TrainLoader
from counterpoise.data.scene_loader import SceneLoader
from counterpoise.data.segmentation_views import ScenePlan
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Subset
from counterpoise.system import torchvision_guard

COUNT = 23
VIEWS = {
    "pad": config.Views(crop="pad", padding=2),
    "randaugment": config.Views(crop="pad", randaugment=config.RandAugment()),
    "mixup": config.Views(crop="pad", mixup=0.4),
    "cutmix": config.Views(crop="none", cutmix=1.0),
    "resized": config.Views(crop="resized", mixup=0.4, cutmix=1.0),
}


@pytest.fixture(scope="module", autouse=True)
def _imports() -> None:
    """torchvision keeps the frames that imported it: let them be none that hold a loader and its processes."""
    torchvision_guard.ready()
    import torchvision.transforms.v2  # noqa: F401


def pictures(held: bool) -> ArraySet | Subset:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (COUNT, 3, 16, 16), dtype=torch.uint8, generator=generator)
    images = ArraySet(pixels, torch.arange(COUNT) % 3, "abc")
    return images if held else Subset(images, torch.arange(COUNT))


def train(name: str, held: bool, **changed: Any) -> TrainLoader:
    options = {"num_classes": 3, "batch_size": 8, "seed": 11, "size": 16, "workers": 0} | changed
    return TrainLoader(pictures(held), VIEWS[name], **options)


def scenes(held: bool, workers: int = 0, **changed: Any) -> SceneLoader:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (COUNT, 3, 20, 24), dtype=torch.uint8, generator=generator)
    masks = torch.randint(0, 3, (COUNT, 20, 24), dtype=torch.uint8, generator=generator)
    whole = ArraySet.of_scenes(pixels, masks, "abc")
    plan = ScenePlan(3, COUNT, height=12, width=16, scale=(0.5, 2.0), flip=True, jitter=0.2)
    images = whole if held else Subset(whole, torch.arange(COUNT))
    return SceneLoader(images, plan, **{"batch_size": 8, "workers": workers, **changed})


def seen(loader: Epochs, epoch: int) -> Tensor:
    """The view of every sample in an epoch, by its index."""
    batches = list(loader.epoch(epoch))
    images, indices = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "indices"))
    return images[indices.argsort()]


def groups() -> Iterator[Tensor]:
    return iter(torch.split(torch.arange(COUNT), 10))


@pytest.mark.parametrize("held", [True, False], ids=["in memory", "read"])
@pytest.mark.parametrize("name", [*VIEWS, "scenes"])
def test_views_of_samples_are_those_that_an_epoch_shows(name: str, held: bool) -> None:
    loader = scenes(held) if name == "scenes" else train(name, held)
    for epoch in (0, 3):
        shown = list(loader.views_of(groups(), epoch))
        assert [len(views) for views in shown] == [10, 10, 3]
        assert torch.equal(torch.cat(shown), seen(loader, epoch))


@pytest.mark.parametrize("name", ["resized", "scenes"])
def test_workers_show_the_same_and_go_on_to_the_next_epoch(name: str) -> None:
    loader = scenes(False, 2) if name == "scenes" else train(name, False, workers=2)
    expected = seen(loader, 1)
    for _ in range(2):
        assert torch.equal(torch.cat(list(loader.views_of(groups(), 1))), expected)
        assert torch.equal(seen(loader, 1), expected)


@pytest.mark.parametrize("world", [1, 2])
def test_processes_and_batch_sizes_see_one_set_of_views(world: int) -> None:
    expected = torch.cat(list(train("mixup", True, rank=0, world=world, batch_size=6).views_of(groups(), 2)))
    assert torch.equal(expected, seen(train("mixup", True), 2))


@pytest.mark.parametrize("held", [True, False], ids=["in memory", "read"])
def test_the_number_of_a_view_shows_it_again(held: bool) -> None:
    loader = train("pad", held)
    assert loader.countable() == 50
    views = seen(loader, 4)
    numbers = loader.numbers(4, torch.arange(COUNT))
    assert len(numbers.unique()) > 5
    for index, number in enumerate(numbers.tolist()):
        (again,) = loader.views_of([torch.tensor([index])], 0, number)
        assert torch.equal(again[0], views[index])


def test_what_chance_draws_freely_cannot_be_counted() -> None:
    counts = {name: train(name, True).countable() for name in VIEWS}
    assert counts == {"pad": 50, "randaugment": None, "mixup": None, "cutmix": None, "resized": None}
    assert scenes(True).countable() is None
    for loader in (train("mixup", True), scenes(True)):  # one view an epoch
        assert loader.numbers(3, torch.arange(2)).tolist() == [3, 3]
