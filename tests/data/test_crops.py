"""Several crops of a picture in an epoch, and crops that hold an object."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from counterpoise import config
from counterpoise.data import crops
from counterpoise.data.crops import Crops, Foreground
from counterpoise.data.far import Far
from counterpoise.data.order import plan_order
from counterpoise.data.scene_loader import SceneLoader
from counterpoise.data.segmentation_views import ScenePlan, render
from counterpoise.data.segmentation_views import draw as drawn
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import ImageSet
from counterpoise.errors import ConfigError

COUNT, TIMES, CLASSES = 5, 3, ("background", "disc", "vessel")


class Counted(ImageSet):
    """Scenes whose class is told by their red, and which count how often they are decoded."""

    masked = True

    def __init__(self) -> None:
        super().__init__(torch.zeros(COUNT, dtype=torch.int64), CLASSES)
        self.decoded: Counter[int] = Counter()
        self.masks = torch.zeros(COUNT, 40, 50, dtype=torch.uint8)
        for index in range(COUNT - 1):  # the last one has no object
            self.masks[index, 7 * index : 7 * index + 2, 10:40] = 2
            self.masks[index, 30 - index, 5] = 1

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> Tensor:
        self.decoded[index] += 1
        return torch.stack(
            [
                self.masks[index] * 100 + 20 + index,
                *torch.arange(2000)
                .view(2, 1, -1)
                .mul(7)
                .expand(2, 40, -1)[..., :50]
                .add(torch.arange(40).view(-1, 1))
                .to(torch.uint8),
            ]
        )

    def read_mask(self, index: int) -> Tensor:
        return self.masks[index]

    def extent(self, index: int) -> tuple[int, int]:
        return 40, 50

    def identity(self, index: int) -> bytes:
        return b"%d" % index


def loader(images: ImageSet, **changed: object) -> SceneLoader:
    plan = ScenePlan(3, len(images), height=12, width=16, scale=(0.7, 1.5), flip=True, jitter=0.0)
    return SceneLoader(images, plan, **({"batch_size": 4, "workers": 0} | changed))  # type: ignore[arg-type]


def test_an_epoch_shows_every_picture_several_times_each_time_otherwise() -> None:
    pictures = Counted()
    training = loader(Crops(pictures, TIMES))
    assert training.steps_per_epoch == 4
    batches = list(training.epoch(1))
    views = {index: view for batch in batches for index, view in zip(batch.indices.tolist(), batch.images, strict=True)}
    assert sorted(views) == list(range(COUNT * TIMES))
    for index, view in views.items():
        own = drawn(training.plan, 1, torch.tensor([index]))[0]
        assert torch.equal(view, render(training.plan, pictures.read(index // 3), pictures.masks[index // 3], own)[0])
        assert not any(torch.equal(view, views[other]) for other in views if other != index)
    assert torch.equal(
        torch.cat([*training.views_of([torch.arange(15)], 1)]), torch.stack([views[i] for i in range(15)])
    )
    assert ", 3 of each scene an epoch" in training.shown()


@pytest.mark.parametrize("foreground", [None, Foreground(0.5, (1, 2))])
def test_crops_are_the_same_from_any_step_in_any_process_and_batch(foreground: Foreground | None) -> None:
    images = Crops(Counted(), TIMES, 1e9)

    def all_of(batches: list[SceneLoader], first: int = 0) -> dict[int, Tensor]:
        found = [batch for one in batches for batch in one.epoch(2, first)]
        return {int(i): view for batch in found for i, view in zip(batch.indices, batch.images, strict=True)}

    whole = all_of([loader(images, foreground=foreground)])
    others = [
        all_of([loader(images, foreground=foreground, workers=1)]),
        all_of([loader(images, foreground=foreground, batch_size=5)]),
        all_of([loader(images, foreground=foreground, rank=rank, world=2) for rank in range(2)]),
    ]
    rest = all_of([loader(images, foreground=foreground)], 2)
    assert len(rest) == 7
    for other in [*others, rest]:
        assert all(torch.equal(view, whole[index]) for index, view in other.items())
    assert len(whole) == len(others[0]) == len(others[1]) == len(others[2]) == 15


def test_a_picture_is_decoded_once_for_its_crops_of_a_batch_and_kept_where_there_is_room() -> None:
    one = Counted()
    list(loader(Crops(one, TIMES), batch_size=15).epoch(0))
    assert set(one.decoded.values()) == {1}
    several = Counted()
    list(loader(Crops(several, TIMES, 1e9), batch_size=2).epoch(0))
    assert set(several.decoded.values()) == {1}
    tight = Crops(Counted(), TIMES, 1)
    list(loader(tight, batch_size=2).epoch(0))
    assert len(tight._kept) == 2  # a picture and its mask


def test_what_lies_together_stays_together_with_its_crops() -> None:
    pictures = Counted()
    pictures.blocks = torch.tensor([2, 3])
    images = Crops(pictures, TIMES)
    assert images.blocks is not None
    assert images.blocks.tolist() == [6, 9]
    data = config.Data(shuffle="blocks", block_size=2)
    order = plan_order(images, data, 0)
    assert order.sizes.tolist() == [6, 6, 3]  # type: ignore[attr-defined]
    pictures.far = lambda: [Far(range(9), 1, None), Far(range(4), 10, torch.tensor([1, 3]).numpy())]  # type: ignore[method-assign]
    first, second = images.far()
    assert (first.first, len(first), second.first, len(second)) == (3, 27, 30, 6)
    assert second.inner(torch.tensor([2, 3]).numpy()).tolist() == [1, 3]
    assert second.outer(torch.tensor([1, 2, 4]).numpy()).tolist() == [30, 33, 36]


def test_the_stated_share_of_crops_holds_an_object_and_every_pixel_of_it_is_as_likely() -> None:
    mask = Counted().masks[0]
    foreground = Foreground(0.33, (1, 2))
    words = foreground.drawn(7, 0, torch.arange(4000))
    pixels = [foreground.pixel(mask, each) for each in words]
    laid = [pixel for pixel in pixels if pixel is not None]
    assert len(laid) / 4000 == pytest.approx(0.33, abs=0.03)
    found = Counter(int(mask[pixel]) for pixel in laid)
    assert found[0] == 0
    assert found[1] / len(laid) == pytest.approx(0.5, abs=0.06)
    vessel = Counter(pixel for pixel in laid if mask[pixel] == 2)
    assert len(vessel) == 60
    assert all(3 < count < 25 for count in vessel.values())
    assert foreground.pixel(torch.zeros(9, 9, dtype=torch.uint8), (1, 1)) is None
    assert foreground.drawn(7, 1, torch.arange(4000)) != words


def test_a_crop_on_an_object_has_it_in_the_middle_as_far_as_the_scene_reaches() -> None:
    scenes = Counted()
    plan = replace(loader(scenes).plan, scale=(1.0, 1.0), flip=False)
    image, mask = scenes.read(0), torch.zeros(40, 50, dtype=torch.uint8)
    for row, column in ((0, 0), (39, 49), (20, 3), (17, 30)):
        mask.zero_()[row, column] = 2
        own = drawn(plan, 0, torch.tensor([4]))[0]
        _, view = render(plan, image, mask, own, (row, column))
        top, left = min(max(row - 6, 0), 28), min(max(column - 8, 0), 34)
        assert view.nonzero().tolist() == [[row - top, column - left]]
    small, mask = image[:, :5, :7], torch.full((5, 7), 2, dtype=torch.uint8)
    assert torch.equal(render(plan, small, mask, own)[1], render(plan, small, mask, own, (1, 1))[1])


def test_every_view_that_is_to_hold_an_object_does() -> None:
    everywhere = loader(Crops(Counted(), 8), foreground=Foreground(1.0, (2,)))
    for batch in everywhere.epoch(0):
        for index, target in zip(batch.indices.tolist(), batch.target, strict=True):
            assert (target == 2).any() == (index // 8 < COUNT - 1)
    assert "100% of them around a pixel of vessel" in everywhere.shown()
    assert everywhere.specification["foreground"] == [1.0, 2]
    assert "crops" not in loader(Counted()).specification


def test_what_is_an_object_is_said_or_known() -> None:
    assert crops.foreground(0.0, (), CLASSES) is None
    assert crops.foreground(0.5, (), CLASSES) == Foreground(0.5, (1, 2))
    assert crops.foreground(0.5, ("vessel",), CLASSES) == Foreground(0.5, (2,))
    with pytest.raises(ConfigError, match="no class is called background: name those"):
        crops.foreground(0.5, (), ("road", "car"))
    with pytest.raises(ConfigError, match=r"Class 'vesel' is unknown\. Did you mean 'vessel'"):
        crops.foreground(0.5, ("vesel",), CLASSES)
    with pytest.raises(ConfigError, match="the only class"):
        crops.foreground(0.5, (), ("background",))
    with pytest.raises(ValueError, match="give foreground, the share of views, too"):
        config.data.Scenes(foreground_classes=("vessel",))


def test_scenes_in_memory_are_not_kept_twice() -> None:
    held = ArraySet.of_scenes(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(2, 8, 8, dtype=torch.uint8), "ab")
    data = config.Data(scenes=config.data.Scenes(crops=4))
    images = crops.several(held, data)
    assert (len(images), images.fingerprint()) == (8, held.fingerprint())
    assert images.common_extent == (8, 8)
    assert crops.several(held, config.Data()) is held
