"""Parquet data sets at an address: the set on disk, read by row groups from a real HTTP server."""

from __future__ import annotations

import http.server
import io
import json
import pickle
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.errors import ConfigError, CorruptImage, DataError, MissingExtraError
from counterpoise.system import addresses

datasets = pytest.importorskip("datasets", reason="needs the extra hf")
CLASSES = ["square", "circle"]  # not in alphabetical order
RUN = {"student": {"model": "digits/cnn_4_8"}, "train": {"epochs": 1, "batch_size": 8}}
ROWS = {"train": 24, "test": 8}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")
    monkeypatch.setattr(addresses, "PAUSE", 0.001)


def rows(split: str, make_picture: Callable[..., Image.Image]) -> Any:
    pictures = []
    for number in range(ROWS[split]):
        buffer = io.BytesIO()
        make_picture(CLASSES[number % 2], number, (20 + number % 3, 16)).save(buffer, "png")
        pictures.append({"bytes": buffer.getvalue(), "path": f"{number}.png"})
    columns = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=CLASSES), "who": datasets.Value("int64")}
    kinds = [number % 2 for number in range(ROWS[split])]
    who = [number // 5 + 10 * (split == "test") if number != 7 else None for number in range(ROWS[split])]
    values = {"picture": pictures, "kind": kinds, "who": who}
    return datasets.Dataset.from_dict(values, features=datasets.Features(columns))


@pytest.fixture(scope="session")
def whole(make_picture: Callable[..., Image.Image]) -> dict[str, Any]:
    return {split: rows(split, make_picture) for split in ROWS}


@pytest.fixture
def hub(tmp_path: Path, whole: dict[str, Any]) -> Path:
    """Two files of training with two row groups each, of 7 and 5 pictures, and one of test."""
    from pyarrow import parquet

    (tmp_path / "hub" / "data").mkdir(parents=True)
    for split, each in whole.items():
        count = 2 if split == "train" else 1
        for part in range(count):
            table = each.shard(count, part, contiguous=True).with_format("arrow")[:]
            file = tmp_path / "hub" / "data" / f"{split}-0000{part}-of-0000{count}.parquet"
            parquet.write_table(table, file, row_group_size=7)
    return tmp_path / "hub"


@pytest.fixture
def server(hub: Path, serve: Any) -> Any:
    return serve(hub.parent)


NAMES = {"train": "data/train-{00000..00001}-of-00002.parquet", "val": "data/test-00000-of-00001.parquet"}


@pytest.fixture
def load(server: Any, tmp_path: Path) -> Callable[..., sources.Splits]:
    """Loads the set from the server, with options of the source."""

    def read(name: str = "hub", **options: Any) -> sources.Splits:
        options = {"cache": tmp_path / "cache", **NAMES, **options}
        options = {key: value for key, value in options.items() if value is not None}
        return sources.load(config.Data(path=Path(f"{server.address}/{name}"), options=options))

    return read


def test_a_set_at_an_address_is_the_set_on_disk(load: Any, hub: Path, server: Any) -> None:
    disk, there = sources.load(config.Data(path=hub)), load()
    for one, other in zip(disk, there, strict=True):
        assert one.fingerprint() == other.fingerprint()
        assert one.blocks.tolist() == other.blocks.tolist()  # type: ignore[union-attr]
        assert all(torch.equal(one.read(index), other.read(index)) for index in range(len(one)))
        assert [one.extent(index) for index in range(5)] == [other.extent(index) for index in range(5)]
    assert there.train.blocks.tolist() == [7, 5, 7, 5]  # type: ignore[union-attr]
    assert there.train.name(20).endswith("data/train-00001-of-00002.parquet#1/train #20")
    other = pickle.loads(pickle.dumps(there.train))
    server.stop()
    assert torch.equal(other.read(3), disk.train.read(3))


def test_a_column_of_groups_keeps_them_whole_on_disk_and_at_an_address(load: Any, hub: Path, server: Any) -> None:
    disk = sources.load(config.Data(path=hub, options={"group": "who"}))
    load(group="who")
    server.asked.clear()
    for one, other in zip(disk, load(group="who"), strict=True):
        assert one.groups.tolist() == other.groups.tolist()  # type: ignore[union-attr]
        assert one.group_names == other.group_names == ("0", "1", "10", "11", "2", "3", "4")
    assert not [asked for path, asked in server.asked if asked]
    assert disk.train.groups.tolist()[5:10] == [1, 1, 7, 1, 1]  # type: ignore[union-attr]
    assert "2 rows without a group in column 'who' are groups of their own" in disk.train.notes
    alone = {"path": hub / "data", "options": {"group": "who", "train": "train-*"}, "val_fraction": 0.3}
    train, val = sources.load(config.Data.model_validate(alone))
    assert not {*train.groups.tolist()} & {*val.groups.tolist()}  # type: ignore[union-attr]
    for options, message in (
        ({"group": "kind"}, r"2 groups are in both train and test of .*such as 'circle'.*shared true"),
        ({"group": "whom"}, r"data\.options\.group: Column 'whom' is unknown. Did you mean 'who'"),
        ({"group": "picture"}, "column 'picture' cannot serve as group"),
    ):
        for read in (load, lambda **options: sources.load(config.Data(path=hub, options=options))):
            with pytest.raises((ConfigError, DataError), match=message):
                read(**options)


def emptied(images: Any) -> Any:
    """The set, of which no picture is kept any more."""
    for file in images.place.cache.folder.glob("blocks/*/*"):
        file.unlink()
    return images


def test_footers_and_index_are_fetched_once_and_row_groups_as_they_are_needed(load: Any, server: Any) -> None:
    load()
    server.asked.clear()
    train = emptied(load().train)
    assert not [asked for path, asked in server.asked if asked]  # sizes alone
    train.expect([9, 10, 8, 23])
    for index in (7, 11, 19, 20, 23):
        train.read(index)
    assert sorted(path.rpartition("/")[2] for path, asked in server.asked if asked) == [
        "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"
    ]  # fmt: skip


def test_a_run_at_an_address_ends_in_the_bytes_of_the_run_on_disk(hub: Path, server: Any, tmp_path: Path) -> None:
    """By row groups; and a run that was begun on disk goes on there."""
    runs, data = [], {"size": 16, "shuffle": "blocks", "shuffle_window": 2}
    for path in (str(hub), f"{server.address}/hub"):
        options = {"cache": str(tmp_path / "cache"), **NAMES} if path.startswith("http") else NAMES
        out, its = tmp_path / f"run{len(runs)}", {"workers": int(path.startswith("http"))}
        counterpoise.train({**RUN, "data": {**data, **its, "path": path, "options": options}, "out": out})
        runs.append((out / "student" / "model.safetensors").read_bytes())
    assert runs[0] == runs[1]
    counterpoise.train(
        {**RUN, "data": {**data, "path": f"{server.address}/hub", "options": NAMES}, "out": tmp_path / "run0"},
        resume=True,
    )


@pytest.mark.parametrize("fault", ["500", "cut"])
def test_a_server_that_fails_now_and_then_is_asked_again(load: Any, server: Any, hub: Path, fault: str) -> None:
    server.fault = lambda path, count: fault if count < 4 and path.endswith(".parquet") else None  # the first is a HEAD
    assert load().train.fingerprint() == sources.load(config.Data(path=hub)).train.fingerprint()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("500", r"train-00001-of-00002\.parquet cannot be read: 500.*asked 4 times"),
        ("stall", r"train-00001-of-00002\.parquet cannot be read: no answer within 0\.05 s, asked 4 times"),
        ("wrong", r"train-00001-of-00002\.parquet cannot be read as parquet"),
    ],
)
def test_a_server_that_always_fails_is_named(load: Any, server: Any, fault: str, said: str) -> None:
    train = emptied(load().train)
    train.place.files.timeout = 0.05 if fault == "stall" else 5
    server.fault = lambda path, count: fault if "train-00001" in path else None
    with pytest.raises(DataError, match=said):
        train.read(23)
    server.fault = lambda path, count: None
    train.place.files.timeout = 60
    assert train.read(23).shape == (3, 16, 22)


