"""Hugging Face data sets written by save_to_disk."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from counterpoise import config
from counterpoise.data import sources
from counterpoise.errors import ConfigError, CorruptImage, DataError, MissingExtraError

datasets = pytest.importorskip("datasets", reason="needs the extra hf")
CLASSES = ["square", "circle"]  # not in alphabetical order


@pytest.fixture(scope="session")
def pictures(make_picture: Callable[..., Image.Image]) -> list[dict[str, Any]]:
    """Ten encoded pictures of one size, squares and circles in turn."""
    encoded = []
    for number in range(10):
        buffer = io.BytesIO()
        make_picture(CLASSES[number % 2], number, (20, 16)).save(buffer, "png")
        encoded.append({"bytes": buffer.getvalue(), "path": None})
    return encoded


def table(pictures: list[dict[str, Any]], labels: list[Any], feature: Any, **more: Any) -> Any:
    columns = {"picture": pictures, "kind": labels} | {name: values for name, (values, _) in more.items()}
    features = {"picture": datasets.Image(), "kind": feature} | {name: kind for name, (_, kind) in more.items()}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def load(path: Path, **values: Any) -> sources.Splits:
    return sources.load(config.Data(path=path, **values))


def saved(content: Any, path: Path) -> Path:
    content.save_to_disk(str(path))
    return path


@pytest.fixture
def one_split(tmp_path: Path, pictures: list[dict[str, Any]]) -> Path:
    """A data set of one split with a ClassLabel."""
    return saved(table(pictures, [0, 1] * 5, datasets.ClassLabel(names=CLASSES)), tmp_path / "one")


def test_class_labels_keep_their_order(one_split: Path, pictures: list[dict[str, Any]]) -> None:
    train, val = load(one_split, val_fraction=0.4)
    assert train.classes == val.classes == ("square", "circle")
    assert (torch.bincount(train.labels).tolist(), torch.bincount(val.labels).tolist()) == ([3, 3], [2, 2])
    for images in (train, val):
        for index in range(len(images)):
            original = int(images.name(index).split("#")[1])
            expected = np.asarray(Image.open(io.BytesIO(pictures[original]["bytes"])))
            assert np.array_equal(images.read(index).permute(1, 2, 0).numpy(), expected)
            assert images.labels[index] == original % 2
            assert images.extent(index) == (16, 20)


@pytest.mark.parametrize(
    ("kind", "labels", "classes"),
    [
        ("string", ["square", "circle"] * 5, ("circle", "square")),
        ("int64", [10, 9] * 5, ("9", "10")),
        ("int8", [-1, 1] * 5, ("-1", "1")),
        ("bool", [True, False] * 5, ("False", "True")),
    ],
)
def test_plain_labels_become_classes(
    tmp_path: Path, pictures: list[dict[str, Any]], kind: str, labels: list[Any], classes: tuple[str, ...]
) -> None:
    train, _ = load(saved(table(pictures, labels, datasets.Value(kind)), tmp_path / "plain"), val_fraction=0.2)
    assert train.classes == classes
    for index in range(len(train)):
        original = int(train.name(index).split("#")[1])
        assert train.classes[train.labels[index]] == str(labels[original])


def test_plain_labels_are_read_as_those_of_a_table(tmp_path: Path, pictures: list[dict[str, Any]]) -> None:
    labels = ["NA", " cat", "cat", "01", "", None, "cat ", "1", "NA", "01"]
    parts = {"train": pictures, "val": pictures[:5]}
    kind = datasets.Value("string")
    saved_parts = {
        name: table(part, [label or "cat" for label in labels[:5]] if name == "val" else labels, kind)
        for name, part in parts.items()
    }
    train, val = load(saved(datasets.DatasetDict(saved_parts), tmp_path / "plain"))
    assert train.classes == ("01", "1", "NA", "cat")
    assert train.labels.tolist() == [2, 3, 3, 0, -1, -1, 3, 1, 2, 0]
    assert val.labels.tolist() == [2, 3, 3, 0, 3]
    assert train.notes[-2:] == [
        "'NA' of column 'kind' is taken for a class: a row without a label is empty, or null",
        "classes '01' and '1' are one number, and are two",
    ]


@pytest.mark.parametrize("name", ["validation", "valid", "val", "test"])
def test_named_splits_are_used(tmp_path: Path, pictures: list[dict[str, Any]], name: str) -> None:
    label = datasets.ClassLabel(names=CLASSES)
    parts = {"train": table(pictures, [0, 1] * 5, label), name: table(pictures[:4], [0, 1] * 2, label)}
    train, val = load(saved(datasets.DatasetDict(parts), tmp_path / "splits"))
    assert (len(train), len(val), val.name(3)) == (10, 4, f"{name} #3")


def test_validation_is_preferred_to_test(tmp_path: Path, pictures: list[dict[str, Any]]) -> None:
    label = datasets.Value("string")
    whole = table(pictures, CLASSES * 5, label)
    parts = {"test": whole, "train": whole, "validation": whole.select(range(4))}
    assert len(load(saved(datasets.DatasetDict(parts), tmp_path / "splits")).val) == 4


def test_splits_may_number_their_classes_differently(tmp_path: Path, pictures: list[dict[str, Any]]) -> None:
    parts = {
        "train": table(pictures, [0, 1] * 5, datasets.ClassLabel(names=CLASSES)),
        "test": table(pictures[:2], [1, 0], datasets.ClassLabel(names=CLASSES[::-1])),
    }
    assert load(saved(datasets.DatasetDict(parts), tmp_path / "splits")).val.labels.tolist() == [0, 1]


def test_class_of_val_that_train_lacks_is_named(tmp_path: Path, pictures: list[dict[str, Any]]) -> None:
    kind = datasets.Value("string")
    parts = {"train": table(pictures, CLASSES * 5, kind), "test": table(pictures[:2], ["circles", "square"], kind)}
    with pytest.raises(DataError, match=r"'circles' of split 'test' is unknown .*Did you mean 'circle'"):
        load(saved(datasets.DatasetDict(parts), tmp_path / "splits"))


def test_withheld_labels_are_unlabeled_in_train_and_refused_in_val(
    tmp_path: Path, pictures: list[dict[str, Any]]
) -> None:
    label = datasets.ClassLabel(names=CLASSES)
    good = table(pictures, [0, 1] * 5, label)
    withheld = table(pictures[:3], [-1, None, 0], label)
    path = saved(datasets.DatasetDict({"train": withheld, "test": good}), tmp_path / "train")
    assert load(path).train.labels.tolist() == [-1, -1, 0]
    with pytest.raises(DataError, match="2 images of the val half have no label"):
        load(saved(datasets.DatasetDict({"train": good, "test": withheld}), tmp_path / "test"))


def test_several_label_columns_must_be_told_apart(tmp_path: Path, pictures: list[dict[str, Any]]) -> None:
    fine = datasets.ClassLabel(names=list("abcde"))
    more = {"fine": (list(range(5)) * 2, fine), "author": (["x", "y"] * 5, datasets.Value("string"))}
    path = saved(table(pictures, [0, 1] * 5, datasets.ClassLabel(names=CLASSES), **more), tmp_path / "two")
    with pytest.raises(ConfigError, match=r"kind, fine can all serve as label; choose one with data.options.label"):
        load(path)
    assert load(path, options={"label": "fine"}).train.classes == tuple("abcde")
    assert load(path, options={"label": "author"}).train.classes == ("x", "y")
    with pytest.raises(ConfigError, match=r"data.options.label: Column 'fin' is unknown. Did you mean 'fine'"):
        load(path, options={"label": "fin"})
    with pytest.raises(ConfigError, match=r"data.options.image: column 'fine' cannot serve as image; .*: picture"):
        load(path, options={"image": "fine"})


def test_column_called_label_is_preferred_among_plain_ones(tmp_path: Path, pictures: list[dict[str, Any]]) -> None:
    more = {"label": (["u", "v"] * 5, datasets.Value("string"))}
    path = saved(table(pictures, [str(n) for n in range(10)], datasets.Value("string"), **more), tmp_path / "two")
    assert load(path).train.classes == ("u", "v")


def test_missing_columns_are_described(tmp_path: Path, pictures: list[dict[str, Any]]) -> None:
    whole = table(pictures, [0, 1] * 5, datasets.ClassLabel(names=CLASSES))
    with pytest.raises(DataError, match="no column that can serve as image; its columns are kind"):
        load(saved(whole.remove_columns("picture"), tmp_path / "no-image"))
    with pytest.raises(DataError, match="no column that can serve as label; its columns are picture"):
        load(saved(whole.remove_columns("kind"), tmp_path / "no-label"))
    parts = {"train": whole, "test": whole.rename_column("kind", "sort")}
    with pytest.raises(DataError, match=r"Split 'test' of .* has no column 'kind'"):
        load(saved(datasets.DatasetDict(parts), tmp_path / "differing"))
    parts = {"a": whole, "b": whole}
    with pytest.raises(DataError, match="no split 'train', only a, b"):
        load(saved(datasets.DatasetDict(parts), tmp_path / "nameless"))


def test_corrupt_picture_is_named(tmp_path: Path, pictures: list[dict[str, Any]]) -> None:
    bad = [*pictures[:8], {"bytes": pictures[8]["bytes"][:200], "path": None}, None]
    whole = table(bad, [0, 1] * 5, datasets.ClassLabel(names=CLASSES))
    train = load(saved(datasets.DatasetDict({"train": whole, "test": whole}), tmp_path / "bad")).train
    for index, reason in ((8, "train #8 cannot be read: .*truncated"), (9, "train #9 .*no picture")):
        with pytest.raises(CorruptImage, match=reason):
            train.read(index)
    assert sources.in_memory(train, 1e9, "skip") is train


def test_pictures_of_one_size_are_decoded_into_memory(one_split: Path) -> None:
    train = load(one_split).train
    held = sources.in_memory(train, 1e9)
    assert isinstance(held, sources.ArraySet)
    assert torch.equal(held.images[2], train.read(2))
    assert held.fingerprint() == train.fingerprint()


def test_fingerprint_is_the_same_each_time_and_follows_the_content(
    one_split: Path, tmp_path: Path, pictures: list[dict[str, Any]]
) -> None:
    first = load(one_split).train.fingerprint()
    assert load(one_split).train.fingerprint() == first
    changed = [{"bytes": picture["bytes"] + b" ", "path": None} for picture in pictures]
    path = saved(table(changed, [0, 1] * 5, datasets.ClassLabel(names=CLASSES)), tmp_path / "changed")
    assert load(path).train.fingerprint() != first


def test_pictures_that_lay_in_files_are_read(tmp_path: Path, make_picture: Callable[..., Image.Image]) -> None:
    files = []
    for number in range(4):
        files.append(str(tmp_path / f"{number}.png"))
        make_picture(CLASSES[number % 2], number).save(files[-1])
    rows = table([{"bytes": None, "path": file} for file in files], [0, 1] * 2, datasets.ClassLabel(names=CLASSES))
    train, _ = load(saved(rows, tmp_path / "set"), val_fraction=0.5)
    assert train.read(0).shape == (3, 32, 40)


def test_a_set_goes_to_workers_and_back(one_split: Path) -> None:
    train = load(one_split).train
    again = pickle.loads(pickle.dumps(train))
    assert torch.equal(again.read(1), train.read(1))


def test_damaged_folder_is_described(one_split: Path) -> None:
    (one_split / "state.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as a Hugging Face data set"):
        load(one_split)


@pytest.mark.parametrize("elsewhere", ["../two/data-00000-of-00001.arrow", "nowhere.arrow", "long" * 10_000])
def test_tables_are_in_the_folder(elsewhere: str, one_split: Path, tmp_path: Path) -> None:
    shutil.copytree(one_split, tmp_path / "two")
    state = json.loads((one_split / "state.json").read_text())
    state["_data_files"] = [{"filename": elsewhere}]
    (one_split / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match=r"leads out of it|No such file|File name too long") as raised:
        load(one_split)
    assert len(str(raised.value)) < 1000


def test_splits_are_in_the_folder(one_split: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    for name, told in (("../one", "leads out of it"), ("long" * 10_000, "File name too long"), (7, "no folders")):
        (whole / "dataset_dict.json").write_text(json.dumps({"splits": [name]}))
        with pytest.raises(DataError, match=told) as raised:
            load(whole)
        assert len(str(raised.value)) < 1000


def test_names_of_classes_are_texts(one_split: Path) -> None:
    file = one_split / "dataset_info.json"
    file.write_text(file.read_text().replace('"square"', "7"))
    with pytest.raises(DataError, match="names a class 7: names of classes are texts"):
        load(one_split)


def test_without_datasets_the_extra_is_named(one_split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"counterpoise\[hf\]"):
        load(one_split)


@pytest.mark.parametrize("layout", ["data/{split}-0000{part}-of-00002.parquet", "{split}/000{part}.parquet"])
def test_parquet_files_are_the_data_set_that_was_saved(
    tmp_path: Path, pictures: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    feature = datasets.ClassLabel(names=CLASSES)
    whole = datasets.DatasetDict(
        train=table(pictures[:6], [0, 1] * 3, feature), test=table(pictures[6:], [0, 1] * 2, feature)
    )
    for split, rows in whole.items():
        for part in range(2):
            file = tmp_path / "hub" / layout.format(split=split, part=part)
            file.parent.mkdir(parents=True, exist_ok=True)
            rows.shard(2, part, contiguous=True).to_parquet(str(file))
    read, saved_one = load(tmp_path / "hub"), load(saved(whole, tmp_path / "saved"))
    for mine, other in zip(read, saved_one, strict=True):
        assert mine.fingerprint() == other.fingerprint()
        assert torch.equal(mine.read(1), other.read(1))
    assert "there is no val" in read.val.origin
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"hub cannot be read as a Hugging Face data set: "):
        load(tmp_path / "hub")


def test_parquet_files_of_other_programs_hold_pictures_as_bytes(
    tmp_path: Path, pictures: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow
    from pyarrow import parquet

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    columns = pyarrow.table({"image": pictures, "label": [0, 1] * 5})
    parquet.write_table(columns, tmp_path / "set" / "all.parquet")
    train, val = load(tmp_path / "set", val_fraction=0.4)
    assert (len(train), len(val), train.classes) == (6, 4, ("0", "1"))
    assert train.file(0) in [picture["bytes"] for picture in pictures]
    assert train.read(0).shape == (3, 16, 20)


def test_images_beside_a_table_are_a_folder_of_images(
    tmp_path: Path, image_folder: Path, pictures: list[dict[str, Any]]
) -> None:
    before = load(image_folder).train.fingerprint()
    table(pictures, [0, 1] * 5, datasets.ClassLabel(names=CLASSES)).to_parquet(str(image_folder / "metadata.parquet"))
    assert load(image_folder).train.fingerprint() == before
