"""The header: what fits what, and a damaged index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from counterpoise.errors import StoreError
from counterpoise.teachers.store import Store, format, merge, verify


def test_an_index_comes_back_as_it_was(kit: Any) -> None:
    header = kit.header(classes=tuple(map(str, range(40))), notes={"teacher name": "größer"})
    checksums = {chunk.name: "0" * 64 for chunk in header.chunks()}
    assert format.parse(format.dump(header, checksums), "index") == (header, checksums)


def test_chunks_are_slots_cut_in_parts(kit: Any) -> None:
    header = kit.header(slots=(2, 5), count=16, rows_per_chunk=7)
    assert [tuple(chunk) for chunk in header.chunks()] == [
        (slot, part, start, min(start + 7, 16)) for slot in (2, 5) for part, start in enumerate((0, 7, 14))
    ]
    assert sum(map(header.chunk_size, header.chunks())) == header.bytes == 2 * 16 * 160


def test_a_chunk_holds_about_what_was_asked_for() -> None:
    header = format.Header.create(
        data="d", teacher="e", kind="plain", views={}, count=10_000, slots=[0], shape=[1000], chunk_bytes=100_000
    )
    assert header.rows_per_chunk == 50
    assert header.parts == 200


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"data": "f" * 64}, ["other data: sha256 dddddddddddd... in the store, ffffffffffff... given"]),
        ({"teacher": "f" * 64}, ["other teacher: sha256 eeeeeeeeeeee... in the store, sha256 ffffffffffff... given"]),
        (
            {"views": {"format": 1, "seed": 1, "padding": 2, "flip": True}},
            [
                "views, flip: nothing in the store, True given",
                "views, padding: 4 in the store, 2 given",
                "views, seed: 0 in the store, 1 given",
            ],
        ),
        ({"count": 51}, ["number of samples: 50 in the store, 51 given"]),
        ({"shape": (10,)}, ["shape of the logits: [40] in the store, [10] given"]),
        ({"kind": "plain", "slots": (0,)}, ["kind of views: epochs in the store, plain given"]),
        ({"precision": "int8", "rows_per_chunk": 9, "slots": (7,), "notes": {"a": "b"}}, []),
    ],
)
def test_a_difference_is_spelled_out(kit: Any, changes: dict[str, Any], words: list[str]) -> None:
    header = kit.header()
    other = kit.header(**changes)
    assert header.difference(other) == words
    if words:
        with pytest.raises(StoreError) as caught:
            header.require(other, "folder")
        assert all(line in str(caught.value) for line in ("folder", *words))
    else:
        header.require(other, "folder")


@pytest.mark.parametrize(("kind", "matters"), [("epochs", True), ("complete", False), ("plain", False)])
def test_the_seed_matters_where_views_are_drawn(kit: Any, kind: str, matters: bool) -> None:
    one, other = (kit.header(kind=kind, slots=(0,), views={"seed": seed}) for seed in (0, 1))
    assert bool(one.difference(other)) == matters


def test_of_other_classes_the_first_five_are_named(kit: Any) -> None:
    one, other = (kit.header(classes=tuple(f"{kind}{number}" for number in range(40))) for kind in "ab")
    assert one.difference(other) == ["classes: a0, a1, a2, a3, a4 in the store, b0, b1, b2, b3, b4 given"]
    assert one.difference(kit.header()) == []


def test_how_records_lie_counts_where_chunks_are_shared(kit: Any) -> None:
    found = kit.header().difference(kit.header(precision="int8", rows_per_chunk=9), layout=True)
    assert found == [
        "precision: float32 in the store, int8 given",
        "samples a chunk: 20 in the store, 9 given",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "some"}, "complete, epochs, plain; got 'some'"),
        ({"slots": (2, 1)}, "must ascend"),
        ({"slots": ()}, "must ascend"),
        ({"slots": (-1, 2)}, "must ascend from 0 or later, got -1, 2"),
        ({"slots": (1, 1)}, "must ascend"),
        ({"count": 0}, "needs samples"),
        ({"classes": ("a",)}, "1 class names were given for 40"),
    ],
)
def test_what_no_store_has_is_refused(kit: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        kit.header(**changes)


def test_a_damaged_index_is_named(store_path: Path) -> None:
    index = store_path / "index.json"
    text = index.read_text()
    values = json.loads(text)
    for damaged in (
        text[:100],
        text.replace('"rows_per_chunk"', '"rows_per_chunc"'),
        json.dumps({**values, "rows_per_chunk": 8}),
        json.dumps({**values, "dtype": [["logits", "<f2", [40]]]}),
        json.dumps({**values, "chunks": list(values["chunks"])}),
    ):
        index.write_text(damaged)
        with pytest.raises(StoreError, match=r"index\.json is damaged"):
            format.load(store_path)
    index.write_text(json.dumps({**values, "format": 3}))
    with pytest.raises(StoreError, match="format 3; this counterpoise reads formats 1 to 2"):
        format.load(store_path)


@pytest.mark.parametrize(
    ("precision", "classes", "first"),
    [("float16", 40, 1), ("top3", 40, 1), ("int8", 10, 1), ("int8", 40, 2), ("int4", 40, 2)],
)
def test_a_store_says_the_first_format_that_has_its_records(kit: Any, precision: str, classes: int, first: int) -> None:
    header = kit.header(precision=precision, shape=(classes,))
    assert json.loads(format.dump(header))["format"] == first


def test_stores_of_the_first_format_are_read_extended_and_not_mixed(kit: Any, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    header = kit.header(precision="int8", format=1, slots=(0, 1))
    assert header.codec.row_bytes == 40 + 22
    assert kit.record(old, header)
    text = (old / "index.json").read_text()
    assert json.loads(text)["format"] == 1
    assert kit.record(old, kit.header(precision="int8", slots=(0, 1, 2), rows_per_chunk=18))
    with Store.open(old) as store:
        indices, slots = kit.every_view(store.header)
        assert set(slots.tolist()) == {0, 1, 2}
        near = store.logits(indices, slots) - kit.answers(indices, slots)
        assert near.abs().max() < 17 / 255 / 2 + 0.01
    assert verify(old) == []
    assert kit.record(new, kit.header(precision="int8"))
    with pytest.raises(StoreError, match="format of the records: 1 in the store, 2 given"):
        merge(old, new, out=tmp_path / "both")


def test_chunks_that_cannot_be_listed_are_said(store_path: Path) -> None:
    (store_path / "chunks").rename(store_path / "elsewhere")
    assert format.present(store_path) == {}
    (store_path / "chunks").touch()
    with pytest.raises(StoreError, match="chunks cannot be read"):
        format.present(store_path)


def test_numbers_are_written_as_runs() -> None:
    assert format.words([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 200_000_000_000, "rows_per_chunk": 1}, "up to 1,000,000 views and 1,000,000 chunks"),
        ({"slots": [0, 10**12]}, "up to 1,000,000 views"),
        ({"count": True}, "whole numbers"),
        ({"count": 10.0}, "whole numbers"),
        ({"shape": [2**40]}, "records have up to|count|damaged"),
        ({"shape": []}, "shape"),
        ({"notes": {"a": [1]}}, "texts"),
        ({"chunks": {}}, "lists 0 chunks"),
        ({"chunks": None}, "damaged"),
        ({"chunks": {"../../x": "0" * 64}}, "lists 1 chunks|are not those"),
    ],
)
def test_an_index_that_asks_for_more_than_a_store_can_be_is_refused_at_once(
    kit: Any, store_path: Path, changes: dict[str, Any], words: str
) -> None:
    index = store_path / "index.json"
    values = json.loads(index.read_text())
    index.write_text(json.dumps({**values, **changes}))
    with pytest.raises(StoreError, match=words):
        Store.open(store_path)
    index.write_text("[" * 100_000)
    with pytest.raises(StoreError, match="nested too deeply"):
        Store.open(store_path)
    index.write_text(json.dumps({key: value for key, value in values.items() if key != "chunks"}))
    with pytest.raises(StoreError, match="lists 0 chunks"):
        Store.open(store_path)
