"""A run's report that follows the run, in a real browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from counterpoise import config
from counterpoise.pages.watching.following import Follower
from counterpoise.pages.watching.page import answers
from counterpoise.system.server import Server

Visit = Callable[..., Any]


def log(folder: Path, *lines: dict[str, Any]) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def step(number: int, epoch: int) -> dict[str, Any]:
    numbers = {"learning_rate": 0.1, "images_per_second": 320.0}
    return {"kind": "step", "step": number, "epoch": epoch, "loss": 1.0, "terms": {"cross_entropy": 1.0}, **numbers}


def evaluation(number: int, epoch: int, top1: float) -> dict[str, Any]:
    scores = {"top1": top1, "top5": 90.0, "loss": 1.0}
    return {"kind": "epoch", "step": number, "epoch": epoch, "terms": {"cross_entropy": 1.0}, "val": scores}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of which two epochs of four are done."""
    place = tmp_path / "run"
    place.mkdir()
    values = {"data": {"source": "digits"}, "student": {"model": "digits/cnn_4_8"}, "train": {"epochs": 4}}
    (place / "run.yaml").write_text(config.dump(config.resolve(values)))
    log(place, step(10, 0), evaluation(19, 0, 41.4), step(20, 1), evaluation(38, 1, 52.5))
    return place


def unexpected(errors: list[str]) -> list[str]:
    """But for the end of the server, and for a question that was on its way when the page was loaded anew."""
    ends = ("ERR_CONNECTION_REFUSED", "/stamp: net::ERR_ABORTED")
    return [error for error in errors if not any(end in error for end in ends)]


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {entry.name: (entry.stat().st_mtime_ns, entry.stat().st_size) for entry in folder.iterdir()}


def test_the_page_follows_the_run_by_itself_and_writes_nothing(folder: Path, visit: Visit) -> None:
    before = contents(folder)
    with Server(answers(Follower(folder))) as server:
        server.start()
        page, errors = visit(server.address)
        page.wait_for_selector("text=52.5")
        assert contents(folder) == before
        log(folder, step(40, 2), evaluation(57, 2, 63.7))
        before = contents(folder)
        page.wait_for_selector("text=63.7", timeout=20_000)
        assert contents(folder) == before
        server.shutdown()
    assert unexpected(errors) == []


def test_a_run_that_has_hardly_begun_has_a_page(tmp_path: Path, visit: Visit) -> None:
    place = tmp_path / "run"
    with Server(answers(Follower(place))) as server:
        server.start()
        page, errors = visit(server.address)  # before there is anything
        place.mkdir()
        (place / "run.yaml").write_text(config.dump(config.resolve({"data": {"source": "digits"}})))
        page.wait_for_selector("h1", timeout=20_000)
        log(place, evaluation(19, 0, 41.4))
        page.wait_for_selector("text=41.4", timeout=20_000)
        server.shutdown()
    assert unexpected(errors) == []


def test_it_is_served_until_it_is_stopped(program: list[str], folder: Path) -> None:
    command = [*program, "watch", str(folder), "--no-terminal"]
    environment = {name: value for name, value in os.environ.items() if name not in {"DISPLAY", "WAYLAND_DISPLAY"}}
    before = contents(folder)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        found = re.search(r"at http://127\.0\.0\.1:(\d+)/ ", first)
        assert found, first
        for host, status in ((f"127.0.0.1:{found[1]}", 200), ("evil.example", 421)):
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
            connection.request("GET", "/", headers={"Host": host})
            answer = connection.getresponse()
            assert answer.status == status
            body = answer.read()
            assert (b"52.5" in body) == (status == 200)
        for path in ("/run.yaml", "/metrics.jsonl", "/../run/run.yaml"):
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
            connection.request("GET", path)
            assert connection.getresponse().status == 404
        process.send_signal(signal.SIGINT)
        assert "the run goes on" in process.stdout.read()
        assert process.wait(20) == 0
    assert contents(folder) == before
