"""Packs at an address: a real HTTP server that sends ranges, and what servers do wrong."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import counterpoise
from counterpoise import config
from counterpoise.config import keys
from counterpoise.data import sources
from counterpoise.data.packs import cache, remote
from counterpoise.engine.identify import identify
from counterpoise.errors import ConfigError, CorruptImage, CounterpoiseError, DataError
from counterpoise.system import addresses

RUN = {"student": {"model": "digits/cnn_4_8"}, "train": {"epochs": 1, "batch_size": 8}}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(addresses, "PAUSE", 0.001)


@pytest.fixture
def load(server: Any, tmp_path: Path) -> Callable[..., sources.Splits]:
    """Loads the pack from the server, with options of the source."""

    def read(name: str = "pack", **options: Any) -> sources.Splits:
        options = {"cache": tmp_path / "cache", **options}
        return sources.load(config.Data(path=Path(f"{server.address}/{name}"), options=options))

    return read


def emptied(images: Any) -> Any:
    """The set, of which nothing is kept any more: a look at some pictures has fetched all of so few."""
    for block in images.place.cache.folder.glob("blocks/*/*"):
        block.unlink()
    return images


def test_a_pack_at_an_address_is_the_folder(load: Any, image_folder: Path) -> None:
    folder, there = sources.load(config.Data(path=image_folder)), load()
    for one, other in zip(folder, there, strict=True):
        assert one.fingerprint() == other.fingerprint()
        assert all(torch.equal(one.read(index), other.read(index)) for index in range(len(one)))
    assert there.train.name(0).startswith("http://127.0.0.1")
    other = pickle.loads(pickle.dumps(there.train))
    assert torch.equal(other.read(3), folder.train.read(3))


def test_what_was_fetched_is_kept_and_read_without_the_server(load: Any, server: Any) -> None:
    first = load().train
    images = [first.read(index) for index in range(24)]
    count = len(server.asked)
    again = load().train
    assert {path for path, _ in server.asked[count:]} == {"/pack/pack.json"}
    server.stop()
    assert all(torch.equal(image, again.read(index)) for index, image in enumerate(images))


def test_a_batch_is_fetched_at_once_in_as_few_requests_as_it_lies(
    load: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = emptied(load().train)
    monkeypatch.setattr(remote, "BLOCK", 4096)
    monkeypatch.setattr(cache, "BLOCK", 4096)
    server.asked.clear()
    train.expect([*range(9, 13), 20, 15, 14])
    assert sorted(path for path, _ in server.asked) == ["/pack/train-000001.tar"] * 2 + ["/pack/train-000002.tar"]
    for index in (9, 12, 14, 20):
        train.read(index)
    assert len(server.asked) == 3
    train.subset(torch.tensor([5, 0])).expect([1])
    assert [path for path, _ in server.asked[3:]] == ["/pack/train-000000.tar"]


def test_a_run_on_a_pack_at_an_address_ends_in_the_same_bytes(server: Any, image_folder: Path, tmp_path: Path) -> None:
    weights = []
    for path, workers in ((image_folder, 0), (f"{server.address}/pack", 1)):
        options = {"cache": str(tmp_path / "cache")} if workers else {}
        out = tmp_path / "runs" / str(workers)
        counterpoise.train(
            {**RUN, "data": {"path": path, "size": 16, "workers": workers, "options": options}, "out": out}
        )
        weights.append((out / "student" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    kept = (out / "run.yaml").read_text()
    assert f"path: {server.address}/pack" in kept
    counterpoise.train({**RUN, "data": {"path": image_folder, "size": 16}, "out": out}, resume=True)


@pytest.mark.parametrize("fault", ["500", "cut", "wrong"])
def test_a_server_that_fails_now_and_then_is_asked_again(
    load: Any, server: Any, image_folder: Path, fault: str
) -> None:
    server.fault = lambda path, count: fault if count % 2 and path.endswith(".tar") else None
    folder, there = sources.load(config.Data(path=image_folder)).train, load().train
    assert all(torch.equal(folder.read(index), there.read(index)) for index in range(24))


def test_a_server_that_stalls_is_asked_again(load: Any, server: Any) -> None:
    train = emptied(load().train)
    server.asked.clear()
    server.fault = lambda path, count: "stall" if count == 1 and "train-000001" in path else None
    train.place.files.timeout = 0.2
    assert train.read(9).shape == (3, 36, 48)
    assert len(server.asked) > 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("500", r"train-000000\.tar cannot be read: 500.*asked 4 times"),
        ("stall", r"train-000000\.tar cannot be read: no answer within 0\.05 s, asked 4 times"),
        ("other length", r"train-000000\.tar has another length than the index speaks of"),
        ("cut", r"train-000000\.tar cannot be read: .*asked 4 times"),
    ],
)
def test_a_server_that_always_fails_is_named(load: Any, server: Any, fault: str, said: str) -> None:
    train = emptied(load().train)
    train.place.files.timeout = 0.05 if fault == "stall" else 5
    server.fault = lambda path, count: fault if path.endswith("train-000000.tar") else None
    with pytest.raises(DataError, match=said):
        train.read(3)
    server.fault = lambda path, count: None
    train.place.files.timeout = 60
    assert train.read(3).shape == (3, 36, 40)


def test_a_server_that_stalls_from_the_beginning_is_named_at_once(load: Any, server: Any) -> None:
    server.fault = lambda path, count: "stall" if path.endswith(".tar") else None
    with pytest.raises(DataError, match=r"\.tar cannot be read: no answer within 0\.2 s, asked 4 times"):
        load(timeout=0.2)
    assert len([path for path, _ in server.asked if path.endswith(".tar")]) <= 4 * 3  # the shards, at once


def test_a_server_that_ends_after_the_beginning_is_named_where_a_run_is_identified(load: Any, server: Any) -> None:
    train, val = load()
    emptied(train)
    server.asked.clear()
    server.fault = lambda path, count: "500"
    with pytest.raises(DataError, match=r"\.tar cannot be read: 500.*asked 4 times"):
        identify(train, val, {}, config.Data())
    assert len(server.asked) <= 4 * 3  # the shards, at once


def test_damage_on_the_server_is_named_as_the_image_that_it_is_of(load: Any, packed: Path, flip: Any) -> None:
    flip(packed / "train-000000.tar", 700)
    with pytest.raises(CorruptImage, match=r"http://.*train-000000\.tar/circle/00\.jpg cannot be read: its bytes have"):
        load().train.read(0)
    flip(packed / "index" / "train.labels.npy", 200)
    shutil.rmtree(packed.parent / "cache")
    with pytest.raises(DataError, match=r"train\.labels\.npy is damaged there, or on its way"):
        load()


def test_damage_in_the_cache_is_mended(load: Any, image_folder: Path) -> None:
    train = emptied(load().train)
    whole = train.read(0)
    (kept,) = train.place.cache.folder.glob("blocks/*/*")
    kept.write_bytes(bytes(kept.stat().st_size))
    assert torch.equal(train.read(0), whole)
    kept.write_bytes(kept.read_bytes()[:900])
    assert torch.equal(train.read(0), whole)
    kept.unlink()
    assert torch.equal(train.read(0), whole)


def test_a_server_without_ranges_is_named(load: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    train = emptied(load().train)
    monkeypatch.setattr(remote, "BLOCK", 1024)
    monkeypatch.setattr(cache, "BLOCK", 1024)
    server.fault = lambda path, count: "no ranges"
    asked = len(server.asked)
    with pytest.raises(DataError, match="does not send parts of files"):
        train.read(5)
    assert len(server.asked) <= asked + 2


def test_the_cache_keeps_its_size_and_nothing_is_lost(
    load: Any, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that holds two of three shards, with blocks of which a shard has some."""
    one, other = sources.load(config.Data(path=image_folder)).train, emptied(load(cache_gb=7e-5).train)
    monkeypatch.setattr(remote, "BLOCK", 8192)
    monkeypatch.setattr(cache, "BLOCK", 8192)
    for index in range(0, 24 * 5, 5):
        assert torch.equal(one.read(index % 24), other.read(index % 24))
        held = [file.stat().st_blocks * 512 for file in other.place.cache.root.glob("*/blocks/*/*")]  # type: ignore[attr-defined]
        assert sum(held) <= 70_000
        assert len(held) <= 8


