"""Batches of scenes: the same from memory and from files, by any workers, from any step, for any processes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.epochs import Batch
from counterpoise.data.scene_loader import SceneEvalLoader, SceneLoader
from counterpoise.data.segmentation_views import ScenePlan, draw, render, shrink
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import IGNORE, ImageSet
from counterpoise.data.sources.memory import concatenate
from counterpoise.data.sources.photos import collect
from counterpoise.errors import ConfigError, CorruptImage, DataError
from counterpoise.system import torchvision_guard

COUNT, EDGE = 11, 20


@pytest.fixture(scope="module", autouse=True)
def _imports() -> None:
    """torchvision keeps the frames that imported it: let them be none that hold a loader and its processes."""
    torchvision_guard.ready()
    import torchvision.transforms.v2  # noqa: F401


def memory(height: int = EDGE, width: int = EDGE + 4, count: int = COUNT) -> ArraySet:
    """Scenes whose image says what their mask is: a class is 40 times as bright."""
    masks = torch.randint(0, 5, (count, height // 4, width // 4), generator=torch.Generator().manual_seed(height))
    masks = masks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    images = (40 * masks + torch.arange(count).view(-1, 1, 1)).to(torch.uint8)[:, None].expand(-1, 3, -1, -1)
    masks[:, 0] = IGNORE
    return ArraySet.of_scenes(images.contiguous(), masks.to(torch.uint8), [*"abcde"])


def write(scenes: ImageSet, root: Path, start: int = 0) -> Path:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    for index in range(len(scenes)):
        image, mask = scenes.read(index).permute(1, 2, 0), scenes.read_mask(index)
        for folder, pixels in (("images", image), ("masks", mask)):
            Image.fromarray(pixels.numpy()).save(root / folder / f"{start + index:02d}.png")
    return root


def files(root: Path) -> ImageSet:
    section = config.Data(path=root, options={"ignore": IGNORE}, on_corrupt="skip")
    whole = sources.load(section).train.split_from
    assert whole.masked
    return whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(memory(), tmp_path / "scenes")


def loader(scenes: ImageSet, **changed: object) -> SceneLoader:
    more = {"rotate": 30.0, "elastic": (3.0, 8), "flip_vertical": True, "gamma": 0.5, "blur": 1.0, "noise": 0.1}
    plan = ScenePlan(3, len(scenes), height=12, width=16, scale=(0.5, 2.0), flip=True, jitter=0.2)
    plan = replace(plan, **(more if changed.pop("more", False) else {}))  # type: ignore[arg-type]
    return SceneLoader(scenes, plan, **({"batch_size": 4, "workers": 0} | changed))  # type: ignore[arg-type]


def joined(batches: Iterable[Batch]) -> tuple[Tensor, Tensor, Tensor]:
    found = list(batches)
    return tuple(torch.cat([getattr(b, name) for b in found]) for name in ("images", "target", "indices"))  # type: ignore[return-value]


def assert_same(one: Iterable[Batch], other: Iterable[Batch]) -> None:
    for mine, yours in zip(joined(one), joined(other), strict=True):
        assert mine.dtype == yours.dtype
        assert torch.equal(mine, yours)


def test_views_are_those_of_their_plan_in_the_order_of_the_epoch() -> None:
    scenes = memory()
    training = loader(scenes)
    batches = list(training.epoch(2))
    assert [len(batch.images) for batch in batches] == [4, 4, 3] == [batch.total for batch in batches]
    images, target, indices = joined(batches)
    assert (images.dtype, target.dtype) == (torch.uint8, torch.int64)
    assert (images.shape, target.shape) == ((COUNT, 3, 12, 16), (COUNT, 12, 16))
    assert sorted(indices.tolist()) == list(range(COUNT))
    assert indices.tolist() != joined(training.epoch(3))[2].tolist()
    for row, index in enumerate(indices.tolist()):
        drawn = draw(training.plan, 2, torch.tensor([index]))[0]
        image, mask = render(training.plan, scenes.read(index), scenes.read_mask(index), drawn)
        assert torch.equal(images[row], image)
        assert torch.equal(target[row], mask.long())


def test_batches_depend_neither_on_where_scenes_lie_nor_on_workers_nor_on_batch_size(folder: Path) -> None:
    held, lying = memory(), files(folder)
    alone = loader(lying, more=True)
    helped = loader(lying, workers=2, more=True)
    for epoch in (0, 1):
        assert_same(loader(held, more=True).epoch(epoch), alone.epoch(epoch))
        assert_same(alone.epoch(epoch), helped.epoch(epoch))
    assert_same(alone.epoch(1), loader(held, batch_size=3, more=True).epoch(1))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_from_any_step(workers: int) -> None:
    training = loader(memory(), workers=workers)
    whole = list(training.epoch(1))
    for first in range(3):
        assert_same(whole[first:], training.epoch(1, first))


def test_two_processes_share_each_batch() -> None:
    scenes = memory()
    one = list(loader(scenes).epoch(1))
    two = [list(loader(scenes, rank=rank, world=2).epoch(1)) for rank in range(2)]
    for whole, *shares in zip(one, *two, strict=True):
        assert_same([whole], shares)
        assert all(share.total == len(whole.images) for share in shares)
    with pytest.raises(ConfigError, match="processes need at least 2"):
        loader(scenes, batch_size=1, world=2)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("side", ["images", "masks"])
def test_a_corrupt_image_or_mask_stops_with_its_name_or_gives_its_place_away(
    folder: Path, side: str, workers: int
) -> None:
    damaged = folder / side / "04.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    scenes = files(folder)
    with pytest.raises(CorruptImage, match=r"04\.png"):
        list(loader(scenes, workers=workers).epoch(0))
    skipping = loader(scenes, workers=workers, on_corrupt="skip")
    images, target, indices = joined(skipping.epoch(0))
    assert skipping.corrupt == [str(damaged)]
    assert sorted(indices.tolist()) == [0, 1, 2, 3, 5, 5, 6, 7, 8, 9, 10]
    five = (indices == 5).nonzero().flatten()
    assert torch.equal(images[five[0]], images[five[1]])
    assert torch.equal(target[five[0]], target[five[1]])
    kept = indices != 5
    whole = joined(loader(memory()).epoch(0))
    assert torch.equal(images[kept], whole[0][(whole[2] != 4) & (whole[2] != 5)])

    evaluation = SceneEvalLoader(scenes, workers=workers, on_corrupt="skip")
    assert joined(evaluation)[2].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert evaluation.corrupt == [str(damaged)]
    with pytest.raises(CorruptImage, match=r"04\.png"):
        list(SceneEvalLoader(scenes, workers=workers))


def test_nothing_readable_is_an_error(folder: Path) -> None:
    for mask in (folder / "masks").iterdir():
        mask.write_bytes(b"")
    with pytest.raises(DataError, match="None of the 11 images can be read"):
        list(loader(files(folder), on_corrupt="skip").epoch(0))
    assert list(SceneEvalLoader(files(folder), workers=0, on_corrupt="skip")) == []


def test_evaluation_keeps_the_order_and_joins_scenes_of_one_size(tmp_path: Path) -> None:
    small, large = memory(count=3), memory(24, 32, count=5)
    root = tmp_path / "mixed"
    write(small, root)
    write(large, root, 3)
    write(small, root, 8)
    scenes = files(root)
    batches = list(SceneEvalLoader(scenes, batch_size=4, workers=0))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5, 6], [7], [8, 9, 10]]
    assert [tuple(batch.target.shape[1:]) for batch in batches] == [(20, 24), (24, 32), (24, 32), (20, 24)]
    assert batches[0].target.dtype == torch.uint8
    for batch in batches:
        for row, index in enumerate(batch.indices.tolist()):
            assert torch.equal(batch.images[row], scenes.read(index))
            assert torch.equal(batch.target[row], scenes.read_mask(index))
    helped = list(SceneEvalLoader(scenes, batch_size=4, workers=2))
    assert [batch.indices.tolist() for batch in helped] == [batch.indices.tolist() for batch in batches]
    assert all(torch.equal(one.images, other.images) for one, other in zip(batches, helped, strict=True))


@pytest.mark.parametrize("world", [2, 3, 16])
def test_processes_evaluate_every_scene_once_between_them(world: int) -> None:
    shares = [SceneEvalLoader(memory(), rank=rank, world=world, batch_size=3) for rank in range(world)]
    assert [index for share in shares for batch in share for index in batch.indices.tolist()] == list(range(COUNT))


def test_large_scenes_come_fewer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("counterpoise.data.scene_loader._PIXELS_AT_ONCE", 2 * 20 * 24 + 1)
    assert [len(batch.images) for batch in SceneEvalLoader(memory())] == [2, 2, 2, 2, 2, 1]


def test_reduction_shrinks_the_images_and_not_the_masks() -> None:
    scenes = memory()
    images, target, _ = joined(SceneEvalLoader(scenes, reduction=2.5))
    assert images.shape == (COUNT, 3, 8, 10)
    assert torch.equal(target, scenes.masks)
    assert torch.equal(images[4], shrink(scenes.read(4), 2.5))
    assert torch.equal(shrink(scenes.read(4), 1.0), scenes.read(4))
    assert shrink(scenes.read(4), 1000.0).shape == (3, 1, 1)
    flat = torch.full((3, 9, 13), 77, dtype=torch.uint8)
    assert (shrink(flat, 1.7) == 77).all()


def test_photos_without_masks_follow_and_are_void(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (30, 18), (200, 10, 10)).save(folder / "red.jpg")
    scenes = concatenate(memory(), collect(folder))
    assert scenes.masked
    assert len(scenes) == COUNT + 1
    images, target, indices = joined(loader(scenes).epoch(0))
    assert (target[indices == COUNT] == IGNORE).all()
    assert images[indices == COUNT].float().mean((0, 2, 3))[0] > 50
    assert not (target[indices != COUNT] == IGNORE).all()
