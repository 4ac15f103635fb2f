"""The local server: this machine alone, its own files alone, reading alone."""

from __future__ import annotations

import contextlib
import http.client
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from counterpoise.errors import ConfigError
from counterpoise.system.server import COMPUTING, HOST, IDLE_SECONDS, Answer, Server, from_folder


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
    assert server.address == f"http://127.0.0.1:{server.port}/"
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


def memory() -> float:
    """Of this process, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_that_never_finish_asking_hold_no_one_up(server: Server, many_files: None) -> None:
    assert ask(server, "/")[0] == 200
    threads, before = threading.active_count(), memory()
    begun = f"GET / HTTP/1.1\r\nHost: {HOST}:{server.port}\r\nX: ".encode()
    slow = []
    for number in range(1000):
        slow.append(socket.create_connection((HOST, server.port), timeout=10))
        slow[-1].sendall(begun)
        if number % 100 == 99:
            assert ask(server, "/")[0] == 200
    assert threading.active_count() <= threads + COMPUTING
    assert memory() - before < 50
    with ThreadPoolExecutor(8) as pool:
        assert {status for status, _, _ in pool.map(lambda _: ask(server, "/"), range(1000))} == {200}
    assert threading.active_count() <= threads + COMPUTING
    for connection in slow:
        connection.close()


def test_those_that_never_take_what_they_asked_for_hold_no_one_up(
    server: Server, folder: Path, many_files: None
) -> None:
    with (folder / "large.bin").open("wb") as file:
        file.truncate(200_000_000)
    before = memory()
    request = f"GET /large.bin HTTP/1.1\r\nHost: {HOST}:{server.port}\r\n\r\n".encode()
    slow = [socket.create_connection((HOST, server.port), timeout=10) for _ in range(200)]
    for connection in slow:
        with contextlib.suppress(ConnectionError):  # closed, since others came after it
            connection.sendall(request)
    assert ask(server, "/")[2] == b"<p>here"
    assert len(ask(server, "/large.bin", method="HEAD")[2]) == 0
    assert memory() - before < 100
    for connection in slow:
        connection.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000_000, b"431"),
        (b"x" * 10_000_000, b"431"),
        (b"GET /\r\n\r\n", b"400"),
        (b"\x00\xff\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % number for number in range(1000)) + b"\r\n", b"400"),
    ],
)
def test_what_is_no_request_is_refused_and_others_are_answered(
    server: Server, request_bytes: bytes, status: bytes
) -> None:
    with socket.create_connection((HOST, server.port), timeout=5) as connection:
        connection.sendall(request_bytes)
        assert connection.makefile("rb").readline().split()[1] == status
    assert ask(server, "/")[0] == 200


def test_an_answer_that_fails_is_told_and_the_server_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    def answers(path: str) -> Answer:
        if path == "bad":
            raise RuntimeError("the reason")
        return Answer(b"good", "text/plain")

    with Server(answers) as found:
        found.start()
        assert ask(found, "/bad")[0] == 500
        assert ask(found, "/")[::2] == (200, b"good")
    assert "the reason" in capfd.readouterr().err


def test_ctrl_c_ends_it_at_once_while_connections_are_open(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from counterpoise.system.server import Server, from_folder\n"
        "with Server(from_folder(Path(sys.argv[1]))) as server:\n"
        "    print(server.port, flush=True)\n"
        "    server.until_interrupted('Stopped.')"
    )
    for _ in range(5):
        command = [sys.executable, "-c", code, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            connection = http.client.HTTPConnection(HOST, int(process.stdout.readline()), timeout=10)
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(IDLE_SECONDS / 2) == 0
            assert process.stdout.read() == "Stopped.\n"
