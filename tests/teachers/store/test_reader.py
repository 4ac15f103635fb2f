"""Reading: the same logits whether mapped, read or in memory; damage is named."""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from counterpoise.errors import StoreError
from counterpoise.teachers.store import Store, reader


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def open_below(folder: Path) -> int:
    files = [os.path.realpath(handle) for handle in Path("/proc/self/fd").iterdir()]
    return sum(Path(file).is_relative_to(folder.resolve()) for file in files)


@pytest.fixture(params=["mapped", "positional"])
def store(request: pytest.FixtureRequest, store_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "positional":
        monkeypatch.setattr(reader, "MAPPED_BYTES", 0)
    return Store.open(store_path)


def test_every_view_is_what_was_recorded(kit: Any, store: Store) -> None:
    indices, slots = kit.every_view(store.header)
    assert torch.equal(store.logits(indices, slots), kit.answers(indices, slots))


def test_a_view_may_be_asked_for_twice_or_none(kit: Any, store: Store) -> None:
    indices, slots = torch.tensor([3, 3, 49]), torch.tensor([2, 2, 0])
    assert torch.equal(store.logits(indices, slots), kit.answers(indices, slots))
    assert store.logits(indices[:0], slots[:0]).shape == (0, 40)


def test_few_files_are_open_at_once(kit: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_OPEN", 2)
    indices, slots = kit.every_view(store.header)
    assert torch.equal(store.logits(indices, slots), kit.answers(indices, slots))
    assert len(store._files) == 2
    for sample in (0, 20, 0, 40):  # of three chunks; that which was not read for longest is closed
        store.logits(torch.tensor([sample]), torch.tensor([0]))
    assert list(store._files) == [0, 2]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_no_file_stays_open_behind_it(kit: Any, store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAPPED_BYTES", 0)
    with Store.open(store_path) as store:
        store.logits(*kit.every_view(store.header))
        assert open_below(store_path) == 9
    assert open_below(store_path) == 0


def test_it_travels_to_other_processes(kit: Any, store: Store) -> None:
    indices, slots = kit.every_view(store.header)
    store.logits(indices, slots)
    with pickle.loads(pickle.dumps(store)) as other:
        assert torch.equal(other.logits(indices, slots), kit.answers(indices, slots))


def test_a_store_in_memory_answers_alike(kit: Any, store: Store) -> None:
    indices, slots = kit.every_view(store.header)
    resident = store.on("cpu")
    assert resident.data.shape == (150, 160)
    assert torch.equal(resident.logits(indices, slots), kit.answers(indices, slots))
    assert torch.equal(resident.has(indices, slots + 1), slots < 2)


def test_views_that_are_missing_are_told_and_named(kit: Any, tmp_path: Path) -> None:
    kit.record(tmp_path, kit.header(slots=(1, 4)))
    store = Store.open(tmp_path)
    indices = torch.tensor([0, 49, 50, -1, 3, 3, 3, 3])
    slots = torch.tensor([1, 4, 1, 4, 0, 2, 5, -1])
    assert store.has(indices, slots).tolist() == [True, True] + 6 * [False]
    with pytest.raises(StoreError, match=r"View 2 of sample 3 is not in store .* views 1, 4 of samples 0-49. Extend"):
        store.logits(torch.tensor([0, 3]), torch.tensor([1, 2]))
    with pytest.raises(StoreError, match="View 1 of sample 50 is not"):
        store.on("cpu").logits(torch.tensor([50]), torch.tensor([1]))


def test_a_truncated_chunk_is_found_when_the_store_is_opened(store_path: Path) -> None:
    file = store_path / "chunks" / "000001-000001.bin"
    with file.open("rb+") as stream:
        stream.truncate(1000)
    with pytest.raises(StoreError, match=r"Chunk 000001-000001\.bin of store .* has 1000 bytes, not 3200"):
        Store.open(store_path)
    file.unlink()
    (store_path / "chunks" / "000002-000000.bin").unlink()
    for name, more in (("000002-000001.bin", 2), ("000002-000002.bin", 3)):
        (store_path / "chunks" / name).unlink()
        with pytest.raises(StoreError, match=rf"Chunk 000001-000001\.bin .* is missing \(and {more} more\)"):
            Store.open(store_path)


def test_a_flipped_bit_is_found_before_it_is_trained_on(kit: Any, store_path: Path, flip: Callable[..., None]) -> None:
    flip(store_path / "chunks" / "000002-000001.bin", 4242)
    store = Store.open(store_path)
    indices = torch.arange(50)
    assert torch.equal(store.logits(indices, torch.ones_like(indices)), kit.answers(indices, torch.ones_like(indices)))
    for _ in range(2):
        with pytest.raises(StoreError, match=r"Chunk 000002-000001\.bin .* is damaged"):
            store.logits(indices, torch.full_like(indices, 2))


def test_a_chunk_truncated_under_a_reader_is_no_crash(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAPPED_BYTES", 0)
    store = Store.open(store_path)
    indices, slots = torch.tensor([0, 6]), torch.tensor([0, 0])
    store.logits(indices, slots)
    with (store_path / "chunks" / "000000-000000.bin").open("rb+") as stream:
        stream.truncate(200)
    with pytest.raises(StoreError, match="truncated while it was read"):
        store.logits(indices, slots)


def test_a_folder_without_a_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no store"):
        Store.open(tmp_path / "nowhere")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of a process from /proc")
def test_reading_all_of_a_large_store_takes_little_memory(
    kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = kit.header(count=50_000, slots=(0,), shape=(200,), rows_per_chunk=10_000)  # 40 MB
    kit.record(tmp_path / "store", header, size=2500)
    small = kit.header(count=50, slots=(0,), shape=(200,))
    kit.record(tmp_path / "small", small)
    indices = torch.randperm(header.count)

    def growth(limit: int) -> int:
        def read() -> None:
            monkeypatch.setattr(reader, "MAPPED_BYTES", limit)
            # A fork has the memory of its parent, but must find the pages of its libraries again: not counted here.
            Store.open(tmp_path / "small").logits(torch.arange(50), torch.zeros(50, dtype=torch.int64))
            store = Store.open(tmp_path / "store")
            before, peak = resident_bytes(), 0
            for part in indices.split(250):
                store.logits(part, torch.zeros_like(part))
                peak = max(peak, resident_bytes() - before)
            (tmp_path / "peak").write_text(str(peak))

        assert os.waitpid(kit.fork(read), 0)[1] == 0
        return int((tmp_path / "peak").read_text())

    assert growth(header.bytes) > 35e6  # mapped, all of it ends in memory
    assert growth(header.bytes - 1) < 15e6
