"""The order of an epoch: all of it, or by blocks; the same from any place on, in any process."""

from __future__ import annotations

import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from counterpoise import config
from counterpoise.config import keys
from counterpoise.data import mixing, noticing, order, random
from counterpoise.data.jpeg import Choose
from counterpoise.data.loader import TrainLoader
from counterpoise.data.order import BlockOrder, FullOrder, Order, plan_order
from counterpoise.data.scene_loader import SceneLoader
from counterpoise.data.segmentation_views import ScenePlan
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import ImageSet, Subset
from counterpoise.engine.identify import identify
from counterpoise.engine.state import check_origin
from counterpoise.errors import ConfigError, CorruptImage, DataError, RunError
from counterpoise.system import machine

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def by_blocks(sizes: list[int], window: int, seed: int = 3) -> BlockOrder:
    return BlockOrder(seed, torch.tensor(sizes), window)


def whole(made: Order, epoch: int) -> Tensor:
    return made.at(epoch, 0, made.count)


def a_set(count: int, blocks: list[int] | None = None, sort: bool = False, held: bool = True) -> ImageSet:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) * 5 // count if sort else torch.arange(count) % 5
    images = ArraySet(pixels, labels, "abcde")
    images.blocks = None if blocks is None else torch.tensor(blocks)
    return images if held else Subset(images, torch.arange(count))


class Index(ImageSet):
    """So many images that there are none."""

    def __init__(self, count: int, blocks: list[int] | None = None) -> None:
        super().__init__(torch.zeros(1, dtype=torch.int64).expand(count), "a")
        self.blocks = None if blocks is None else torch.tensor(blocks)

    def name(self, index: int) -> str:
        raise NotImplementedError

    read = extent = identity = name  # type: ignore[assignment]


def data(**options: Any) -> config.Data:
    return config.Data(shuffle="blocks", **options)


@given(SIZES, st.integers(1, 5), st.integers(0, 2**40), st.integers(0, 4), st.data())
def test_an_epoch_shows_every_image_once_and_any_part_of_it_can_be_asked_for(
    sizes: list[int], window: int, seed: int, epoch: int, draw: st.DataObject
) -> None:
    made = by_blocks(sizes, window, seed)
    places = whole(made, epoch)
    assert places.sort().values.tolist() == list(range(made.count))
    start = draw.draw(st.integers(0, made.count - 1))
    stop = start + draw.draw(st.integers(0, made.count))
    fresh = by_blocks(sizes, window, seed)
    assert torch.equal(fresh.at(epoch, start, stop), torch.cat([places, places])[start:stop])


@given(SIZES, st.integers(1, 5), st.integers(0, 4))
def test_the_images_of_a_window_are_those_of_its_blocks_and_windows_are_all_there_is(
    sizes: list[int], window: int, epoch: int
) -> None:
    made = by_blocks(sizes, window)
    ends = torch.tensor(sizes).cumsum(0)
    windows = list(made.windows(epoch))
    assert sorted(torch.cat([one.blocks for one in windows]).tolist()) == list(range(len(sizes)))
    counts = [len(one.blocks) for one in windows]
    assert max(counts) <= window
    assert max(counts) - min(counts) <= 1
    firsts = [one.first for one in windows]
    for one, (first, stop) in zip(windows, pairwise([*firsts, made.count]), strict=True):
        shown = made.at(epoch, first, stop)
        assert set(torch.searchsorted(ends, shown, right=True).tolist()) == set(one.blocks.tolist())
        assert len(shown) <= made.largest
    last = list(made.windows(epoch, made.count - 1))
    assert [one.first for one in last] == firsts[-1:]


