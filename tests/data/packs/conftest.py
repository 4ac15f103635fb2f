"""Packs of real folders of images."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """The function that reads all files below a folder but locks, by their paths."""

    def read(folder: Path) -> dict[str, bytes]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return read


@pytest.fixture(scope="session")
def flip() -> Callable[[Path, int], None]:
    """The function that flips one bit of a file."""

    def change(path: Path, at: int) -> None:
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)

    return change


class Server(http.server.ThreadingHTTPServer):
    """Serves files of a folder by ranges, counts what it sends, and does what is wrong with servers when it is told to.

    Attributes:
        fault: function of a path and of how often it was asked for: what to do instead, or nothing.
        asked: path and Range header of every request.
        sent: bytes of files.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.fault: Callable[[str, int], str | None] = lambda path, count: None
        self.asked: list[tuple[str, str]] = []
        self.sent = 0
        self.over = threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self.over.set()
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
            self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.asked.append((self.path, asked))
        fault = self.server.fault(self.path, sum(path == self.path for path, _ in self.server.asked))
        file = self.server.folder / self.path.lstrip("/")
        if fault == "stall":
            self.server.over.wait(20)
            return
        if fault == "500" or not file.is_file():
            self.send_error(500 if fault == "500" else 404)
            return
        content = file.read_bytes()
        if fault == "other length":
            content = content[:-700]
        if fault == "wrong":
            content = bytes(byte ^ 1 for byte in content)
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", asked)
        if fault == "no ranges" or found is None:
            self._send(200, content)
            return
        part = content[int(found[1]) : int(found[2]) + 1]
        if not part:
            self.send_error(416)
            return
        self._send(206, part, cut=fault == "cut")

    def do_HEAD(self) -> None:
        file = self.server.folder / self.path.lstrip("/")
        self.server.asked.append((self.path, ""))
        self.send_response(200 if file.is_file() else 404)
        self.send_header("Content-Length", str(file.stat().st_size if file.is_file() else 0))
        self.end_headers()

    def _send(self, status: int, content: bytes, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.server.sent += len(content)
        with contextlib.suppress(OSError):
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = cut

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Server]]:
    """Starts a server of a folder."""
    pytest.importorskip("aiohttp", reason="fsspec reads http:// with aiohttp, which is not installed")
    servers: list[Server] = []

    def start(folder: Path) -> Server:
        servers.append(Server(folder))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def server(packed: Path, serve: Callable[[Path], Server]) -> Server:
    """One of the folder that `packed` lies in."""
    return serve(packed.parent)
