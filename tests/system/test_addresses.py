"""Addresses of object stores: s3:// of a server that speaks S3."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import counterpoise
from counterpoise import config
from counterpoise.data import sources
from counterpoise.errors import DataError
from counterpoise.system import addresses
from counterpoise.system.addresses import Files


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("s3fs", reason="needs s3fs, of the extra remote")
    moto = pytest.importorskip("moto.server", reason="needs a server that speaks S3: moto[s3], flask, flask-cors")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The file system of an empty bucket, told by the environment as users do."""
    import fsspec
    import s3fs

    told = {
        "ENDPOINT_URL_S3": server,
        "ACCESS_KEY_ID": "test",
        "SECRET_ACCESS_KEY": "test",
        "DEFAULT_REGION": "us-east-1",
    }
    for name, value in told.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(addresses, "PAUSE", 0.001)
    s3fs.S3FileSystem.clear_instance_cache()
    files = fsspec.filesystem("s3")
    files.mkdir("bucket")
    yield files
    files.rm("bucket", recursive=True)


@pytest.mark.slow
def test_parts_of_files_in_s3_are_read_and_no_more(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    content, asked, call = bytes(range(256)) * 4096, list[tuple[str, Any]](), s3fs.S3FileSystem._call_s3

    async def noted(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        asked.append((method, options.get("Range")))
        return await call(self, method, *arguments, **options)

    bucket.pipe("bucket/set/a.bin", content)
    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", noted)
    files = Files("s3://bucket/set", 20)
    assert files.read("a.bin", 1000, 3000) == content[1000:3000]
    assert asked == [("get_object", "bytes=1000-2999")]
    assert files.read("a.bin", len(content) - 10, len(content) + 10) == content[-10:]
    assert files.read("a.bin", len(content), len(content) + 10) == b""
    assert files.read_or_none("other.bin", 10) is None
    size, mark = files.size("a.bin")
    assert (size, files.listed(".bin")) == (len(content), ["a.bin"])
    bucket.pipe("bucket/set/a.bin", content[::-1])
    assert files.size("a.bin")[1] != mark  # the ETag
    with pytest.raises(DataError, match=r"s3://bucket/set/other\.bin cannot be read: there is no such file"):
        files.size("other.bin")


@pytest.mark.slow
def test_a_run_on_what_lies_in_s3_ends_in_the_bytes_of_the_run_on_disk(
    bucket: Any, image_folder: Path, packed: Path, tmp_path: Path
) -> None:
    """A pack with the store of a teacher, and the parquet files of a set."""
    datasets = pytest.importorskip("datasets", reason="needs the extra hf")
    data, student = {"path": str(image_folder), "size": 16}, {"model": "digits/cnn_4_8"}
    train = {"epochs": 1, "batch_size": 8}
    counterpoise.train({"data": data, "student": student, "train": train, "out": tmp_path / "teacher"})
    taught = {"data": data, "student": student, "train": train, "teacher": {"checkpoint": str(tmp_path / "teacher")}}
    counterpoise.record(taught, out=tmp_path / "store")
    for part in ("train", "val"):
        images = sources.load(config.Data(path=image_folder))._asdict()[part]
        pictures = [{"bytes": Path(images.file(index)).read_bytes(), "path": None} for index in range(len(images))]
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(images.classes))}
        )
        rows = datasets.Dataset.from_dict({"image": pictures, "label": images.labels.tolist()}, features=features)
        (tmp_path / "hub").mkdir(exist_ok=True)
        rows.to_parquet(str(tmp_path / "hub" / f"{part}.parquet"), batch_size=7)
    for name, folder in (("pack", packed), ("store", tmp_path / "store"), ("hub", tmp_path / "hub")):
        bucket.put(str(folder), f"bucket/{name}", recursive=True)

    def weights(name: str, path: str, store: str | None) -> bytes:
        run = {**taught, "data": {**data, "path": path, "shuffle": "blocks", "block_size": 5}, "out": tmp_path / name}
        run["teacher"] = {"store": store} if store else {"checkpoint": str(tmp_path / "teacher"), "accept_chance": True}
        counterpoise.distill(run)
        return (tmp_path / name / "student" / "model.safetensors").read_bytes()

    here = weights("here", str(image_folder), str(tmp_path / "store"))
    assert weights("there", "s3://bucket/pack", "s3://bucket/store") == here
    assert weights("hub here", str(tmp_path / "hub"), None) == weights("hub there", "s3://bucket/hub", None)