def test_what_changes_while_it_is_read_is_named(load: Any, hub: Path, whole: dict[str, Any]) -> None:
    """Other pictures in a file of the same length; of another length it is another set."""
    train = emptied(load().train)
    file = hub / "data" / "train-00000-of-00002.parquet"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"IDAT", b"IDAU"))
    with pytest.raises(CorruptImage, match="train #2 cannot be read: its bytes have changed"):
        train.read(2)
    file.write_bytes(content[:600])
    with pytest.raises(
        DataError, match=r"train-00000-of-00002\.parquet has another length than it had: it ends at byte 600"
    ):
        emptied(train).read(2)
    with pytest.raises(DataError, match=r"train-00000-of-00002\.parquet cannot be read as parquet"):
        load()
    shutil.copy(hub / "data" / "train-00001-of-00002.parquet", file)
    before = train.fingerprint()
    assert load().train.fingerprint() != before


def test_sets_that_do_not_fit_are_described(load: Any, hub: Path, whole: dict[str, Any]) -> None:
    train, second = whole["train"], hub / "data" / "train-00001-of-00002.parquet"
    for wrong, said in (
        (train.rename_column("kind", "other"), r"File data/train-00001-of-00002\.parquet of .* has no column 'kind'"),
        (
            train.cast_column("kind", datasets.Value("string")),
            r"column 'kind' is ClassLabel.* in data/train-00000.*, and ",
        ),
    ):
        wrong.to_parquet(str(second))
        with pytest.raises(DataError, match=said):
            load()
    train.remove_columns("picture").to_parquet(str(second))
    with pytest.raises(DataError, match="no column that can serve as image; its columns are kind"):
        load(train="data/train-00001-of-00002.parquet")
    other = whole["test"].cast_column("kind", datasets.ClassLabel(names=["circle", "other"]))
    other.to_parquet(str(hub / "data" / "test-00000-of-00001.parquet"))
    train.to_parquet(str(second))
    with pytest.raises(DataError, match="Class 'other' of split 'test' is unknown to the training data"):
        load()
    with pytest.raises(ConfigError, match=r"data\.options\.image: column 'kind' cannot serve as image"):
        load(image="kind")
    with pytest.raises(
        ConfigError, match=r"cache_gb is 1e-08, and a row group of http.* holds up to .* GB of pictures"
    ):
        load(cache_gb=1e-8)
    with pytest.raises(DataError, match="there is no such file"):
        load(val="data/nothing.parquet")
    with pytest.raises(
        DataError, match=r"is a file: give its folder, --data http.*/hub/data --data\.options\.train test-"
    ):
        load("hub/data/test-00000-of-00001.parquet", train=None, val=None)