def test_a_pack_at_an_address_is_verified_as_it_lies_there(
    load: Any, server: Any, packed: Path, flip: Any, tmp_path: Path
) -> None:
    address = f"{server.address}/pack"
    assert counterpoise.verify(address) == {**counterpoise.verify(packed), "pack": address}
    load(cache=tmp_path / "counterpoise" / "packs")
    flip(packed / "train-000000.tar", 700)
    (packed / "val-000001.tar").write_bytes((packed / "val-000001.tar").read_bytes()[:-512])
    with pytest.raises(DataError, match=r"(?s)changed in circle/00\.jpg.*val-000001\.tar was cut short"):
        counterpoise.verify(address)
    with pytest.raises(DataError, match=r"nothing holds no finished pack"):
        counterpoise.verify(f"{server.address}/nothing")
    server.asked.clear()
    server.fault = lambda path, count: "500" if path.endswith(".tar") else None
    with pytest.raises(DataError, match=r"pack/train-000000\.tar cannot be read: .*asked 4 times"):
        counterpoise.verify(address)
    assert {path for path, _ in server.asked if path.endswith(".tar")} == {"/pack/train-000000.tar"}


def test_photos_without_labels_may_lie_in_a_pack(server: Any, image_folder: Path, packed: Path, tmp_path: Path) -> None:
    whole = sources.load(config.Data(path=image_folder, unlabeled=image_folder)).train
    for path in (packed, Path(f"{server.address}/pack")):
        train = sources.load(config.Data(path=image_folder, unlabeled=path)).train
        assert train.labels.tolist() == whole.labels.tolist()
        assert all(torch.equal(train.read(index), whole.read(index)) for index in range(24, 60))