@given(SIZES, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_a_set_in_one_window_has_the_order_of_all_of_it(sizes: list[int], seed: int, epoch: int) -> None:
    full = random.permutation(seed, epoch, sum(sizes))
    assert torch.equal(whole(by_blocks(sizes, len(sizes), seed), epoch), full)
    assert torch.equal(whole(FullOrder(seed, sum(sizes)), epoch), full)


@given(SIZES, st.integers(1, 5), st.integers(0, 4))
def test_the_partner_of_an_image_is_the_one_that_follows_it(sizes: list[int], window: int, epoch: int) -> None:
    for made in (by_blocks(sizes, window), FullOrder(3, sum(sizes))):
        indices = torch.arange(made.count).flip(0)
        assert torch.equal(made.partners(epoch, indices), mixing.partners(whole(made, epoch))[indices])
        assert len(made.partners(epoch, indices[:0])) == 0


def test_blocks_and_their_images_come_in_another_order_in_every_epoch() -> None:
    made = by_blocks([4] * 40, 5)
    windows = {tuple(next(made.windows(epoch)).blocks.tolist()) for epoch in range(20)}
    assert len(windows) == 20
    first = torch.stack([made.at(epoch, 0, 160).argsort() for epoch in range(200)]).double().mean(0)
    assert float((first - 79.5).abs().max()) < 16  # standard error 3.3


def test_the_order_is_no_other_tomorrow() -> None:
    made = by_blocks([3, 2, 4, 1, 3, 3], 2, seed=7)
    assert whole(made, 0).tolist() == [2, 12, 1, 10, 11, 0, 8, 7, 5, 9, 6, 13, 15, 14, 4, 3]
    assert made.at(1, 6, 9).tolist() == [11, 10, 12]


def test_what_is_sent_to_a_worker_is_small_and_draws_the_same() -> None:
    for made in (by_blocks([4096] * 50, 10), FullOrder(3, 204800)):
        expected = whole(made, 2)
        made.partners(2, expected[:9])
        sent = pickle.dumps(made)
        assert len(sent) < 10_000
        assert torch.equal(whole(pickle.loads(sent), 2), expected)


def test_memory_is_not_filled_by_windows_that_have_passed() -> None:
    made = by_blocks([2**16] * 50, 10)
    for window in made.windows(0):
        made.at(0, window.first, window.first + 1)
    assert sum(len(held) for held in made._held.values()) <= 2**21


BLOCKS = [5, 9, 8, 2, 11, 4, 6]
MIXED = config.Views(crop="pad", mixup=0.3)


def loader(held: bool = True, views: config.Views = MIXED, workers: int = 0, **changed: Any) -> TrainLoader:
    images = a_set(45, BLOCKS, held=held)
    options = {"num_classes": 5, "batch_size": 8, "seed": 11, "size": 8, "workers": workers} | changed
    return TrainLoader(images, views, order=plan_order(images, data(shuffle_window=2), 11), **options)  # type: ignore[arg-type]


def scene_loader(**changed: Any) -> SceneLoader:
    images = ArraySet.of_scenes(a_set(45).read(0).expand(45, 3, 8, 8), torch.zeros(45, 8, 8).byte(), "ab")
    plan = ScenePlan(11, 45, height=8, width=8, scale=(1.0, 1.0), flip=True, jitter=0.0)
    made = plan_order(images, data(block_size=7, shuffle_window=2), 11)
    return SceneLoader(images, plan, batch_size=8, workers=0, order=made, **changed)


def joined(batches: Any) -> list[Tensor]:
    batches = list(batches)
    return [torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "target", "indices")]


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_any_processes_and_workers_see_the_batches_of_one_from_any_step_on(world: int) -> None:
    alone = list(loader().epoch(1))
    order = plan_order(a_set(45, BLOCKS), data(shuffle_window=2), 11)
    assert torch.equal(torch.cat([batch.indices for batch in alone]), whole(order, 1))
    for first in (0, 3):
        for held in (True, False):
            shares = [list(loader(held, rank=rank, world=world).epoch(1, first)) for rank in range(world)]
            for step, batch in enumerate(alone[first:]):
                assert_same(joined([batch]), joined(share[step] for share in shares))


def test_worker_processes_make_the_same_batches() -> None:
    helped = loader(False, workers=2)
    for epoch in (0, 1):
        assert_same(joined(loader().epoch(epoch)), joined(helped.epoch(epoch)))


def test_scenes_have_the_order_that_is_asked_for() -> None:
    expected = whole(BlockOrder(11, torch.tensor([7] * 6 + [3]), 2), 1)
    assert torch.equal(joined(scene_loader().epoch(1))[2], expected)
    halves = zip(*(scene_loader(rank=rank, world=2).epoch(1, 2) for rank in (0, 1)), strict=True)
    assert torch.equal(torch.cat([part.indices for step in halves for part in step]), expected[16:])


def test_the_teacher_is_shown_images_mixed_with_the_partners_of_the_epoch() -> None:
    images, _, indices = joined(loader().epoch(2))
    for held in (True, False):
        (views,) = loader(held).views_of([torch.arange(45)], 2)
        assert torch.equal(views[indices], images)


def test_a_whole_epoch_drawn_at_once_has_the_same_order() -> None:
    assert loader().static
    indices, _ = loader().draw_epoch(2)
    expected = whole(loader().order, 2)
    assert torch.equal(indices, torch.cat([expected, expected[:1]]))


def test_the_order_belongs_to_views_where_samples_are_mixed_alone() -> None:
    plain = config.Views(crop="pad")
    assert "order" not in loader(views=plain).specification
    mixed = loader().specification
    assert mixed["order"] == by_blocks(BLOCKS, 2).specification["order"] != by_blocks(BLOCKS, 3).specification["order"]
    assert "order" not in TrainLoader(a_set(45), MIXED, num_classes=5, batch_size=8, seed=11, size=8).specification