def test_missing_pictures_and_labels_are_those_on_disk(load: Any, hub: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    file = hub / "data" / "train-00000-of-00002.parquet"
    table = parquet.read_table(file)
    pictures, kinds = table["picture"].to_pylist(), table["kind"].to_pylist()
    pictures[0], pictures[1]["bytes"], kinds[2], kinds[3] = None, None, None, -1
    columns = [pyarrow.array(pictures, table.schema.field("picture").type), pyarrow.array(kinds, pyarrow.int64())]
    columns.append(table["who"])
    parquet.write_table(pyarrow.Table.from_arrays(columns, schema=table.schema), file)
    disk, there = sources.load(config.Data(path=hub)).train, load(cache_gb=2e-5).train
    assert disk.fingerprint() == there.fingerprint()
    assert torch.equal(disk.read(4), there.read(4))
    assert there.labels[:5].tolist() == [0, 1, -1, -1, 0]
    for index in (0, 1):
        with pytest.raises(CorruptImage, match=f"train #{index}"):
            there.read(index)


def test_which_kind_is_at_an_address_is_seen_or_said(load: Any, server: Any, hub: Path, packed: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(hub), "/hub", recursive=True)
    memory.put(str(packed), "/pack", recursive=True)
    there = sources.load(config.Data(path=Path("memory://hub")))
    assert [part.fingerprint() for part in there] == [part.fingerprint() for part in load()]
    assert len(sources.load(config.Data(path=Path("memory://pack"))).train) == 24
    for wrong in (
        {"path": Path("memory://pack"), "source": "huggingface"},
        {"path": Path("memory://hub"), "source": "shards"},
    ):
        with pytest.raises(DataError, match=r"memory://(pack holds no \.parquet files|hub holds neither a pack nor)"):
            sources.load(config.Data(**wrong))
    memory.rm("/hub", recursive=True)
    memory.rm("/pack", recursive=True)


class Hub(http.server.BaseHTTPRequestHandler):
    """What the hub of Hugging Face answers of a data set `me/set`: what it is, its files, and these by ranges."""

    protocol_version = "HTTP/1.1"
    folder: Path

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        of_tree = re.fullmatch(r"/api/datasets/me/set/tree/main(?:/(.*))?", path)
        of_file = re.fullmatch(r"/datasets/me/set/resolve/main/(.*)", path)
        if path in ("/api/datasets/me/set", "/api/datasets/me/set/revision/main"):
            self._send({"id": "me/set", "sha": "0" * 40})
        elif of_tree and (self.folder / (of_tree[1] or "")).is_dir():
            found = [(file, file.relative_to(self.folder)) for file in self.folder.rglob("*")]
            self._send([
                {"type": "directory", "oid": "0" * 40, "path": str(name)} if file.is_dir() else
                {"type": "file", "oid": "1" * 40, "path": str(name), "size": file.stat().st_size}
                for file, name in found
            ])  # fmt: skip
        elif of_file and (self.folder / of_file[1]).is_file():
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            self._send((self.folder / of_file[1]).read_bytes()[first : last + 1], 206)
        else:
            self.send_error(404)

    def _send(self, content: Any, status: int = 200) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def test_a_set_on_the_hub_is_the_set_on_disk(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Hub,), {"folder": hub}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address, constants = f"http://127.0.0.1:{server.server_port}", "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", address)  # as HF_ENDPOINT does before it is imported
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
    # where earlier versions have it, by its name
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    huggingface_hub.HfFileSystem.clear_instance_cache()
    try:
        disk, there = (sources.load(config.Data(path=Path(at))) for at in (hub, "hf://datasets/me/set"))
        assert [part.fingerprint() for part in disk] == [part.fingerprint() for part in there]
        assert torch.equal(disk.train.read(9), there.train.read(9))
        with pytest.raises(DataError, match="hf://datasets/me/other"):
            sources.load(config.Data(path=Path("hf://datasets/me/other")))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        huggingface_hub.HfFileSystem.clear_instance_cache()


