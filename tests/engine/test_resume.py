"""Runs that are killed, interrupted or moved to another number of processes, as real processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

HOST = Path(__file__).with_name("kill_host.py")


class Host:
    """Children that run command lines and may be killed."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, str(HOST), str(log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, arguments: list[str]) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        return self._number()

    def wait(self) -> int:
        return self._number()

    def _number(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def run(self, arguments: list[str]) -> None:
        self.start(arguments)
        assert self.wait() == 0, self.log.read_text()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path / "stderr.txt")
    yield host
    host.process.kill()
    host.process.communicate()


@pytest.fixture
def arguments(host: Host, tmp_path: Path) -> list[str]:
    """A distillation of some seconds: mixing, EMA, clipping, a moving weight, and checkpoints within epochs."""
    data = ["--data.source", "digits", "--data.options.train_size", "600", "--data.views.mixup", "0.5"]
    common = ["--train.device", "cpu", "--train.precision", "fp32", "--quiet"]
    teacher = str(tmp_path / "teacher")
    host.run(["train", *data, *common, "--student.model", "digits/cnn_8_16", "--train.epochs", "2", "--out", teacher])
    run_file = tmp_path / "run.yaml"
    run_file.write_text(
        "objective: {cross_entropy: {weight: 0.5}, balance: {weight: {shape: linear, start: 1, end: 3}}}\n"
        "train: {epochs: 12, batch_size: 32, ema: 0.9, clip_gradient: 1.0, log_every: 5, checkpoint_minutes: 0.001}\n"
    )
    models = ["--student.model", "digits/cnn_4_8", "--teacher.checkpoint", teacher]
    return ["distill", str(run_file), *data, *common, *models]


def result(folder: Path) -> dict[str, bytes]:
    """All that must not depend on kills: weights, last and best, and the metrics without what a clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
    return {
        "student": (folder / "student" / "model.safetensors").read_bytes(),
        "best": (folder / "checkpoints" / "best.safetensors").read_bytes(),
        "metrics": json.dumps(lines).encode(),
    }


@pytest.mark.parametrize("many", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_end_in_the_same_bytes(host: Host, arguments: list[str], tmp_path: Path, many: int) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start = time.perf_counter()
    host.run([*arguments, "--out", str(whole)])
    seconds = time.perf_counter() - start
    moments = random.Random()
    kills = 0
    while kills < many:
        # Before there is a folder there is nothing to go on with; afterwards, whatever it holds, there is.
        pid = host.start([*arguments, "--out", str(killed), *(["--resume"] if killed.exists() else [])])
        time.sleep(moments.uniform(0.0, 0.3 * seconds))
        os.kill(pid, signal.SIGKILL)
        if host.wait() == -signal.SIGKILL and killed.exists():
            kills += 1
    host.run([*arguments, "--out", str(killed), "--resume"])
    assert result(killed) == result(whole)


def test_ctrl_c_saves_and_says_how_to_go_on(host: Host, arguments: list[str], tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    host.run([*arguments, "--out", str(whole)])
    pid = host.start([*arguments, "--out", str(stopped)])
    while not (stopped / "metrics.jsonl").exists() or (stopped / "metrics.jsonl").stat().st_size < 1500:
        time.sleep(0.01)
    os.kill(pid, signal.SIGINT)
    assert host.wait() == 130
    assert f"counterpoise distill --out {stopped} --resume" in host.log.read_text()
    assert (stopped / "checkpoints" / "last.safetensors").exists()
    assert not (stopped / "student").exists()
    host.run(["distill", "--out", str(stopped), "--resume", "--quiet"])
    assert result(stopped) == result(whole)


def test_a_second_process_is_refused_while_the_first_goes_on(host: Host, arguments: list[str], tmp_path: Path) -> None:
    out = tmp_path / "shared"
    pid = host.start([*arguments, "--out", str(out)])
    while not (out / "run.yaml").exists():
        time.sleep(0.01)
    second = subprocess.run(
        [sys.executable, "-m", "counterpoise", *arguments, "--out", str(out), "--resume"],
        capture_output=True,
        text=True,
        check=False,
    )
    os.kill(pid, signal.SIGKILL)
    host.wait()
    assert second.returncode == 2
    assert "Another process is writing" in second.stderr


NO_NORM = """
from torch import nn


def make(num_classes):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Dropout(0.0), nn.Flatten(), nn.Linear(288, num_classes))
    net.input_size = 8
    return net
"""


def test_a_run_killed_before_its_first_checkpoint_starts_again_cleanly(
    host: Host, arguments: list[str], tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments += ["--train.checkpoint_minutes", "5", "--train.epochs", "3"]
    host.run([*arguments, "--out", str(whole)])
    pid = host.start([*arguments, "--out", str(killed)])
    while not (killed / "metrics.jsonl").exists() or '"step": 5,' not in (killed / "metrics.jsonl").read_text():
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    assert host.wait() == -signal.SIGKILL
    host.run([*arguments, "--out", str(killed), "--resume"])
    assert result(killed) == result(whole)

    barely = tmp_path / "barely"
    (barely / "checkpoints").mkdir(parents=True)  # killed before the run file was there
    host.run([*arguments, "--out", str(barely), "--resume"])
    assert result(barely) == result(whole)


def torchrun(arguments: list[str]) -> None:
    """The command line in two processes."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "counterpoise",
            *arguments,
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr


def steps(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if line["kind"] == "step"]


def test_two_processes_train_what_one_trains_and_take_over_its_run(
    host: Host, arguments: list[str], tmp_path: Path
) -> None:
    """A network without batch statistics: the same samples and views then give the same weights, to rounding."""
    (tmp_path / "plain.py").write_text(NO_NORM)
    arguments[arguments.index("digits/cnn_4_8")] = f"{tmp_path / 'plain.py'}:make"
    arguments += ["--train.epochs", "6", "--train.batch_size", "50", "--train.optimizer.learning_rate", "0.01"]
    one, two, taken = tmp_path / "one", tmp_path / "two", tmp_path / "taken"
    host.run([*arguments, "--out", str(one)])

    torchrun([*arguments, "--out", str(two)])

    pid = host.start([*arguments, "--out", str(taken)])
    while not (taken / "metrics.jsonl").exists() or len(steps(taken)) < 4:
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    assert host.wait() == -signal.SIGKILL
    torchrun([*arguments, "--out", str(taken), "--resume"])

    weights = load_file(one / "student" / "model.safetensors")
    for other in (two, taken):
        assert [step for step, _ in steps(other)] == [step for step, _ in steps(one)]
        assert [loss for _, loss in steps(other)] == pytest.approx([loss for _, loss in steps(one)], rel=1e-3)
        for name, value in load_file(other / "student" / "model.safetensors").items():
            torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-4)
