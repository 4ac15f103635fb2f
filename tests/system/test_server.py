"""The local server: this machine alone, its own files alone, reading alone."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from counterpoise.errors import ConfigError
from counterpoise.system.server import HOST, Server, from_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    place = tmp_path / "site"
    (place / "below").mkdir(parents=True)
    (place / "index.html").write_text("<p>here")
    (place / "below" / "a b.js").write_text("1")
    (place / "link.txt").symlink_to(tmp_path / "secret.txt")
    (place / "out").symlink_to(tmp_path)
    return place


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server(from_folder(folder, {"Content-Security-Policy": "default-src 'none'"})) as found:
        found.start()
        yield found
        found.shutdown()


def ask(server: Server, path: str, host: str | None = None, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host if host is not None else f"{HOST}:{server.port}")
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def test_files_come_with_their_kind_and_headers(server: Server) -> None:
    status, headers, body = ask(server, "/")
    assert (status, body) == (200, b"<p>here")
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-security-policy"] == "default-src 'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert ask(server, "/below/a%20b.js?x=1")[1]["content-type"].startswith("text/javascript")
    assert ask(server, "/", method="HEAD")[::2] == (200, b"")
    assert ask(server, "/", host=f"localhost:{server.port}")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        *("/../secret.txt", "/%2e%2e/secret.txt", "/below/../../secret.txt", "/..%2fsecret.txt", "/..\\secret.txt"),
        *(
            "//etc/passwd",
            "/%2fetc%2fpasswd",
            "/link.txt",
            "/out/secret.txt",
            "/below",
            "/below/",
            "/a%00b",
            "/x" * 3000,
        ),
    ],
)
def test_nothing_outside_the_folder_is_there(server: Server, path: str) -> None:
    status, _, body = ask(server, path)
    assert status == 404
    assert b"secret" not in body
    assert b"root:" not in body


def test_only_its_own_names_are_answered(server: Server) -> None:
    for host in ("evil.example", f"evil.example:{server.port}", "localhost", f"{HOST}:1", ""):
        status, _, body = ask(server, "/", host=host)
        assert status == 421
        assert b"here" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(server: Server, folder: Path, method: str) -> None:
    assert ask(server, "/index.html", method=method)[0] == 501
    assert (folder / "index.html").read_text() == "<p>here"


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in addresses - {HOST}:
        with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
            socket.create_connection((str(address), server.port), timeout=2)


def test_a_port_in_use_is_named(server: Server, folder: Path) -> None:
    with pytest.raises(ConfigError, match=rf"Port {server.port} cannot be had.*--port"):
        Server(from_folder(folder), server.port)
    with pytest.raises(ConfigError, match="0 to 65535, got 70000"):
        Server(from_folder(folder), 70000)


@pytest.mark.parametrize("target", ["http://[::1", "*", "index.html", "/%ff%fe", "http://[x]/"])
def test_a_target_that_is_no_address_is_answered_with_400(server: Server, target: str) -> None:
    with socket.create_connection((HOST, server.port), timeout=5) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {HOST}:{server.port}\r\nConnection: close\r\n\r\n".encode())
        assert connection.makefile("rb").readline().split()[1] == b"400"
