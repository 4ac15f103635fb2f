"""A local server for pages: on 127.0.0.1 alone, read-only, and only for those who ask for it by its own name.

However many ask, and however slowly, it holds a bounded number of connections, threads and bytes: one thread serves all
connections, a few compute answers, files are sent piece by piece, and where there are too many connections the one that
has gone on least recently is closed. The standard library's server has a thread for each connection, without end.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import mimetypes
import os
import posixpath
import socket
import threading
import traceback
import urllib.parse
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from counterpoise.errors import ConfigError

HOST = "127.0.0.1"
MOST_CONNECTIONS = 128
MOST_HEADER = 32 * 1024
"""Bytes of a request; browsers send about 1,000."""
HEADER_SECONDS, IDLE_SECONDS = 10.0, 60.0
"""In which a request must be whole, and in which a connection must ask again, or take the next piece."""
PARTING_SECONDS = 2.0
PIECE = 64 * 1024
COMPUTING = 4
"""Threads that compute answers."""
_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


@dataclass(frozen=True)
class Answer:
    """One answer of a server: a body, or an open file to be closed; what it is, and headers beside the usual ones."""

    body: bytes | BinaryIO
    kind: str
    headers: Mapping[str, str] = field(default_factory=dict)


Answers = Callable[[str], Answer | None]
"""From a path without its slash, such as "site.json", to what is there; None where there is nothing."""


def from_folder(folder: Path, headers: Mapping[str, str] | None = None) -> Answers:
    """The files of a folder. Whatever leads out of it, by dots or by links, is not there."""
    root = folder.resolve()

    def answer(path: str) -> Answer | None:
        if "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in path.split("/") if path):
            return None
        file = root / (path or "index.html")
        try:
            if not file.is_file() or not file.resolve().is_relative_to(root):
                return None
            return Answer(file.open("rb"), kind_of(file.name), headers or {})
        except OSError:
            return None

    return answer


def kind_of(name: str) -> str:
    """The media type of a file by its name."""
    return _KINDS.get(posixpath.splitext(name)[1]) or mimetypes.guess_type(name)[0] or "application/octet-stream"


class Server:
    """Answers on 127.0.0.1.

    Args:
        answers: what there is; called from several threads.
        port: 0 is any free one.

    Raises ConfigError where the port cannot be had.
    """

    def __init__(self, answers: Answers, port: int = 0) -> None:
        self.answers = answers
        self._stopping, self._listening = threading.Event(), threading.Event()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((HOST, port))
            self._socket.listen(1024)
        except OSError as error:
            self._socket.close()
            raise ConfigError(f"Port {port} cannot be had: {error.strerror}. Give another --port.") from None
        except OverflowError:
            self._socket.close()
            raise ConfigError(f"--port must be 0 to 65535, got {port}.") from None
        self.port = int(self._socket.getsockname()[1])
        self.names = {f"{name}:{self.port}" for name in (HOST, "localhost")}

    @property
    def address(self) -> str:
        """Where a browser on this machine finds it."""
        return f"http://{HOST}:{self.port}/"

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self._socket.close()

    def start(self) -> threading.Thread:
        """Answer from another thread, until `shutdown`."""
        thread = threading.Thread(target=self.serve_forever, daemon=True)
        thread.start()
        self._listening.wait()
        return thread

    def shutdown(self) -> None:
        """Have it end; what is being sent is cut off."""
        self._stopping.set()

    def serve_forever(self) -> None:
        """Answer until `shutdown`."""
        with ThreadPoolExecutor(COMPUTING, "answers") as computing:
            asyncio.run(self._serve(computing))

    def until_interrupted(self, farewell: str) -> None:
        """Answer until Ctrl-C, and print a last line."""
        try:
            self.serve_forever()
        except KeyboardInterrupt:
            print(farewell)

    async def _serve(self, computing: ThreadPoolExecutor) -> None:
        connections: dict[_Connection, None] = {}  # the one that has gone on least recently first

        def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> asyncio.Task[None]:
            connection = _Connection(self, reader, writer, computing, connections)
            connections[connection] = None
            while len(connections) > MOST_CONNECTIONS:
                next(iter(connections)).cut_off()
            return asyncio.ensure_future(connection.serve())

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(task := came(reader, writer))
            task.add_done_callback(tasks.discard)

        tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(accepted, sock=self._socket.dup(), limit=MOST_HEADER)
        self._listening.set()
        try:
            while not self._stopping.is_set():
                await asyncio.sleep(0.02)
        finally:  # Ctrl-C, too: nobody is waited for, as `async with server` would from Python 3.12 on
            server.close()
            for connection in list(connections):
                connection.cut_off()


class _Connection:
    """GET and HEAD of what the server has, one request after the other."""

    def __init__(
        self,
        server: Server,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        computing: ThreadPoolExecutor,
        connections: dict[_Connection, None],
    ) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.computing, self.connections = computing, connections
        writer.transport.set_write_buffer_limits(PIECE)

    def cut_off(self) -> None:
        """Close it at once, and forget it."""
        self.connections.pop(self, None)
        self.writer.transport.abort()

    async def serve(self) -> None:
        """All of its requests. Who hangs up, or is too slow, is no error."""
        try:
            while await self._one():
                self._gone_on()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            self.cut_off()

    def _gone_on(self) -> None:
        if self.connections.pop(self, self) is None:
            self.connections[self] = None

    async def _one(self) -> bool:
        """Read a request and answer it. Returns whether there may be another."""
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                first = await self.reader.readexactly(1)
            async with asyncio.timeout(HEADER_SECONDS):
                rest = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return await self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "This request is too long.")
        line, _, header = (first + rest).decode("latin-1").partition("\r\n")
        try:
            method, target, version = line.split(" ")
            headers = http.client.parse_headers(io.BytesIO(header.encode("latin-1")))
        except (ValueError, http.client.HTTPException):
            return await self._refuse(HTTPStatus.BAD_REQUEST, "This is no request.")
        if version not in ("HTTP/1.0", "HTTP/1.1"):
            return await self._refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "This server speaks HTTP/1.1.")
        if method not in ("GET", "HEAD"):
            return await self._refuse(HTTPStatus.NOT_IMPLEMENTED, "This server is for reading alone.")
        if headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers:
            return await self._refuse(HTTPStatus.BAD_REQUEST, "A request to read has no body.")
        stays = version == "HTTP/1.1" and headers.get("Connection", "").lower() != "close"
        # A page elsewhere can have its own name lead to this machine; what it asks for then carries that name.
        if headers.get_all("Host", []) not in [[name] for name in self.server.names]:
            await self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "This server answers to localhost alone.", method)
            return False
        try:
            path = urllib.parse.unquote(urllib.parse.urlsplit(target).path, errors="strict")
            if not path.startswith("/"):
                raise ValueError("it names nothing of this server")
        except ValueError:  # such as //[ or %ff
            return await self._refuse(HTTPStatus.BAD_REQUEST, "This is no address of a page.", method)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self.computing, self.server.answers, path.removeprefix("/"))
        except Exception:  # told where the server was started, and no reason to end it
            traceback.print_exc()
            return await self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "This could not be answered.", method)
        if found is None:
            return await self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.", method, stays)
        await self._send(HTTPStatus.OK, found, method, stays)
        return stays

    async def _refuse(self, status: HTTPStatus, why: str, method: str = "GET", stays: bool = False) -> bool:
        await self._send(status, Answer(f"{why}\n".encode(), "text/plain; charset=utf-8"), method, stays)
        return stays

    async def _send(self, status: HTTPStatus, answer: Answer, method: str, stays: bool) -> None:
        """Status, headers and, but for HEAD, the body, no faster than it is taken."""
        body = io.BytesIO(answer.body) if isinstance(answer.body, bytes) else answer.body
        with body:
            left = len(answer.body) if isinstance(answer.body, bytes) else os.fstat(body.fileno()).st_size
            headers = {
                "Server": "counterpoise",
                "Date": formatdate(usegmt=True),
                **_HEADERS,
                **answer.headers,
                "Content-Type": answer.kind,
                "Content-Length": str(left),
                "Connection": "keep-alive" if stays else "close",
            }
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self.writer.write(f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}\r\n".encode("latin-1"))
            while method != "HEAD" and left > 0:
                piece = body.read(min(PIECE, left))
                if not piece:
                    raise ConnectionAbortedError("the file was cut off while it was sent")
                left -= len(piece)
                self.writer.write(piece)
                await self._taken()
                self._gone_on()
        await self._taken()
        if not stays:
            self.writer.write_eof()
            with contextlib.suppress(TimeoutError):  # else what is still coming would take the answer back
                async with asyncio.timeout(PARTING_SECONDS):
                    while await self.reader.read(PIECE):
                        pass

    async def _taken(self) -> None:
        """Wait until most of what was written has been taken."""
        async with asyncio.timeout(IDLE_SECONDS):
            await self.writer.drain()
