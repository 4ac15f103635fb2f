"""Training and watching leave each other alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

TRAIN = [
    *("--data.source", "digits", "--student.model", "digits/cnn_8_16"),
    *("--train.device", "cpu", "--train.precision", "fp32", "--quiet"),
]


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "counterpoise", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_a_watched_run_ends_in_the_bytes_of_one_that_nobody_watched(tmp_path: Path) -> None:
    alone = start("train", *TRAIN, "--train.epochs", "30", "--out", str(tmp_path / "alone"))
    assert alone.wait(300) == 0, alone.communicate()
    watched = tmp_path / "watched"
    page = start("watch", str(watched), "--no-terminal")
    assert page.stdout is not None
    address = page.stdout.readline().split(" at ")[1].split()[0]
    training = start("train", *TRAIN, "--train.epochs", "30", "--out", str(watched))
    asked = 0
    while training.poll() is None:
        urllib.request.urlopen(address, timeout=60).read()
        asked += 1
        if asked == 3:
            start("watch", str(watched)).wait(60)  # another one beside it
    assert training.returncode == 0
    assert asked > 3
    assert page.poll() is None, "it does not end with the run"
    page.kill()
    weights = [tmp_path / run / "student" / "model.safetensors" for run in ("alone", "watched")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
def test_neither_dies_with_the_other(tmp_path: Path) -> None:
    run = tmp_path / "run"
    training = start("train", *TRAIN, "--train.epochs", "200", "--out", str(run))
    while not (run / "metrics.jsonl").is_file():
        assert training.poll() is None, training.communicate()
        time.sleep(0.1)
    page = start("watch", str(run), "--no-terminal")
    assert page.stdout is not None
    address = page.stdout.readline().split(" at ")[1].split()[0]
    page.kill()
    before = (run / "metrics.jsonl").stat().st_size
    page = start("watch", str(run), "--no-terminal")
    assert page.stdout is not None
    address = page.stdout.readline().split(" at ")[1].split()[0]
    time.sleep(1)
    assert training.poll() is None
    assert (run / "metrics.jsonl").stat().st_size > before
    training.send_signal(signal.SIGKILL)
    training.wait(30)
    assert b"not finished" in urllib.request.urlopen(address, timeout=60).read()
    page.kill()
