"""Stores of pictures in a folder: of files that have changed since, and of parts of a part."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

import counterpoise
from counterpoise import config
from counterpoise.config import merge
from counterpoise.engine.assemble import assemble, resolve_auto
from counterpoise.engine.parts import Parts
from counterpoise.engine.processes import join
from counterpoise.errors import StoreError
from counterpoise.teachers import store as stores
from counterpoise.teachers.store import StoreWriter
from counterpoise.teachers.store.format import RECORDING, SAMPLE, dump, load, load_recording


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """BMPs of 4 x 4 pixels, all of one size: 12 to train on, 4 to judge by."""
    root = tmp_path / "photos"
    for part, count in (("train", 6), ("val", 2)):
        for number, name in enumerate("ab"):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (4, 4), (40 * index, 200 * number, 9)).save(root / part / name / f"{index}.bmp")
    return root


@pytest.fixture
def teacher() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))


def values(folder: Path, **sections: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "data": {"path": str(folder), "views": {"crop": "pad", "padding": 1}},
        "student": {"model": "digits/cnn_4_8"},
        "teacher": {"accept_chance": True},
        "train": {"epochs": 1, "batch_size": 6, "precision": "fp32", "device": "cpu"},
    }
    return merge(given, sections)


def assembled(run: dict[str, Any], teacher: nn.Module | None = None) -> Parts:
    """The parts of a run, as training builds them before its first step."""
    with join("cpu") as processes:
        return assemble(resolve_auto(config.resolve(run), processes.device), processes, teacher=teacher)


def change(folder: Path) -> None:
    """Other pictures under the same names, of the same sizes."""
    for file in (folder / "train").rglob("*.bmp"):
        ImageOps.invert(Image.open(file)).save(file)


def test_pictures_that_have_changed_but_not_in_size_fit_no_store(
    folder: Path, teacher: nn.Module, tmp_path: Path
) -> None:
    run, store = values(folder), tmp_path / "store"
    told = counterpoise.record(run, out=store, teacher=teacher)
    assert len(told[SAMPLE]) == 64
    shutil.copytree(store, tmp_path / "older")
    index = load(store)
    (tmp_path / "older" / "index.json").write_text(dump(index.header.sampled(None), index.checksums))
    once = values(folder, teacher={"store": str(store)})
    assembled(once)

    change(folder)
    for changed in (once, merge(once, {"data": {"fold": "1/3"}}), merge(once, {"data": {"held_out": 4}})):
        with pytest.raises(StoreError, match=r"other contents of files with the same names and sizes: sha256 .* given"):
            assembled(changed)
    with pytest.raises(StoreError, match="other contents of files"):
        counterpoise.record(run, out=store, teacher=teacher)
    # Earlier versions kept no sample: what they recorded is read, and says no more than it did.
    assembled(values(folder, teacher={"store": str(tmp_path / "older")}))
    assert SAMPLE not in counterpoise.record(run, out=tmp_path / "older", teacher=teacher)


def test_a_recording_does_not_go_on_with_other_pictures(
    folder: Path, teacher: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, store, write = values(folder), tmp_path / "store", StoreWriter.write

    def killed(writer: StoreWriter, chunk: Any, batches: Any) -> None:
        if chunk.slot == 4:
            raise KeyboardInterrupt
        write(writer, chunk, batches)

    monkeypatch.setattr(StoreWriter, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        counterpoise.record(run, out=store, teacher=teacher)
    monkeypatch.undo()
    before = (store / RECORDING).read_bytes()
    change(folder)
    with pytest.raises(StoreError, match="other contents of files"):
        counterpoise.record(run, out=store, teacher=teacher)
    assert (store / RECORDING).read_bytes() == before
    change(folder)  # back
    assert counterpoise.record(run, out=store, teacher=teacher)["finished"]


def test_parts_of_other_pictures_are_not_merged(folder: Path, teacher: nn.Module, tmp_path: Path) -> None:
    parts = [tmp_path / f"part-{number}" for number in range(3)]
    run = values(folder)
    counterpoise.record(run, out=tmp_path / "whole", teacher=teacher)
    for number in range(2):
        counterpoise.record(run, out=parts[number], teacher=teacher, part=(number, 2))
    stores.merge(*parts[:2], out=tmp_path / "merged")
    assert (tmp_path / "merged" / "index.json").read_bytes() == (tmp_path / "whole" / "index.json").read_bytes()

    change(folder)
    counterpoise.record(run, out=parts[2], teacher=teacher, part=(1, 2))
    with pytest.raises(StoreError, match=r"not fit together; .*part-2 is the one given:\n  - other contents of files"):
        stores.merge(parts[0], parts[2], out=tmp_path / "mixed")
    older = load_recording(parts[1])
    assert older is not None
    (parts[1] / RECORDING).write_text(dump(older.sampled(None)))  # of an earlier version, whose pictures nobody knows
    assert SAMPLE not in stores.merge(parts[1], parts[0], out=tmp_path / "half known")
    with pytest.raises(StoreError, match="other contents of files"):
        stores.merge(parts[1], parts[0], parts[2], out=tmp_path / "mixed")


def test_stores_of_several_teachers_are_of_the_same_pictures(folder: Path, teacher: nn.Module, tmp_path: Path) -> None:
    members = []
    for name in ("one", "two"):
        counterpoise.record(values(folder), out=tmp_path / name, teacher=teacher)
        members.append({"store": str(tmp_path / name)})
        change(folder)
    run = values(folder, teacher={"members": members})
    with pytest.raises(StoreError, match=r"not of the same views:\n  - other contents of files"):
        assembled(run)
    index = load(tmp_path / "one")
    (tmp_path / "one" / "index.json").write_text(dump(index.header.sampled(None), index.checksums))
    with pytest.raises(StoreError, match="does not fit:\n  - other contents of files"):
        assembled(run)
    change(folder)
    stored = assembled(run).stored
    assert stored is not None
    assert stored.store.header.sample == load(tmp_path / "two").header.sample


def test_a_store_of_all_images_serves_what_is_held_out_of_a_fold(
    folder: Path, teacher: nn.Module, tmp_path: Path
) -> None:
    run = values(folder, data={"fold": "2/3", "held_out": 2})
    told = counterpoise.record(run, out=tmp_path / "store", teacher=teacher, precision="float32")
    assert told["samples"] == 12
    parts = assembled(merge(run, {"teacher": {"store": str(tmp_path / "store"), "missing": "live"}}), teacher)
    assert parts.stored is not None
    assert parts.stored.live is not None
    assert parts.stored.positions is not None
    assert len(parts.stored.positions) == len(parts.train.images) == 6
    for batch, read in parts.stored.follow(0, parts.train.epoch(0)):
        torch.testing.assert_close(read.logits, parts.stored.live(batch.images).logits)
