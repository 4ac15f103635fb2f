import contextlib
import multiprocessing
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import time
from multiprocessing import AuthenticationError, resource_sharer
from multiprocessing.connection import Client

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoise import config
from counterpoise.data import images, mixing, random, sources
from counterpoise.data.loader import EvalLoader, TrainLoader
from counterpoise.data.sources import ArraySet, Concatenation, ImageSet, Subset
from counterpoise.errors import ConfigError, CorruptImage, DataError, RunError

CLASSES = ("a", "b", "c")
SETTINGS = {
    "pad": config.Views(crop="pad"),
    "randaugment": config.Views(crop="pad", randaugment=config.RandAugment()),
    "mixup": config.Views(crop="pad", mixup=0.4),
    "both": config.Views(crop="none", flip=False, mixup=0.4, cutmix=1.0),
    "all": config.Views(crop="pad", flip_vertical=True, rotate=20, randaugment=config.RandAugment(), cutmix=1.0),
}


def array_set(n, height=16, width=16):
    generator = torch.Generator().manual_seed(n)
    pixels = torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)
    return ArraySet(pixels, torch.arange(n) % 4 - 1, CLASSES)  # every fourth is unlabeled


def on_disk(images):
    """The same images as a set that is not held in memory."""
    return Subset(images, torch.arange(len(images)))


def train(images, views=SETTINGS["pad"], **changed):
    options = {"num_classes": 3, "batch_size": 8, "seed": 11, "size": 16, "workers": 0}
    return TrainLoader(images, views, **(options | changed))


def joined(batches):
    """An epoch in one piece: images, target, indices."""
    batches = list(batches)
    return tuple(torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "target", "indices"))


def assert_same(one, other):
    for left, right in zip(one, other, strict=True):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)


@pytest.mark.parametrize("views", SETTINGS.values(), ids=SETTINGS)
@settings(max_examples=6)
@given(st.integers(2, 30), st.integers(1, 31), st.integers(0, 5))
def test_views_depend_neither_on_the_batch_size_nor_on_where_images_lie(views, n, batch_size, epoch):
    pixels = array_set(n)
    whole = joined(train(pixels, views, batch_size=n).epoch(epoch))
    assert_same(whole, joined(train(pixels, views, batch_size=batch_size).epoch(epoch)))
    assert_same(whole, joined(train(on_disk(pixels), views, batch_size=batch_size).epoch(epoch)))


@pytest.mark.parametrize(
    "views", [SETTINGS["all"], config.Views(crop="resized", rotate=30, mixup=0.2)], ids=["pad", "resized"]
)
def test_workers_make_what_one_process_makes(views):
    pixels = on_disk(array_set(45, 30, 20))
    alone, helped = (train(pixels, views, workers=workers) for workers in (0, 2))
    for epoch in (0, 1):
        assert_same(joined(alone.epoch(epoch)), joined(helped.epoch(epoch)))
    assert_same(joined(alone.epoch(1, 3)), joined(helped.epoch(1, 3)))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("place", [lambda images: images, on_disk], ids=["memory", "disk"])
@pytest.mark.parametrize("views", [SETTINGS["pad"], SETTINGS["all"]], ids=["pad", "all"])
def test_shares_of_all_processes_make_the_batch_of_one(views, place, world):
    pixels = place(array_set(44))
    batches = list(train(pixels, views).epoch(2))
    shares = [list(train(pixels, views, rank=rank, world=world).epoch(2)) for rank in range(world)]
    for step, batch in enumerate(batches):
        parts = [share[step] for share in shares]
        assert_same(joined([batch]), joined(parts))
        assert {part.total for part in parts} == {batch.total} == {len(batch.images)}
        sizes = [len(part.images) for part in parts]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("place", [lambda images: images, on_disk], ids=["memory", "disk"])
@pytest.mark.parametrize("views", [SETTINGS["pad"], SETTINGS["all"]], ids=["pad", "all"])
def test_starting_at_a_step_gives_exactly_the_remaining_batches(views, place, monkeypatch):
    monkeypatch.setattr("counterpoise.data.loader._DRAWN_AT_ONCE", 16)
    loader = train(place(array_set(45)), views)
    batches = list(loader.epoch(3))
    assert len(batches) == loader.steps_per_epoch == 6
    for first in range(7):
        rest = list(loader.epoch(3, first))
        assert len(rest) == 6 - first
        for batch, again in zip(batches[first:], rest, strict=True):
            assert_same(joined([batch]), joined([again]))


