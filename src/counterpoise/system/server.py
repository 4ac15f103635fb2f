"""A local server for pages: on 127.0.0.1 alone, read-only, and only for those who ask for it by its own name."""

from __future__ import annotations

import http.server
import mimetypes
import posixpath
import sys
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path

from counterpoise.errors import ConfigError

HOST = "127.0.0.1"
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
    """One answer of a server: a body, what it is, and headers beside the usual ones."""

    body: bytes
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
            return Answer(file.read_bytes(), kind_of(file.name), headers or {})
        except OSError:
            return None

    return answer


def kind_of(name: str) -> str:
    """The media type of a file by its name."""
    return _KINDS.get(posixpath.splitext(name)[1]) or mimetypes.guess_type(name)[0] or "application/octet-stream"


class Server(http.server.ThreadingHTTPServer):
    """Answers on 127.0.0.1.

    Args:
        answers: what there is.
        port: 0 is any free one.

    Raises ConfigError where the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, answers: Answers, port: int = 0) -> None:
        try:
            super().__init__((HOST, port), partial(_Handler, answers))
        except OSError as error:
            raise ConfigError(f"Port {port} cannot be had: {error.strerror}. Give another --port.") from None
        except OverflowError:
            raise ConfigError(f"--port must be 0 to 65535, got {port}.") from None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """Where a browser on this machine finds it."""
        return f"http://{HOST}:{self.port}/"

    def start(self) -> threading.Thread:
        """Answer from another thread, until `shutdown`."""
        thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        return thread

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that hangs up is no error; anything else is told as the standard library does."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD; every other method is refused by the base class."""

    server_version = "counterpoise"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: Server

    def __init__(self, answers: Answers, *arguments: object) -> None:
        self.answers = answers
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        # A page elsewhere can have its own name lead to this machine; what it asks for then carries that name.
        if self.headers.get("Host") not in {f"{name}:{self.server.port}" for name in (HOST, "localhost")}:
            self._send(HTTPStatus.MISDIRECTED_REQUEST, _text("This server answers to localhost alone."), with_body)
            return
        try:
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path, errors="strict")
            if not path.startswith("/"):
                raise ValueError("it names no place of this server")
        except ValueError:  # such as //[ or %ff
            self._send(HTTPStatus.BAD_REQUEST, _text("This is no address of a page."), with_body)
            return
        found = self.answers(path.removeprefix("/"))
        if found is None:
            self._send(HTTPStatus.NOT_FOUND, _text("There is nothing here."), with_body)
        else:
            self._send(HTTPStatus.OK, found, with_body)

    def _send(self, status: HTTPStatus, answer: Answer, with_body: bool) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *arguments: object) -> None:
        """A line a request would bury what the command has to say."""


def _text(text: str) -> Answer:
    return Answer(f"{text}\n".encode(), "text/plain; charset=utf-8")
