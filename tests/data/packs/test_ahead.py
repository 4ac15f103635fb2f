"""What is read next of shards at an address is known: it is fetched ahead, and what is read last makes room for it."""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.loader import TrainLoader
from counterpoise.data.order import FullOrder, Order, plan_order
from counterpoise.data.packs import cache, remote
from counterpoise.data.packs.cache import Cache, Kept
from counterpoise.data.packs.claims import Claims
from counterpoise.data.packs.course import NEVER, Course, Steps
from counterpoise.data.packs.format import Shard
from counterpoise.system import addresses

SMALL = 1024
"""Bytes of a block here: a shard has some, and an image is in one or two."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(addresses, "PAUSE", 0.001)
    for module in (cache, remote):
        monkeypatch.setattr(module, "BLOCK", SMALL)


@pytest.fixture
def load(server: Any, tmp_path: Path) -> Callable[..., Any]:
    """Loads the training part of the pack, of which nothing is kept yet."""

    def read(**options: Any) -> Any:
        options = {"cache": tmp_path / "cache", **options}
        images = sources.load(config.Data(path=Path(f"{server.address}/pack"), options=options)).train
        for block in (tmp_path / "cache").glob("*/blocks/*/*"):
            block.unlink()
        server.asked.clear()
        return images

    return read


def planned(images: Any, order: Order, batch_size: int = 4) -> Course:
    steps = Steps(batch_size, len(images), 0, 1, 1)
    found = Course.of(images, order, steps)
    assert found is not None
    return found


def orders(images: Any) -> list[Order]:
    blocks = config.Data(shuffle="blocks", block_size=3, shuffle_window=2)
    return [FullOrder(5, len(images)), plan_order(images, blocks, 5)]


def read_at(images: Any, order: Order, epoch: int, start: int) -> Iterator[tuple[int, set[tuple[str, int]]]]:
    """Places from one on, counted on through the next epoch, with the blocks that are read there."""
    place = images.place
    for at in range(start, 2 * len(images)):
        turn, there = divmod(at, len(images))
        index = int(order.at(epoch + turn, there, there + 1))
        yield (
            at,
            {
                (place.cache.folder_of(shard), block)
                for shard, offset, length in images.tables[0].expected([index])
                for block in cache.blocks_of(offset, length)
            },
        )


def test_the_next_use_of_a_block_is_where_an_image_in_it_comes_next(load: Any) -> None:
    images = load()
    for order, (epoch, place) in itertools.product(orders(images), [(0, 0), (1, 9), (2, len(images) - 1)]):
        first: dict[tuple[str, int], int] = {}
        for at, blocks in read_at(images, order, epoch, place):
            for block in blocks:
                first.setdefault(block, at)
        kept = [Kept(f"{folder}/{block}", 1, 0) for folder, block in first]
        other = [Kept(f"{images.place.cache.folder}/blocks/other/0", 1, used) for used in (5, 6)]
        uses = planned(images, order).next_uses(epoch, place, [*kept, *other], 6)
        assert uses[-2:].tolist() == [NEVER, len(images)]
        expected = np.array(list(first.values()))
        if isinstance(order, FullOrder):
            assert np.array_equal(uses[:-2], expected)
            continue
        windows = [window.first for window in order.windows(epoch, 0)]  # type: ignore[attr-defined]
        end = next((first for first in windows if first > place), len(images))
        near = expected < end
        assert np.array_equal(uses[:-2][near], expected[near])
        assert (uses[:-2][~near] >= end).all()
        assert (uses[:-2] <= expected).all()


def test_what_is_ahead_is_all_that_is_read_and_not_there(load: Any) -> None:
    images = load()
    for order, room in itertools.product(orders(images), (1e9, 9000.0)):
        wanted = {block for at, blocks in read_at(images, order, 1, 5) if at < len(images) for block in blocks}
        kept = [Kept(f"{folder}/{block}", SMALL, 0) for folder, block in sorted(wanted)[:3]]
        found = [
            (place.cache.folder_of(shard), block)
            for stretch in planned(images, order).ahead(1, 5, 4, room, 3 * SMALL, kept)
            for place, shard, blocks in stretch.runs
            for block in blocks
        ]
        assert len(found) == len(set(found))
        assert set(found) == wanted - set(sorted(wanted)[:3])


@pytest.mark.parametrize(("first", "end", "world"), [(0, 1, 2), (1, 2, 2), (1, 3, 4)])
def test_places_of_other_machines_are_not_read_here(first: int, end: int, world: int) -> None:
    steps = Steps(8, 21, first, end, world)
    ours = [
        place
        for begin in range(0, 21, 8)
        for rank in range(first, end)
        for total in [min(8, 21 - begin)]
        for place in range(begin + total * rank // world, begin + total * (rank + 1) // world)
    ]
    assert torch.arange(24)[steps.here(torch.arange(24))].tolist() == ours


def test_parts_and_joined_sets_know_what_lies_far_away(load: Any, image_folder: Path) -> None:
    images = load()
    here = sources.load(config.Data(path=image_folder)).train
    assert here.far() == []
    part = images.subset(torch.arange(3, 24, 2))
    both = sources.concatenate(here, part.subset(torch.tensor([0, 2, 5, 9])))
    (far,) = both.far()
    assert (far.first, far.inner(np.arange(4)).tolist(), far.outer(np.array([0, 4, 7, 13, 20])).tolist()) == (
        24,
        [3, 7, 13, 21],
        [24, 25, 25, 26, 27],
    )
    assert images.subset(torch.tensor([4, 1])).far() == []
    assert Course.of(images.subset(torch.tensor([4, 1])), FullOrder(0, 2), Steps(1, 2, 0, 1, 1)) is None


def batches(images: Any, order: Order, workers: int, epochs: int = 2) -> list[tuple[list[int], int]]:
    views = config.Views(crop="none", size=(16, 16))
    made = TrainLoader(
        images, views, num_classes=3, batch_size=4, seed=5, size=16, workers=workers, order=order, drop_last=True
    )
    return [(batch.indices.tolist(), int(batch.images.sum())) for epoch in range(epochs) for batch in made.epoch(epoch)]


@pytest.mark.parametrize(
    ("workers", "kind", "room"), [(2, 0, 1.0), (0, 1, 1.0), (0, 0, 1e-4)], ids=["all kept", "by blocks", "little room"]
)
def test_batches_are_the_same_and_no_byte_is_fetched_twice_where_all_is_kept(
    load: Any, server: Any, image_folder: Path, workers: int, kind: int, room: float
) -> None:
    images, folder = load(cache_gb=room), sources.load(config.Data(path=image_folder)).train
    order = orders(images)[kind]
    assert batches(images, order, workers) == batches(folder, order, 0)
    asked = [(path, bytes_) for path, bytes_ in server.asked if path.endswith(".tar")]
    fetched = [(path, block) for path, bytes_ in asked for block in blocks_in(bytes_)]
    assert room < 1 or len(fetched) == len(set(fetched))
    held = sum(each.bytes for each in images.place.cache.kept())
    # where a thread finds another at making room, it leaves that to the next block
    assert held <= images.place.cache.limit + 4096  # what a small file takes of a disk


def blocks_in(asked: str) -> range:
    begin, end = map(int, asked.removeprefix("bytes=").split("-"))
    return range(begin // SMALL, end // SMALL + 1)


def test_what_is_needed_last_goes_first_and_less_is_fetched(packed: Path, tmp_path: Path) -> None:
    """A cache of two thirds of the blocks, with the order and without; a step at a time: nothing is left to chance."""
    data = config.Data(path=Path(f"file://{packed}"), options={"cache": tmp_path / "cache", "cache_gb": 2e-4})
    images, fetched = sources.load(data).train, []
    kept, files = images.place.cache, images.place.files  # type: ignore[attr-defined]
    reading = files.read

    def read(name: str, begin: int, end: int) -> bytes:
        fetched[-1] += end - begin
        return bytes(reading(name, begin, end))

    files.read = read
    for order, known in itertools.product(orders(images), (True, False)):
        for block in kept.folder.glob("blocks/*/*"):
            block.unlink()
        fetched.append(0)
        plan, kept.planned = planned(images, order), known
        for epoch, place in itertools.product(range(3), range(len(images))):
            if known:
                uses = functools.partial(plan.next_uses, epoch, place, since=0)
                kept.make_room(0, lambda found, uses=uses: [found[row] for row in np.argsort(-uses(found))])
            images.file(int(order.at(epoch, place, place + 1)))
    assert fetched[0] < 0.9 * fetched[1]
    assert fetched[2] < 0.9 * fetched[3]


def test_blocks_are_claimed_by_one(tmp_path: Path) -> None:
    one, other = Claims(tmp_path / "there" / ".claims"), Claims(tmp_path / "there" / ".claims")
    assert one.take("a", [1, 2]) == [1, 2]
    assert one.take("a", [2, 3]) == [3]
    held = holding(tmp_path / "there" / ".claims", "a", [2, 4, 5])
    assert held.stdout is not None
    assert held.stdout.readline() == "[4, 5]\n"
    assert pickle.loads(pickle.dumps(other)).take("a", [4, 6]) == [6]
    assert one.take("b", [4]) == [4]
    one.drop("a", [2])
    assert one.take("a", [2]) == [2]
    held.send_signal(signal.SIGKILL)
    held.communicate()
    assert one.take("a", [4]) == [4]


def test_a_process_that_stands_still_keeps_nobody_from_reading(load: Any) -> None:
    images = load()
    held = holding(images.place.cache.folder / ".claims", images.part.shards[0].name, range(100))
    assert held.stdout is not None
    held.stdout.readline()
    images.place.files.timeout = 0.1
    assert images.read(3).shape == (3, 36, 40)
    held.kill()
    held.communicate()


def holding(path: Path, name: str, parts: Any) -> subprocess.Popen[str]:
    """A process that claims parts, says which, and does nothing more."""
    return subprocess.Popen([sys.executable, "-c", HOLD, str(path), name, *map(str, parts)], stdout=-1, text=True)


HOLD = """
import sys, time
from pathlib import Path
from counterpoise.data.packs.claims import Claims
print(Claims(Path(sys.argv[1])).take(sys.argv[2], map(int, sys.argv[3:])), flush=True)
time.sleep(60)
"""


def test_what_a_killed_process_was_writing_is_no_block_and_goes(tmp_path: Path) -> None:
    kept, shard = Cache(tmp_path, "pack", 10**6), Shard(name="s", samples=1, bytes=1500)
    kept.write(shard, 0, bytes(SMALL))
    folder = Path(kept.folder_of(shard))
    (folder / ".1.77.5").write_bytes(bytes(300))
    (folder / "1").write_bytes(bytes(300))  # as a crash of the machine leaves it
    assert kept.missing(shard, [0, 1]) == [1]
    assert len(list(kept.kept())) == 2  # what is being written is not to be removed
    old = time.time() - 1000
    os.utime(folder / ".1.77.5", (old, old))
    assert sorted(Path(each.path).name for each in kept.kept()) == ["0", "1"]
    assert not (folder / ".1.77.5").exists()