def test_a_corrupt_image_is_replaced_by_one_with_its_own_partner() -> None:
    made = loader(False, on_corrupt="skip")
    images = made.images
    reading = images.read_part

    def read_part(index: int, choose: Choose) -> tuple[Tensor, tuple[int, int]]:
        if index == 20:
            raise CorruptImage("20", "broken")
        return reading(index, choose)

    images.read_part = read_part  # type: ignore[method-assign]
    shown, _, indices = joined(made.epoch(0))
    twice = (indices == 21).nonzero().flatten()
    assert len(twice) == 2
    assert torch.equal(shown[twice[0]], shown[twice[1]])


def test_blocks_are_those_of_the_set_or_of_the_size_that_is_asked_for() -> None:
    def sizes(images: ImageSet, **options: Any) -> list[int]:
        made = plan_order(images, data(**options), 0)
        assert isinstance(made, BlockOrder)
        return made.sizes.tolist()

    assert sizes(a_set(45, BLOCKS)) == BLOCKS
    assert sizes(a_set(14, [5, 0, 9])) == [5, 9]
    assert sizes(a_set(45, BLOCKS), block_size=20) == [20, 20, 5]
    assert sizes(a_set(130)) == [64, 64, 2]
    assert isinstance(plan_order(a_set(45, BLOCKS), config.Data(), 0), FullOrder)


def test_a_window_holds_16_blocks_or_16384_images_where_nobody_says() -> None:
    def window(count: int, blocks: list[int] | None = None) -> int:
        made = plan_order(Index(count, blocks), data(), 0)
        assert isinstance(made, BlockOrder)
        return made.window

    assert window(102_400) == 256
    assert window(100_000, [10_000] * 10) == 10
    assert window(300_000, [10_000] * 30) == 16
    assert window(100_000, [1000] * 100) == 17


def test_what_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"data.shuffle_window is 8 and the set has 7 blocks: data.shuffle: full"):
        plan_order(a_set(45, BLOCKS), data(shuffle_window=8), 0)
    with pytest.raises(DataError, match=r"blocks of a set of 45 images hold 44"):
        plan_order(a_set(45, [40, 4]), data(), 0)

    images = Index(10**9)
    wanted = data(block_size=10**6, shuffle_window=100, memory_limit_gb=3)
    with pytest.raises(
        ConfigError, match=r"100 blocks .* hold up to 100,000,000 images, .* takes 6.4 GB, more than 3 "
    ):
        plan_order(images, wanted, 0)
    assert plan_order(images, wanted.model_copy(update={"memory_limit_gb": 7.0}), 0).count == 10**9
    monkeypatch.setattr(machine, "memory", lambda: 5e9)
    with pytest.raises(ConfigError, match=r"6.4 GB, more than 5 \(the memory of this machine or container\)"):
        plan_order(images, wanted.model_copy(update={"memory_limit_gb": 7.0}), 0)
    small = data(block_size=1000, memory_limit_gb=0)  # a limit for pictures, not for 16 blocks
    assert plan_order(images, small, 0).count == 10**9


def test_an_empty_set_is_left_to_who_asks_for_its_steps() -> None:
    images = ArraySet(torch.zeros(0, 3, 8, 8).byte(), torch.zeros(0), "ab")
    with pytest.raises(DataError, match="no images"):
        TrainLoader(images, MIXED, num_classes=2, batch_size=2, seed=0, size=8, order=plan_order(images, data(), 0))


def test_images_sorted_by_class_are_told_where_windows_hold_few() -> None:
    images = a_set(400, sort=True)
    (said,) = noticing.few_classes(images, plan_order(images, data(block_size=10, shuffle_window=2), 0))
    assert said.startswith("A window of the order holds 2 classes, and as many images of a full shuffle 5:")
    for sort, options in ((True, {"shuffle_window": 20}), (False, {"shuffle_window": 2})):
        made = plan_order(a_set(400, sort=sort), data(block_size=10, **options), 0)
        assert noticing.few_classes(a_set(400, sort=sort), made) == []
    full = FullOrder(0, 400)
    assert noticing.few_classes(images, full) == noticing.of_order(images, full, config.Data()) == []
    (said,) = noticing.of_order(images, full, config.Data(block_size=3))
    assert said == "The order is full: data.block_size says nothing without data.shuffle blocks."
    sorted_blocks = data(block_size=10, shuffle_window=2)
    assert len(noticing.of_order(images, plan_order(images, sorted_blocks, 0), sorted_blocks)) == 1
    assert plan_order(images, data(), 0).shown() == "by blocks: 7 of 16 to 64 images, mixed within 1 window of up to 7"