def test_where_it_is_kept_makes_no_other_run(load: Any) -> None:
    runs = [
        config.resolve({"data": {"path": "http://there/pack", "options": options}})
        for options in ({"cache": "here"}, {"cache": "there", "cache_gb": 3, "timeout": 4}, {})
    ]
    assert not keys.differences(runs[0], runs[1], resume=True)
    assert not keys.differences(runs[0], runs[2])
    for wrong in ({"cache_gb": 0}, {"timeout": -1}):
        with pytest.raises(ConfigError, match="must be more than 0"):
            load(**wrong)


def test_what_is_at_no_address_is_said(load: Any, server: Any) -> None:
    with pytest.raises(DataError, match=r"nothing holds neither a pack nor \.tar files"):
        load("nothing")
    with pytest.raises(CounterpoiseError, match="nosuch://there"):
        sources.load(config.Data(path=Path("nosuch://there")))
    with pytest.raises(ConfigError, match="is an address, http:"):
        sources.load(config.Data(path=Path("http://there/photos"), source="image_folder"))
    server.stop()
    with pytest.raises(DataError, match=r"pack\.json cannot be read.*asked 4 times"):
        load()


def test_other_kinds_of_addresses_are_read(packed: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(packed), "/kept", recursive=True)
    for address in ("memory://kept", f"file://{packed}"):
        data = config.Data(path=Path(address), options={"cache": tmp_path / "cache"})
        assert sources.load(data).train.read(5).shape == (3, 36, 56)
    memory.rm("/kept", recursive=True)


@pytest.mark.slow
def test_two_processes_on_a_pack_at_an_address_end_in_the_same_bytes(
    server: Any, image_folder: Path, tmp_path: Path, torchrun: Any
) -> None:
    weights = []
    for number, path in enumerate((str(image_folder), f"{server.address}/pack")):
        out = tmp_path / "runs" / str(number)
        options = ["--data.options.cache", str(tmp_path / "cache")] if number else []
        command = ["train", "--data", path, "--data.size", "16", "--student.model", "digits/cnn_4_8", "--out", str(out)]
        torchrun([*command, "--train.epochs", "2", "--train.batch_size", "8", "--train.device", "cpu", *options])
        weights.append((out / "student" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