def test_earlier_images_are_not_decoded_where_an_epoch_starts_late():
    pixels = on_disk(array_set(40))
    read = []
    pixels.read_part = lambda index, choose: read.append(index) or pixels.whole.read_part(index, choose)
    list(train(pixels).epoch(0, 3))
    assert sorted(read) == sorted(random.permutation(11, 0, 40)[24:].tolist())


def test_an_epoch_follows_its_permutation_with_the_labels_of_the_samples():
    pixels = array_set(45)
    _, target, indices = joined(train(pixels).epoch(4))
    assert torch.equal(indices, random.permutation(11, 4, 45))
    assert torch.equal(target, pixels.labels[indices])
    assert target.dtype == torch.int64
    assert -1 in target


def test_drop_last_leaves_out_the_incomplete_batch():
    loader = train(array_set(45), drop_last=True)
    assert loader.steps_per_epoch == 5
    assert [len(batch.images) for batch in loader.epoch(0)] == [8] * 5


def test_mixed_targets_are_probabilities_or_zeros():
    pixels = array_set(60)
    _, target, indices = joined(train(pixels, SETTINGS["both"]).epoch(0))
    assert target.shape == (60, 3)
    partner = mixing.partners(random.permutation(11, 0, 60))[indices]
    labeled = (pixels.labels[indices] >= 0) & (pixels.labels[partner] >= 0)
    assert 0 < labeled.sum() < 60
    assert torch.allclose(target.sum(1), labeled.float(), atol=1e-6)


def test_a_single_image_is_its_own_partner():
    pixels = array_set(1)
    for place in (pixels, on_disk(pixels)):
        batch = next(train(place, SETTINGS["both"]).epoch(0))
        assert torch.equal(batch.images, pixels.images)


def test_rectangular_images_in_memory_keep_their_size():
    pixels = array_set(10, 12, 20)
    (batch, *_) = train(pixels, config.Views(cutmix=1.0, randaugment=config.RandAugment()), size=None).epoch(0)
    assert batch.images.shape == (8, 3, 12, 20)
    assert next(iter(EvalLoader(pixels, size=None))).images.shape == (10, 3, 12, 20)


def test_an_epoch_left_early_does_not_reach_into_the_next():
    loader = train(on_disk(array_set(64)), SETTINGS["pad"], workers=2, batch_size=2)
    for _, _batch in zip(range(3), loader.epoch(0), strict=False):
        pass
    assert_same(joined(loader.epoch(1)), joined(train(array_set(64), SETTINGS["pad"]).epoch(1)))


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_does_not_touch_global_chance(workers):
    before = torch.get_rng_state()
    list(train(on_disk(array_set(9)), SETTINGS["all"], workers=workers).epoch(0))
    list(EvalLoader(on_disk(array_set(9)), size=8, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"world": 6}, r"has 5, too few for 6 processes: set train\.drop_last or train\.batch_size to 9\."),
        ({"batch_size": 64, "drop_last": True}, r"train\.drop_last leaves nothing.*45"),
        ({"batch_size": 2, "world": 3}, r"train\.batch_size is 2; 3 processes"),
    ],
)
def test_impossible_batches_are_refused_with_advice(changed, match):
    with pytest.raises(ConfigError, match=match):
        train(array_set(45), **changed)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5), st.booleans())
def test_every_process_has_a_sample_in_every_step_that_is_allowed(n, batch_size, world, drop_last):
    pixels = array_set(n, 1, 1)
    options = {"batch_size": batch_size, "world": world, "drop_last": drop_last, "size": None}
    try:
        loaders = [train(pixels, config.Views(crop="none"), rank=rank, **options) for rank in range(world)]
    except ConfigError:
        smallest = batch_size if drop_last else n % batch_size or batch_size
        assert smallest < world or batch_size < world or (drop_last and n < batch_size)
        return
    for loader in loaders:
        assert all(len(batch.images) > 0 for batch in loader.epoch(0))


def test_files_of_several_sizes_need_a_view_size(image_folder):
    pixels = sources.load(config.Data(path=image_folder)).train
    with pytest.raises(ConfigError, match=r"data\.size"):
        train(pixels, size=None)
    with pytest.raises(ConfigError, match=r"data\.size"):
        EvalLoader(pixels, size=None)


