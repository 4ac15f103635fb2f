"""Whole stores: checked, mended, joined, made smaller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterpoise.errors import StoreError
from counterpoise.teachers.store import Store, info, merge, prune, verify


def test_a_sound_store_has_no_damage(store_path: Path) -> None:
    assert verify(store_path) == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 8), st.integers(0, 10 * 160 * 8 - 1))
def test_any_flipped_bit_is_found_and_its_chunk_named(store_path: Path, flip: Any, number: int, bit: int) -> None:
    file = sorted((store_path / "chunks").iterdir())[number]
    flip(file, bit)
    assert verify(store_path) == [(file.name, "has changed bytes")]
    flip(file, bit)
    assert verify(store_path) == []


def test_all_damage_is_told_and_mended(kit: Any, store_path: Path, flip: Callable[..., None]) -> None:
    before = kit.contents(store_path)
    files = sorted((store_path / "chunks").iterdir())
    flip(files[1], 77)
    with files[3].open("rb+") as stream:
        stream.truncate(100)
    files[5].unlink()
    with files[7].open("ab") as stream:
        stream.write(files[7].read_bytes())
    with files[8].open("ab") as stream:
        stream.write(b"more")
    found = verify(store_path)
    assert found == [
        (files[1].name, "has changed bytes"),
        (files[3].name, "is truncated: 100 of 3200 bytes"),
        (files[5].name, "is missing"),
        (files[7].name, "has 3200 bytes more"),
        (files[8].name, "has 4 bytes more"),
    ]
    assert verify(store_path, discard=True) == found
    assert kit.record(store_path, kit.header())
    assert kit.contents(store_path) == before


def test_an_unfinished_recording_is_checked_as_far_as_it_goes(kit: Any, tmp_path: Path, flip: Any) -> None:
    kit.record(tmp_path, kit.header(), limit=4)
    assert verify(tmp_path) == []
    flip(tmp_path / "chunks" / "000000-000002.bin", 5)
    assert verify(tmp_path) == [("000000-000002.bin", "has changed bytes")]


def test_info_tells_what_is_there(kit: Any, tmp_path: Path) -> None:
    header = kit.header(precision="int8", notes={"teacher name": "cifar/wrn_16_2"})
    kit.record(tmp_path, header, limit=5)
    assert info(tmp_path)["state"] == "recording, 5 of 9 chunks"
    kit.record(tmp_path, header)
    told = info(tmp_path)
    expected = {"state": "finished", "views": "epochs, 0-2", "samples": 50, "bytes": 3 * 50 * 72, "logits": "40"}
    expected |= {"bits a logit": 14.4, "bytes a view of a sample": 72, "chunks": 9}
    assert expected.items() <= told.items()
    assert told["teacher name"] == "cifar/wrn_16_2"
    kit.record(tmp_path, kit.header(precision="int8", slots=(5,)), limit=1)
    assert info(tmp_path)["state"] == "finished, being extended to views 0-2, 5"


def test_parts_of_several_machines_merge(kit: Any, tmp_path: Path) -> None:
    header = kit.header()
    parts = [tmp_path / f"part{k}" for k in range(3)]
    for k in (0, 2):
        kit.record(parts[k], header, (k, 3))
    with pytest.raises(StoreError, match=r"3 chunks are in none of .*: 000001-000000\.bin, .*Record the parts"):
        merge(parts[0], parts[2], out=tmp_path / "merged")
    kit.record(parts[1], header, (1, 3))
    before = [kit.contents(part) for part in parts]
    merge(*parts, out=tmp_path / "merged")
    assert [kit.contents(part) for part in parts] == before
    kit.record(tmp_path / "whole", header)
    assert kit.contents(tmp_path / "merged") == kit.contents(tmp_path / "whole")
    merge(*parts, out=parts[0])
    assert kit.contents(parts[0]) == kit.contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("limit", "told"), [(4, r"000002-000002\.bin\. Record"), (3, r"000002-000001\.bin, \.\.\.\. Record")]
)
def test_of_chunks_that_are_missing_five_are_named(kit: Any, tmp_path: Path, limit: int, told: str) -> None:
    kit.record(tmp_path / "part", kit.header(slots=(0, 1, 2)), limit=limit)
    with pytest.raises(StoreError, match=rf"{9 - limit} chunks are in none .*{told}"):
        merge(tmp_path / "part", out=tmp_path / "out")


def test_a_chunk_that_cannot_be_removed_is_named(store_path: Path) -> None:
    chunk = store_path / "chunks" / "000000-000001.bin"
    chunk.unlink()
    chunk.mkdir()
    assert verify(store_path) == [(chunk.name, "is missing")]
    with pytest.raises(StoreError, match=r"000000-000001\.bin could not be removed"):
        verify(store_path, discard=True)


def test_stores_of_different_epochs_merge(kit: Any, tmp_path: Path) -> None:
    kit.record(tmp_path / "a", kit.header(slots=(0, 2)))
    kit.record(tmp_path / "b", kit.header(slots=(1, 2)))
    assert merge(tmp_path / "a", tmp_path / "b", out=tmp_path / "both")["views"] == "epochs, 0-2"
    kit.record(tmp_path / "whole", kit.header())
    assert kit.contents(tmp_path / "both") == kit.contents(tmp_path / "whole")


def test_what_does_not_belong_together_is_not_merged(kit: Any, tmp_path: Path, flip: Callable[..., None]) -> None:
    for name, changes in (("a", {}), ("b", {"teacher": "f" * 64}), ("c", {"precision": "int8"})):
        kit.record(tmp_path / name, kit.header(**changes))
    with pytest.raises(StoreError, match="other teacher"):
        merge(tmp_path / "a", tmp_path / "b", out=tmp_path / "out")
    with pytest.raises(StoreError, match="precision: float32 in the store, int8 given"):
        merge(tmp_path / "a", tmp_path / "c", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    flip(tmp_path / "a" / "chunks" / "000001-000001.bin", 3)
    with pytest.raises(StoreError, match=r"a: Chunk 000001-000001\.bin is damaged"):
        merge(tmp_path / "a", out=tmp_path / "out")
    kit.record(tmp_path / "d", kit.header())
    merge(tmp_path / "a", tmp_path / "d", out=tmp_path / "out")  # the other one is sound
    assert kit.contents(tmp_path / "out") == kit.contents(tmp_path / "d")


@pytest.mark.parametrize("where", [None, "out", "store", "out/../store"])
def test_views_are_dropped(kit: Any, store_path: Path, tmp_path: Path, where: str | None) -> None:
    before, elsewhere = kit.contents(store_path), where == "out"
    (tmp_path / "out").mkdir()
    out = None if where is None else tmp_path / where
    assert prune(store_path, keep=[2, 0], out=out)["views"] == "epochs, 0, 2"
    kit.record(tmp_path / "whole", kit.header(slots=(0, 2)))
    assert kit.contents(out or store_path) == kit.contents(tmp_path / "whole")
    if elsewhere:
        assert kit.contents(store_path) == before


def test_fewer_bits_are_those_of_a_store_recorded_so(kit: Any, store_path: Path, tmp_path: Path) -> None:
    prune(store_path, keep=[1], precision="int8", out=tmp_path / "small")
    kit.record(tmp_path / "whole", kit.header(slots=(1,), precision="int8"))
    assert kit.contents(tmp_path / "small") == kit.contents(tmp_path / "whole")


def test_what_cannot_be_pruned_is_said(kit: Any, store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds views 0-2; 7-8 cannot be kept"):
        prune(store_path, keep=[0, 7, 8])
    with pytest.raises(StoreError, match="none cannot be kept"):
        prune(store_path, keep=[])
    for out in (None, store_path):
        with pytest.raises(StoreError, match="folder of its own"):
            prune(store_path, precision="int8", out=out)
    kit.record(tmp_path / "more", kit.header(slots=(0, 1, 4)))
    before = kit.contents(tmp_path / "more")
    with pytest.raises(StoreError, match=r"more holds a store of views 0-1, 4, and views 1, 4 are none of those"):
        prune(store_path, keep=[0], out=tmp_path / "more")
    assert kit.contents(tmp_path / "more") == before
    kit.record(tmp_path / "small", kit.header(precision="int8"))
    with pytest.raises(StoreError, match="is in int8 already"):
        prune(tmp_path / "small", precision="int4", out=tmp_path / "out")
    kit.record(tmp_path / "half", kit.header(precision="float16"))
    with pytest.raises(StoreError, match="float32 is no smaller than float16"):
        prune(tmp_path / "half", precision="float32", out=tmp_path / "out")


def test_a_dropped_view_is_missing_and_can_be_recorded_again(kit: Any, store_path: Path) -> None:
    before = kit.contents(store_path)
    prune(store_path, keep=[0, 1])
    one = torch.tensor([1])
    with Store.open(store_path) as store:
        assert store.has(one.repeat(2), torch.tensor([1, 2])).tolist() == [True, False]
    kit.record(store_path, kit.header())
    assert kit.contents(store_path) == before