def test_more_than_a_cache_keeps_is_told() -> None:
    images = a_set(400, held=False)
    by_eight = plan_order(images, data(block_size=10, shuffle_window=8), 0)
    images.kept_share = 0.25
    assert noticing.of_order(images, by_eight, data()) == []
    images.kept_share = 0.15
    (said,) = noticing.of_order(images, by_eight, data())
    assert said.startswith("A window of the order holds 20% of these images, and the cache keeps 15%, so that they are")
    (said,) = noticing.of_order(images.subset(torch.arange(400)), FullOrder(0, 400), config.Data())
    assert "data.shuffle blocks fetches them shard by shard" in said


def test_the_order_is_part_of_what_a_run_is() -> None:
    for key in ("data.shuffle", "data.block_size", "data.shuffle_window"):
        assert keys.row(key) == keys.Key()


def test_a_run_by_shards_does_not_go_on_with_others() -> None:
    def found(blocks: list[int] | None, section: config.Data) -> dict[str, str]:
        return identify(a_set(45, blocks), a_set(5), {}, section)

    assert "order" not in found(BLOCKS, config.Data())
    assert "order" not in found(BLOCKS, data(block_size=3))
    one, same, other, none = (found(blocks, data()) for blocks in (BLOCKS, BLOCKS, [45], None))
    check_origin(Path("run"), one, same)
    for changed in (other, none):
        with pytest.raises(RunError, match="another cut of its data into shards than it would go on with"):
            check_origin(Path("run"), one, changed)
    assert order.identity(a_set(45), data()) == order.identity(a_set(45), data(shuffle_window=1))


LARGE = r"""
import re, sys, time
import torch
from counterpoise import config
from counterpoise.data.jpeg import Choose
from counterpoise.data.loader import TrainLoader
from counterpoise.data.order import plan_order
from counterpoise.data.sources.base import ImageSet

class Index(ImageSet):
    def read(self, index): return torch.full((3, 8, 8), index % 251, dtype=torch.uint8)
    def extent(self, index): return 8, 8 + index % 2
    def name(self, index): return str(index)
    def identity(self, index): return b""

count, shard, epoch, first = map(int, sys.argv[1:])
def peak(): return 1024 * int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
before, started = peak(), time.process_time()
images = Index(torch.zeros(1, dtype=torch.int64).expand(count), "ab")
images.blocks = torch.full((count // shard,), shard) if shard else None
order = plan_order(images, config.Data(shuffle="blocks"), 0)
views = config.Views(crop="none", size=(8, 8), mixup=0.2)
loader = TrainLoader(images, views, num_classes=2, batch_size=256, seed=0, size=8, workers=0, order=order)
batch = next(loader.epoch(epoch, first))
print(time.process_time() - started, peak() - before, batch.indices.sum().item())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells a process's peak")
@pytest.mark.parametrize("shard", [0, 10_000])
@pytest.mark.parametrize("first", [0, 200_000])
def test_100_million_images_begin_an_epoch_at_any_step_in_10_seconds_and_1_gb(shard: int, first: int) -> None:
    arguments = [str(number) for number in (10**8, shard, 1, first)]
    done = subprocess.run([sys.executable, "-c", LARGE, *arguments], capture_output=True, text=True, check=True)
    seconds, extra, _ = map(float, done.stdout.split())
    assert seconds < 10
    assert extra < 1e9


RUN = (
    LARGE.partition("count, shard")[0]
    + r"""
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.base import Splits
from counterpoise.engine.assemble import assemble
from counterpoise.engine.processes import Processes

def peak(): return 1024 * int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
before, started = peak(), time.process_time()
Index._fingerprint = "as an index keeps it"
images = Index(torch.from_file(sys.argv[1], shared=True, size=10**8, dtype=torch.int64), "ab")
images.blocks = torch.full((10**4,), 10**4)
val = ArraySet(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), "ab")
sections = {"data": {"shuffle": "blocks", "size": 8, "workers": 0}, "train": {"device": "cpu", "precision": "fp32"}}
student = {"student": {"model": "digits/cnn_4_8"}, "objective": {"cross_entropy": {}}}
run, alone = config.resolve({**sections, **student}), Processes(0, 1, torch.device("cpu"))
parts = assemble(run, alone, data=Splits(images, val))
next(parts.train.epoch(0))
print(time.process_time() - started, peak() - before)
"""
)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells a process's peak")
def test_a_whole_run_of_100_million_images_is_put_together_in_10_seconds_and_1_gib(tmp_path: Path) -> None:
    """Labels lie in a file, and count: 0.8 GB of what is taken are theirs."""
    labels = tmp_path / "labels"
    with labels.open("wb") as file:
        file.truncate(8 * 10**8)
    done = subprocess.run([sys.executable, "-c", RUN, str(labels)], capture_output=True, text=True, check=True)
    seconds, extra = map(float, done.stdout.split())
    assert seconds < 10
    assert extra < 2**30
