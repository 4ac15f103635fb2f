"""Packs that have changed since they were written: what is found, and what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import counterpoise
from counterpoise.errors import ConfigError, DataError, ModelError

Flip = Callable[[Path, int], None]
Run = Callable[..., tuple[int, str, str]]


def test_a_whole_pack_is_said_to_be_whole(run: Run, packed: Path) -> None:
    code, printed, said = run("verify", packed, "--json")
    assert (code, said) == (0, "")
    assert json.loads(printed)["images of train"] == 24
    assert "163," in run("verify", packed)[1]
    assert counterpoise.verify(packed)["shards"] == 5


def test_every_flipped_bit_is_found(packed: Path, flip: Flip) -> None:
    shard = packed / "train-000001.tar"
    for at in range(0, shard.stat().st_size, 977):
        flip(shard, at)
        with pytest.raises(DataError, match=r"train-000001\.tar: its bytes have changed"):
            counterpoise.verify(packed)
        flip(shard, at)
    for file in sorted((packed / "index").iterdir()):
        flip(file, file.stat().st_size // 2)
        with pytest.raises(DataError, match=rf"index/{file.name}: its bytes have changed"):
            counterpoise.verify(packed)
        flip(file, file.stat().st_size // 2)
    assert counterpoise.verify(packed)


def test_the_image_that_changed_is_named(run: Run, packed: Path, flip: Flip) -> None:
    flip(packed / "train-000000.tar", 700)
    (packed / "val-000001.tar").write_bytes((packed / "val-000001.tar").read_bytes()[:-512])
    (packed / "val-000000.tar").unlink()
    code, _, said = run("verify", packed)
    assert code == 2
    assert "train-000000.tar: its bytes have changed in circle/00.jpg" in said
    assert "val-000001.tar was cut short" in said
    assert "val-000000.tar cannot be read: there is no such file" in said


def test_a_pack_is_compared_with_nothing_else(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a pack"):
        counterpoise.verify(packed, images=3)
    (packed / "pack.json").unlink()
    with pytest.raises(ModelError):
        counterpoise.verify(packed)