def test_files_of_a_split_in_several_folders_are_no_one_set(hub: Path, load: Any) -> None:
    shutil.copytree(hub / "data", hub / "other")
    with pytest.raises(DataError, match=r"files of split 'test' in several folders \(data, other\)"):
        sources.load(config.Data(path=hub))
    (hub / "other" / "test-00000-of-00001.parquet").rename(
        hub / "other" / "test-00000-of-00001-b21dd9a8e8cf5c3a.parquet"
    )
    options = {"train": "data/train-*.parquet", "val": "other/test-*"}
    assert sources.load(config.Data(path=hub, options=options)).val.name(0) == "test #0"
    assert [len(part) for part in sources.load(config.Data(path=hub, options=options))] == [24, 8]


def test_without_the_library_the_extra_is_named(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"counterpoise\[hf\]"):
        load()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_at_an_address_ends_in_the_bytes_of_the_run_on_disk(
    host: Any, hub: Path, server: Any, tmp_path: Path, processes: int
) -> None:
    common = [
        *("train", "--student.model", "digits/cnn_4_8", "--train.batch_size", "8", "--train.log_every", "1", "--quiet"),
        *("--data.size", "16", "--data.shuffle", "blocks", "--data.shuffle_window", "2", "--train.device", "cpu"),
        *("--train.epochs", "15", "--train.checkpoint_minutes", "0.0005"),
        *("--data.options.train", NAMES["train"], "--data.options.val", NAMES["val"]),
    ]
    took = host.run(
        [*common, "--data", str(hub), "--data.workers", "0", "--out", str(tmp_path / "whole")], 0, processes
    )
    killed = tmp_path / "killed"
    arguments = [*common, "--data", f"{server.address}/hub", "--data.workers", "1", "--out", str(killed)]
    done = 0
    while done < 5:
        again = ["--resume"] if (killed / "run.yaml").exists() else []
        done += host.kill_within([*arguments, *again], took / 2, processes)
    again = ["--resume"] if (killed / "run.yaml").exists() else []
    host.run([*arguments, *again], 0, processes)
    weights = [(tmp_path / run / "student" / "model.safetensors").read_bytes() for run in ("whole", "killed")]
    assert weights[0] == weights[1]
