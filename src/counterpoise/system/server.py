"""A local server for pages: on 127.0.0.1 alone, read-only, and only for those who ask for it by its own name."""

from __future__ import annotations

import http.server
import io
import mimetypes
import posixpath
import sys
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
        self.answers = answers
        try:
            super().__init__((HOST, port), _Handler)
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

    def until_interrupted(self, farewell: str) -> None:
        """Answer until Ctrl-C, and print a last line."""
        try:
            self.serve_forever()
        except KeyboardInterrupt:
            print(farewell)

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that hangs up is no error; anything else is told as the standard library does."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(http.server.SimpleHTTPRequestHandler):
    """GET and HEAD of what the server has; the base class refuses every other method."""

    server_version, sys_version = "counterpoise", ""
    protocol_version = "HTTP/1.1"
    error_message_format, error_content_type = "%(message)s\n", "text/plain; charset=utf-8"
    timeout = 60
    server: Server

    def send_head(self) -> io.BytesIO | None:
        """Send status and headers. Returns the body, which the base class sends on where it was asked for."""
        # A page elsewhere can have its own name lead to this machine; what it asks for then carries that name.
        if self.headers.get("Host") not in {f"{name}:{self.server.port}" for name in (HOST, "localhost")}:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "This server answers to localhost alone.")
            return None
        try:
            path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path, errors="strict")
            if not path.startswith("/"):
                raise ValueError("it names nothing of this server")
        except ValueError:  # such as //[ or %ff
            self.send_error(HTTPStatus.BAD_REQUEST, "This is no address of a page.")
            return None
        found = self.server.answers(path.removeprefix("/"))
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND, "There is nothing here.")
            return None
        self.send_response(HTTPStatus.OK)
        length = {"Content-Type": found.kind, "Content-Length": str(len(found.body))}
        for name, value in {**found.headers, **length}.items():
            self.send_header(name, value)
        self.end_headers()
        return io.BytesIO(found.body)

    def end_headers(self) -> None:
        """The headers of every answer, of those that refuse, too."""
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """A line a request would bury what the command has to say."""