@pytest.fixture
def damaged(image_folder):
    """24 training images of which two are cut off, by their places in the set."""
    pixels = sources.load(config.Data(path=image_folder)).train
    for index in (3, 10):
        path = pixels.file(index)
        path.write_bytes(path.read_bytes()[:-200])
    return pixels


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_stops_with_its_name_also_out_of_a_worker(damaged, workers):
    names = "|".join(re.escape(damaged.name(index)) for index in (3, 10))
    with pytest.raises(CorruptImage, match=rf"^Image ({names}) cannot be read: [^\n]*$"):  # no traceback of a worker
        list(train(damaged, workers=workers, batch_size=4).epoch(0))
    with pytest.raises(CorruptImage, match=damaged.file(3).name):
        list(EvalLoader(damaged, size=16, workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("views", [config.Views(), config.Views(mixup=0.5)], ids=["plain", "mixup"])
def test_a_skipped_image_is_counted_and_replaced_by_the_next_readable(damaged, views, workers):
    loader = train(damaged, views, workers=workers, on_corrupt="skip")
    pictures, target, indices = joined(loader.epoch(1))
    assert sorted(loader.corrupt) == [damaged.name(3), damaged.name(10)]
    order = random.permutation(11, 1, 24)
    assert torch.equal(indices, torch.where((order == 3) | (order == 10), order + 1, order))
    if not views.mixup:
        assert torch.equal(target, damaged.labels[indices])
    for index in (4, 11):  # twice the same view of one sample: a view has one content
        first, second = torch.nonzero(indices == index).flatten().tolist()
        assert torch.equal(pictures[first], pictures[second])
        assert torch.equal(target[first], target[second])
    assert_same((pictures, target, indices), joined(train(damaged, views, batch_size=5, on_corrupt="skip").epoch(1)))
    list(loader.epoch(2))
    assert len(loader.corrupt) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_leaves_corrupt_images_out_and_counts_them(damaged, workers):
    loader = EvalLoader(damaged, size=16, batch_size=4, workers=workers, on_corrupt="skip")
    for _ in range(2):
        _, target, indices = joined(loader)
        assert indices.tolist() == [index for index in range(24) if index not in (3, 10)]
        assert torch.equal(target, damaged.labels[indices])
        assert loader.corrupt == [damaged.name(3), damaged.name(10)]


def test_images_left_out_earlier_are_counted(damaged):
    pixels = array_set(10)
    pixels.corrupt.append("lost.png")
    assert train(pixels).corrupt == ["lost.png"]
    assert EvalLoader(pixels, size=None).corrupt == ["lost.png"]


def test_a_set_without_a_readable_image_is_an_error(damaged):
    for path in map(damaged.file, range(len(damaged))):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="None of the 24 images can be read"):
        list(train(damaged, on_corrupt="skip").epoch(0))
    assert list(EvalLoader(damaged, size=16, workers=0, on_corrupt="skip")) == []


def test_evaluation_gives_every_image_once_in_order_as_prepared():
    pixels = array_set(23, 20, 26)
    for workers in (0, 2):
        pictures, target, indices = joined(EvalLoader(pixels, size=12, crop_share=0.8, batch_size=5, workers=workers))
        assert torch.equal(pictures, torch.stack([images.prepare(picture, 12, 0.8) for picture in pixels.images]))
        assert torch.equal(indices, torch.arange(23))
        assert torch.equal(target, pixels.labels)


@pytest.mark.parametrize("world", [1, 2, 3, 30])
def test_evaluation_shares_are_the_set_in_order(world):
    pixels = array_set(23)
    shares = [EvalLoader(pixels, size=16, batch_size=5, rank=rank, world=world) for rank in range(world)]
    pictures, target, indices = joined(batch for share in shares for batch in share)
    assert torch.equal(pictures, pixels.images)
    assert torch.equal(target, pixels.labels)
    assert torch.equal(indices, torch.arange(23))


def test_labeled_and_unlabeled_folders_train_together(image_folder, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, path in enumerate(sorted((image_folder / "val").rglob("*.jpg"))):
        path.rename(photos / f"{number}.jpg")
    pixels = sources.load(config.Data(path=image_folder, unlabeled=photos)).train
    assert isinstance(pixels, Concatenation)
    _, target, _ = joined(train(pixels, size=16).epoch(0))
    assert torch.bincount(target + 1).tolist() == [6, 8, 8, 8]


class Deadly(ImageSet):
    """Ends the process that reads its last image, as running out of memory does."""

    def __init__(self):
        super().__init__(torch.zeros(12, dtype=torch.int64), CLASSES)

    def name(self, index):
        return str(index)

    def read(self, index):
        if index == 11:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(3, 16, 16, dtype=torch.uint8)

    def extent(self, index):
        return 16, 16

    def identity(self, index):
        return b""


def test_the_death_of_a_worker_is_told_in_plain_words():
    with pytest.raises(RunError, match=r"data\.workers"):
        list(train(Deadly(), batch_size=2, workers=1).epoch(0))


def test_a_batch_that_cannot_be_handed_over_is_told_and_not_waited_for():
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    loader = train(on_disk(array_set(40)), batch_size=40, workers=1)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, usual[1]))  # of shared memory, too: as where /dev/shm is full
        with pytest.raises(RunError, match=r"cannot hand over a batch: .*--shm-size.*--data\.workers 0"):
            list(loader.epoch(0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def test_workers_end_with_their_loader():
    before = set(multiprocessing.active_children())
    loader = train(on_disk(array_set(40)), workers=2)
    next(loader.epoch(0))
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    del loader
    assert not any(worker.is_alive() for worker in workers)


SCRIPT = """
    import multiprocessing, signal, sys, time, torch
    from counterpoise import config
    from counterpoise.data.loader import TrainLoader
    from counterpoise.data.sources import ArraySet, Subset

    pixels = ArraySet(torch.zeros(4000, 3, 8, 8, dtype=torch.uint8), torch.zeros(4000), ["a", "b"])
    options = dict(num_classes=2, batch_size=4, seed=0, size=8)
    next(TrainLoader(pixels, config.Views(), **options).epoch(0))
    print("torchvision" in sys.modules)

    noted = []
    default = signal.signal(signal.SIGINT, lambda *_: noted.append(True))
    slow = Subset(pixels, torch.arange(4000))
    slow.read_part = lambda index, choose: time.sleep(0.02) or pixels.read_part(index, choose)
    batches = TrainLoader(slow, config.Views(crop="none"), workers=2, **options).epoch(0)
    next(batches)
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    while not noted:
        time.sleep(0.01)
    for _ in range(10):  # more than were made ahead
        next(batches)
    signal.signal(signal.SIGINT, default)
    print("still reading", flush=True)
    for batch in batches:
        pass
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_ctrl_c_reaches_the_main_process_alone_and_leaves_no_worker():
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout.readline() == "False\n"  # pad, crop and flip in memory do without torchvision
            workers = [int(pid) for pid in process.stdout.readline().split()]
            assert len(workers) == 2
            os.killpg(process.pid, signal.SIGINT)
            assert process.stdout.readline() == "still reading\n"
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert errors.count("Traceback") == 1
    assert "KeyboardInterrupt" in errors
    deadline = time.monotonic() + 120
    while any(map(_exists, workers)):
        assert time.monotonic() < deadline, "a worker is left"
        time.sleep(0.05)


def put_where_nobody_takes(items):
    from counterpoise.data import workers

    workers._start_worker(0)
    for item in items:
        queue = multiprocessing.Queue()
        queue._reader.close()
        queue.put(item)
        queue.close()
        queue.join_thread()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_batch_that_nobody_takes_any_more_is_no_error_to_be_told(capfd):
    for items, told in (([1], False), ([1, lambda: None], True)):  # a function cannot be sent
        worker = multiprocessing.get_context("fork").Process(target=put_where_nobody_takes, args=(items,))
        worker.start()
        worker.join()
        assert worker.exitcode == 0
        assert ("Traceback" in capfd.readouterr().err) == told


def hand_over_to_who_goes(key):
    """A worker hands over a file, as it does with tensors, and who has asked for it is gone; or has another key."""
    from counterpoise.data import workers

    workers._start_worker(0)
    resource_sharer.DupFd(0)
    address = resource_sharer._resource_sharer._address
    if key is None:
        with socket.socket(socket.AF_UNIX) as main:
            main.connect(address)
    else:
        with contextlib.suppress(AuthenticationError):
            Client(address, authkey=key)
    resource_sharer.stop(timeout=60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_workers_of_a_process_that_was_killed_say_nothing(capfd):
    for key, told in ((None, False), (b"another", True)):
        worker = multiprocessing.get_context("fork").Process(target=hand_over_to_who_goes, args=(key,))
        worker.start()
        worker.join()
        assert worker.exitcode == 0
        assert ("Traceback" in capfd.readouterr().err) == told


def _exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
