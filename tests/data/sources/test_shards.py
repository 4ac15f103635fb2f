"""Packs as a source of data: what was the folder's is the pack's, and what is wrong with a pack is said."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.errors import CorruptImage, DataError

TRAINING = {
    "student": {"model": "digits/cnn_4_8"},
    "train": {"epochs": 1, "batch_size": 8},
}


def load(path: Path, **values: Any) -> sources.Splits:
    return sources.load(config.Data(path=path, **values))


def assert_same(folder: sources.Splits, pack: sources.Splits) -> None:
    for one, other in zip(folder, pack, strict=True):
        assert one.fingerprint() == other.fingerprint()
        assert one.classes == other.classes
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.extents, other.extents)
        assert one.common_extent == other.common_extent
        for index in range(len(one)):
            assert torch.equal(one.read(index), other.read(index))
            assert Path(other.name(index)).name == Path(one.name(index)).name


def test_a_pack_is_the_folder(image_folder: Path, packed: Path) -> None:
    assert_same(load(image_folder), load(packed))
    assert_same(load(image_folder, held_out=5), load(packed, held_out=5))
    assert load(packed).train.blocks.tolist() == [8, 8, 8]  # type: ignore[union-attr]


@pytest.mark.parametrize("order", ["numbers", "text"])
def test_a_folder_without_val_is_divided_as_it_was(tmp_path: Path, make_picture: Any, order: Any) -> None:
    """Classes called by numbers, whose order in the division is another one than in training."""
    for name in range(12):
        (tmp_path / "numbers" / str(name)).mkdir(parents=True)
        for number in range(2 + name % 3):
            make_picture("circle", 10 * name + number).save(tmp_path / "numbers" / str(name) / f"{number}.png")
    counterpoise.pack(tmp_path / "numbers", out=tmp_path / "pack", shards=4)
    for fraction in (0.1, 0.4):
        both = [
            load(path, val_fraction=fraction, split_seed=3, class_order=order)
            for path in (tmp_path / "numbers", tmp_path / "pack")
        ]
        assert_same(*both)
        assert both[0].train.split_from.fingerprint() == both[1].train.split_from.fingerprint()  # type: ignore[union-attr]
        assert int(both[1].train.blocks.sum()) == len(both[1].train)  # type: ignore[union-attr]


def test_all_parts_of_a_folder_come_along(image_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(image_folder / "val", image_folder / "Test")
    counterpoise.pack(image_folder, out=tmp_path / "pack")
    assert_same(load(image_folder), load(tmp_path / "pack"))
    options = {"val_split": "test"}
    assert_same(load(image_folder, options=options), load(tmp_path / "pack", options=options))
    assert any("not used: Test" in note for note in load(tmp_path / "pack").train.notes)
    with pytest.raises(DataError, match="has no split 'other'"):
        load(tmp_path / "pack", options={"val_split": "other"})


def test_photos_without_labels_come_along(image_folder: Path, tmp_path: Path) -> None:
    counterpoise.pack({"data": {"path": image_folder, "source": "photos"}}, out=tmp_path / "pack")
    assert_same(load(image_folder, source="photos"), load(tmp_path / "pack"))
    assert not load(tmp_path / "pack").train.classes


def test_a_hugging_face_set_comes_along(tmp_path: Path, make_picture: Any) -> None:
    datasets = pytest.importorskip("datasets")
    content = [io.BytesIO() for _ in range(6)]
    for number, file in enumerate(content):
        make_picture("square", number).save(file, "JPEG")
    pictures = [{"bytes": file.getvalue(), "path": None} for file in content]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["b", "a"])})
    rows = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1] * 3}, features=features)
    datasets.DatasetDict({"train": rows, "validation": rows}).save_to_disk(str(tmp_path / "set"))
    counterpoise.pack(tmp_path / "set", out=tmp_path / "pack")
    folder, pack = load(tmp_path / "set"), load(tmp_path / "pack")
    assert [part.fingerprint() for part in folder] == [part.fingerprint() for part in pack]
    assert torch.equal(folder.train.read(3), pack.train.read(3))


def test_a_run_on_a_pack_ends_in_the_same_bytes(image_folder: Path, packed: Path, tmp_path: Path) -> None:
    """And one that was begun on the folder goes on with its pack."""
    weights = []
    for path, workers in ((image_folder, 0), (packed, 1)):
        out = tmp_path / "runs" / path.name
        counterpoise.train({**TRAINING, "data": {"path": path, "workers": workers, "size": 16}, "out": out})
        weights.append((out / "student" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    moved = {**TRAINING, "data": {"path": packed, "size": 16}, "out": tmp_path / "runs" / image_folder.name}
    counterpoise.train(moved, resume=True)
    assert (moved["out"] / "student" / "model.safetensors").read_bytes() == weights[0]


def test_a_set_can_be_handed_to_another_process(packed: Path) -> None:
    train = load(packed).train
    train.extents  # noqa: B018 - which are kept
    other = pickle.loads(pickle.dumps(train))
    assert torch.equal(other.read(5), train.read(5))
    assert len(pickle.dumps(train)) < 10_000


def test_a_large_image_is_refused_as_in_a_folder(packed: Path) -> None:
    train = load(packed, max_megapixels=0.0013).train
    with pytest.raises(CorruptImage, match=r"more pixels than max_megapixels 0\.0013 allows"):
        train.extent(1)
    assert train.extents.min(1).values.tolist().count(0) == 18


def test_a_flipped_bit_is_named_when_it_is_read(packed: Path) -> None:
    shard = packed / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[800] ^= 4
    shard.write_bytes(content)
    with pytest.raises(CorruptImage, match=r"circle/00\.jpg.*bytes have changed since it was packed"):
        load(packed).train.read(0)


def wrong_version(pack: Path) -> None:
    text = (pack / "pack.json").read_text()
    (pack / "pack.json").write_text(text.replace('"counterpoise_pack": 1', '"counterpoise_pack": 2'))


def no_pack(pack: Path) -> None:
    (pack / "pack.json").write_text('{"shards": []}')


def no_json(pack: Path) -> None:
    (pack / "pack.json").write_text('{"counterpoise_pack": 1, "parts"')


def wrong_name(pack: Path) -> None:
    text = (pack / "pack.json").read_text()
    (pack / "pack.json").write_text(text.replace('"train-000000.tar"', '"../train-000000.tar"'))


def other_shard(pack: Path) -> None:
    values = json.loads((pack / "pack.json").read_text())
    values["parts"]["train"]["shards"].pop()
    (pack / "pack.json").write_text(json.dumps(values))


def cut_short(pack: Path) -> None:
    shard = pack / "train-000002.tar"
    shard.write_bytes(shard.read_bytes()[:-1024])


def missing(pack: Path) -> None:
    (pack / "val-000000.tar").unlink()


def label(pack: Path) -> None:
    file = pack / "index" / "train.labels.npy"
    content = bytearray(file.read_bytes())
    content[-8] = 1
    file.write_bytes(content)


def no_index(pack: Path) -> None:
    (pack / "index" / "train.images.names").unlink()


def longer_index(pack: Path) -> None:
    with (pack / "index" / "train.images.npy").open("ab") as file:
        file.write(b"0")


def test_names_that_end_before_they_begin_are_said(packed: Path) -> None:
    """An index whose checksums are right, and which nobody of us has written."""
    file = packed / "index" / "train.images.npy"
    records = np.load(file)
    records["name_end"][3] = records["name_end"][-2]
    np.save(file, records)
    values = json.loads((packed / "pack.json").read_text())
    values["parts"]["train"]["index"][file.name]["checksum"] = zlib.crc32(file.read_bytes())
    (packed / "pack.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match="names end before they begin"):
        load(packed).train.fingerprint()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (wrong_version, "is of version 2, and this is read: version 1"),
        (no_pack, "is no pack of Counterpoise"),
        (no_json, r"pack\.json is damaged"),
        (wrong_name, "is no name of a file"),
        (other_shard, "does not fit its shards"),
        (cut_short, r"train-000002\.tar was cut short: it has"),
        (missing, r"val-000000\.tar cannot be read: there is no such file"),
        (label, r"train\.labels\.npy is damaged: its bytes have changed"),
        (no_index, r"train\.images\.names cannot be read"),
        (longer_index, r"train\.images\.npy does not fit its shards"),
    ],
)
def test_what_is_wrong_with_a_pack_is_said(packed: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(packed)
    with pytest.raises(DataError, match=said):
        load(packed)


def test_a_pack_that_is_not_finished_is_said(packed: Path) -> None:
    (packed / "pack.json").rename(packed / "packing.json")
    with pytest.raises(DataError, match="holds no finished pack: run `counterpoise pack`"):
        load(packed, source="shards")


def test_animals_of_any_name_are_packed(tmp_path: Path) -> None:
    names = ["a b.c", "Fährte", "x" * 120, "-n"]
    for name in names:
        folder = tmp_path / "odd" / f"class {name}"
        folder.mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (9, 9), (number, len(name), 0)).save(folder / f"{name}.{number}.PNG")
    counterpoise.pack(tmp_path / "odd", out=tmp_path / "pack")
    assert_same(load(tmp_path / "odd"), load(tmp_path / "pack"))
