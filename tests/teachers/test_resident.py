"""A store in device memory says what the store on disk says: bit for bit, or to one rounding on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from counterpoise import config
from counterpoise.data.loader import TrainLoader
from counterpoise.data.sources.arrays import ArraySet
from counterpoise.data.sources.division import split
from counterpoise.errors import StoreError
from counterpoise.teachers import resident
from counterpoise.teachers.store import Header, Resident, Store, StoreWriter
from counterpoise.teachers.stored import LoaderTeacher, StoredTeacher

COUNT, CLASSES = 30, 40
EPOCH = 1
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")),
]


def images() -> ArraySet:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (COUNT, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return ArraySet(pixels, torch.arange(COUNT) % 3, tuple(map(str, range(CLASSES))))


def stored(folder: Path, kind: Any, precision: str, device: str, part: bool = False, **changed: Any) -> LoaderTeacher:
    """A teacher of views of `images()`, or of some of them, from a store of random logits."""
    whole = images()
    views = config.Views(crop="pad", padding=1) if kind != "plain" else config.Views(crop="none", flip=False)

    def loader(chosen: ArraySet) -> TrainLoader:
        options: dict[str, Any] = {"num_classes": CLASSES, "batch_size": 7, "seed": 5, "size": None, "device": device}
        return TrainLoader(chosen, views, **options)

    all_slots = {"complete": range(18), "epochs": range(3), "plain": range(1)}[kind]
    header = Header.create(
        data=whole.fingerprint(),
        teacher="0" * 64,
        kind=kind,
        views=loader(whole).specification,
        count=COUNT,
        slots=changed.get("slots", all_slots),
        shape=[CLASSES],
        precision=precision,
        chunk_bytes=2000,  # several a slot
        classes=whole.classes,
    )
    generator = torch.Generator().manual_seed(1)
    with StoreWriter.create(folder, header) as writer:
        for chunk in writer.missing():
            logits = 4 * torch.randn(chunk.stop - chunk.start, CLASSES, generator=generator)
            writer.write(chunk, [logits])
        writer.finish()
    chosen = split(whole, 12, seed=2).train if part else whole
    return LoaderTeacher(Store.open(folder), loader(chosen), torch.device(device), data=chosen, classes=whole.classes)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "int4", "top5"])
@pytest.mark.parametrize(
    ("kind", "part"), [("complete", False), ("complete", True), ("epochs", False), ("plain", True)]
)
def test_rows_in_memory_give_the_logits_that_are_read_from_disk(
    kind: str, part: bool, precision: str, device: str, tmp_path: Path
) -> None:
    teacher = stored(tmp_path / "store", kind, precision, device, part)
    if part:
        assert teacher.positions is not None
    on_disk = list(teacher.follow(EPOCH, teacher.loader.epoch(EPOCH)))
    assert resident.hold(teacher)
    assert isinstance(teacher.source, Resident)
    assert teacher.source.data.device.type == device
    in_memory = list(teacher.follow(EPOCH, teacher.loader.epoch(EPOCH)))
    held = resident.ResidentTeacher(teacher)
    indices = torch.cat([batch.indices for batch, _ in on_disk])
    rows = held.rows(EPOCH, indices).to(device)
    everything = held.logits(rows)
    start = 0
    for (batch, read), (_, again) in zip(on_disk, in_memory, strict=True):
        # Rows from disk are decoded on the CPU; a GPU rounds once where that rounds twice.
        torch.testing.assert_close(again.logits, read.logits, rtol=0, atol=2e-6 if device == "cuda" else 0)
        stop = start + len(batch.indices)
        assert torch.equal(everything[start:stop], again.logits)
        assert torch.equal(held.logits(rows[start:stop]), again.logits)
        start = stop
    assert start == len(indices) == len(teacher.loader.images)


def test_a_store_too_large_for_what_is_free_stays_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = stored(tmp_path / "store", "plain", "float16", "cpu")
    free = resident.free_memory(torch.device("cpu"))
    assert free is None or free > 10**6
    monkeypatch.setattr(resident, "SHARE", 0.0)
    assert not resident.hold(teacher)
    assert isinstance(teacher.source, Store)


def test_views_that_are_not_in_the_store_are_refused(tmp_path: Path) -> None:
    teacher = stored(tmp_path / "store", "epochs", "float16", "cpu", slots=[0, 2])
    resident.hold(teacher)
    held = resident.ResidentTeacher(teacher)
    assert held.rows(2, torch.arange(4)).tolist() == [30, 31, 32, 33]
    with pytest.raises(StoreError, match="lacks views that epoch 1 shows"):
        held.rows(1, torch.arange(4))


def test_a_store_answers_by_sample_and_view_without_a_loader(tmp_path: Path) -> None:
    ours = stored(tmp_path / "store", "complete", "float32", "cpu")
    teacher = StoredTeacher(tmp_path / "store")
    samples = torch.tensor([3, 1, 4])
    views = ours.slots(epoch=2)[samples]
    expected = ours.store.logits(samples, views)
    assert teacher(samples, views).equal(expected)
    assert teacher(samples.int()[None], views[None]).equal(expected[None])
    assert teacher(3, int(views[0])).equal(expected[0])
    assert teacher([1, 1], 5).equal(teacher(1, view=5).expand(2, -1))
    assert teacher.views == tuple(range(18))


@pytest.mark.parametrize(
    ("index", "view", "told"),
    [([0, COUNT], 0, "store"), ([0], 18, "store"), ([0, 1], [0], "one shape"), ([0.5], 0, "whole numbers")],
)
def test_what_was_not_recorded_is_refused(tmp_path: Path, index: Any, view: Any, told: str) -> None:
    stored(tmp_path / "store", "complete", "float32", "cpu")
    with pytest.raises(StoreError, match=told):
        StoredTeacher(tmp_path / "store")(index, view)
