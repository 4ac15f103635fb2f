"""Stores at an address: a real HTTP server, and fsspec's memory file system."""

from __future__ import annotations

import contextlib
import functools
import http.server
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from counterpoise.errors import CounterpoiseError, StoreError
from counterpoise.system import addresses
from counterpoise.teachers.store import Store, remote


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files and keeps a list of what was asked for."""

    asked: list[str]

    def log_message(self, *_: Any) -> None:
        if self.command == "GET":
            self.asked.append(self.path)


@pytest.fixture
def served(store_path: Path) -> Iterator[tuple[str, list[str], Callable[[], None]]]:
    """The address of the store on a server, what was asked of it, and a function that stops it."""
    pytest.importorskip("aiohttp", reason="fsspec reads http:// with aiohttp, which is not installed")
    asked: list[str] = []
    handler = type("Listed", (Handler,), {"asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=store_path.parent))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    yield f"http://127.0.0.1:{server.server_port}/{store_path.name}", asked, stop
    if thread.is_alive():
        stop()


@pytest.fixture
def in_memory(store_path: Path) -> Iterator[str]:
    files = fsspec.filesystem("memory")
    files.put(str(store_path), "/recorded", recursive=True)
    yield "memory://recorded"
    files.rm("/recorded", recursive=True)


def test_a_store_in_memory_reads_as_the_folder_does(kit: Any, in_memory: str, tmp_path: Path) -> None:
    store = Store.open(in_memory, cache=tmp_path / "cache")
    indices, slots = kit.every_view(store.header)
    assert torch.equal(store.logits(indices, slots), kit.answers(indices, slots))
    other = pickle.loads(pickle.dumps(store))
    assert torch.equal(other.logits(indices, slots), kit.answers(indices, slots))


def test_chunks_come_when_they_are_needed_and_once(kit: Any, served: Any, tmp_path: Path) -> None:
    address, asked, stop = served
    store = Store.open(address, cache=tmp_path / "cache")
    indices = torch.arange(10, 30)
    slots = torch.ones_like(indices)
    assert torch.equal(store.logits(indices, slots), kit.answers(indices, slots))
    fetched = {path.rpartition("/")[2] for path in asked}
    assert fetched == {"index.json", "000001-000000.bin", "000001-000001.bin"}
    again = Store.open(address, cache=tmp_path / "cache")
    count = len(asked)
    stop()
    assert torch.equal(again.logits(indices, slots), kit.answers(indices, slots))
    assert len(asked) == count
    with pytest.raises(StoreError, match=r"Chunk 000000-000000\.bin of http.* could not be fetched"):
        again.logits(torch.tensor([0]), torch.tensor([0]))


def test_a_chunk_damaged_on_the_server_is_named_and_not_kept(
    kit: Any, served: Any, store_path: Path, tmp_path: Path, flip: Any
) -> None:
    address, _, _ = served
    flip(store_path / "chunks" / "000000-000000.bin", 99)
    store = Store.open(address, cache=tmp_path / "cache")
    view = torch.tensor([0]), torch.tensor([0])
    with pytest.raises(StoreError, match=r"Chunk 000000-000000\.bin of http.* is damaged there"):
        store.logits(*view)
    assert not list((tmp_path / "cache").rglob("*.bin"))
    flip(store_path / "chunks" / "000000-000000.bin", 99)
    assert torch.equal(store.logits(*view), kit.answers(*view))


@pytest.mark.parametrize("change", [lambda content: content[:50], lambda content: bytes(len(content))])
def test_a_chunk_that_has_changed_in_the_cache_is_fetched_again(
    kit: Any, in_memory: str, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    view = torch.tensor([3]), torch.tensor([2])
    cache = tmp_path / "cache"
    Store.open(in_memory, cache=cache).logits(*view)
    (file,) = cache.rglob("*.bin")
    content = file.read_bytes()
    file.write_bytes(change(content))
    assert torch.equal(Store.open(in_memory, cache=cache).logits(*view), kit.answers(*view))
    assert file.read_bytes() == content


def test_a_store_that_was_recorded_anew_is_not_taken_from_the_cache(
    kit: Any, in_memory: str, store_path: Path, tmp_path: Path
) -> None:
    view = torch.tensor([3]), torch.tensor([2])
    Store.open(in_memory, cache=tmp_path / "cache").logits(*view)
    kit.record(tmp_path / "other", kit.header(precision="float16"))
    files = fsspec.filesystem("memory")
    files.rm("/recorded", recursive=True)
    files.put(str(tmp_path / "other"), "/recorded", recursive=True)
    store = Store.open(in_memory, cache=tmp_path / "cache")
    assert torch.equal(store.logits(*view), kit.answers(*view).half().float())


def test_an_address_that_holds_no_store_is_named(
    kit: Any, served: Any, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, _, stop = served
    with pytest.raises(StoreError, match=r"nothing/index\.json cannot be read"):
        Store.open(f"{address}/nothing", cache=tmp_path)
    (store_path / "index.json").rename(store_path / "recording.json")
    with pytest.raises(StoreError, match=r"recording at http.* is not finished"):
        Store.open(address, cache=tmp_path)
    stop()
    for unreachable in (address, "memory://nowhere"):
        with pytest.raises(StoreError, match="cannot be read"):
            Store.open(unreachable, cache=tmp_path)
    with pytest.raises(CounterpoiseError, match="nosuch://there"):
        Store.open("nosuch://there", cache=tmp_path)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "exists", lambda *_: 1 / 0)
    with pytest.raises(StoreError, match="cannot be read"):  # that it cannot be asked says nothing of a recording
        Store.open("memory://nowhere", cache=tmp_path)


class Endless(http.server.BaseHTTPRequestHandler):
    """Serves a store whose `large` file never ends, and counts what it has sent of it."""

    folder: Path
    large = ""
    sent = 0

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        if not self.path.endswith(self.large):
            self.wfile.write((self.folder / self.path.partition("/")[2]).read_bytes())
            return
        with contextlib.suppress(OSError):  # the reader has hung up
            while type(self).sent < 10**9:
                type(self).sent += self.wfile.write(b"0" * 2**20)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(("large", "limit"), [("index.json", 2**22), ("000000-000000.bin", None)])
def test_a_file_that_never_ends_is_cut_off_at_the_size_that_it_may_have(
    kit: Any, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: str, limit: int | None
) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads http:// with aiohttp, which is not installed")
    if limit is not None:
        monkeypatch.setattr(remote, "INDEX_BYTES", limit)
    handler = type("Serving", (Endless,), {"folder": store_path.parent, "large": large, "sent": 0})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/{store_path.name}"
            with pytest.raises(StoreError, match=rf"{large} is larger than the [0-9,]+ bytes that it may have"):
                Store.open(address, cache=tmp_path / "cache").logits(torch.tensor([0]), torch.tensor([0]))
        finally:
            server.shutdown()
            thread.join()
    assert handler.sent < 64 * 2**20  # what lay in buffers on the way
    assert [file.name for file in (tmp_path / "cache").rglob("*") if file.suffix in (".bin", ".partial")] == []


class Stalling(Endless):
    """Sends half of its `large` file, and then nothing."""

    over: threading.Event

    def do_GET(self) -> None:
        content = (self.folder / self.path.partition("/")[2]).read_bytes()
        stalls = self.path.endswith(self.large)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content[: len(content) // 2] if stalls else content)
        if stalls:
            self.wfile.flush()
            self.over.wait(20)


@pytest.mark.parametrize("large", ["index.json", "000000-000000.bin"])
def test_a_server_that_stalls_is_named(
    kit: Any, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: str
) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads http:// with aiohttp, which is not installed")
    monkeypatch.setattr(addresses, "TIMEOUT", 0.2)
    over = threading.Event()
    handler = type("Serving", (Stalling,), {"folder": store_path.parent, "large": large, "over": over})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/{store_path.name}"
            with pytest.raises(StoreError, match=r"no answer within 0\.2 s"):
                Store.open(address, cache=tmp_path / "cache").logits(torch.tensor([0]), torch.tensor([0]))
        finally:
            over.set()
            server.shutdown()
            thread.join()
