"""Runs that are killed, interrupted or moved to another number of processes, as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

DATA = ["--data.source", "digits", "--data.options.train_size", "600", "--data.views.mixup", "0.5"]
COMMON = ["--train.device", "cpu", "--train.precision", "fp32", "--quiet"]


@pytest.fixture(scope="session")
def distill(host: Any, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A distillation of some seconds: mixing, EMA, clipping, a moving weight, and checkpoints within epochs."""
    folder = tmp_path_factory.mktemp("distill")
    teacher = str(folder / "teacher")
    host.run(["train", *DATA, *COMMON, "--student.model", "digits/cnn_8_16", "--train.epochs", "2", "--out", teacher])
    run_file = folder / "run.yaml"
    run_file.write_text(
        "objective: {cross_entropy: {weight: 0.5}, balance: {weight: {shape: linear, start: 1, end: 3}}}\n"
        "train: {epochs: 12, batch_size: 32, ema: 0.9, clip_gradient: 1.0, log_every: 5, checkpoint_minutes: 0.001}\n"
    )
    models = ["--student.model", "digits/cnn_4_8", "--teacher.checkpoint", teacher, "--teacher.accept_chance"]
    return ["distill", str(run_file), *DATA, *COMMON, *models]


@pytest.fixture(scope="session")
def whole(host: Any, distill: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Its folder, and the seconds it took."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, host.run([*distill, "--out", str(folder)])


@pytest.fixture
def arguments(distill: list[str]) -> list[str]:
    """Its command line, to be changed."""
    return [*distill]


def result(folder: Path) -> dict[str, bytes]:
    """All that must not depend on kills: weights, last and best, and the metrics without what a clock says."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for clock in ("images_per_second", "stages", "readers", "advice"):
            line.pop(clock, None)
    return {
        "student": (folder / "student" / "model.safetensors").read_bytes(),
        "best": (folder / "checkpoints" / "best.safetensors").read_bytes(),
        "metrics": json.dumps(lines).encode(),
    }


@pytest.mark.parametrize("many", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_end_in_the_same_bytes(
    host: Any, arguments: list[str], whole: tuple[Path, float], tmp_path: Path, many: int
) -> None:
    killed = tmp_path / "killed"
    kills = 0
    while kills < many:
        # Before there is a folder there is nothing to go on with; afterwards, whatever it holds, there is.
        again = ["--resume"] if killed.exists() else []
        kills += host.kill_within([*arguments, "--out", str(killed), *again], 0.3 * whole[1]) and killed.exists()
    host.run([*arguments, "--out", str(killed), "--resume"])
    assert result(killed) == result(whole[0])


def test_ctrl_c_saves_and_says_how_to_go_on(
    host: Any, arguments: list[str], whole: tuple[Path, float], tmp_path: Path
) -> None:
    stopped = tmp_path / "stopped"
    pid = host.start([*arguments, "--out", str(stopped)])
    while not (stopped / "metrics.jsonl").exists() or (stopped / "metrics.jsonl").stat().st_size < 1500:
        time.sleep(0.01)
    os.kill(pid, signal.SIGINT)
    assert host.wait() == 130
    assert f"counterpoise distill --out {stopped} --resume" in host.said()
    assert (stopped / "checkpoints" / "last.safetensors").exists()
    assert not (stopped / "student").exists()
    host.run(["distill", "--out", str(stopped), "--resume", "--quiet"])
    assert result(stopped) == result(whole[0])


def test_a_second_process_is_refused_while_the_first_goes_on(
    host: Any, program: list[str], arguments: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "shared"
    arguments += ["--train.epochs", "1000"]
    pid = host.start([*arguments, "--out", str(out)])
    while not (out / "run.yaml").exists():
        time.sleep(0.01)
    second = subprocess.run(
        [*program, *arguments, "--out", str(out), "--resume"],
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
    host: Any, arguments: list[str], tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments += ["--train.checkpoint_minutes", "5", "--train.epochs", "3"]
    host.run([*arguments, "--out", str(whole)])
    metrics = killed / "metrics.jsonl"
    assert host.kill(
        [*arguments, "--out", str(killed)], lambda: metrics.exists() and '"step": 5,' in metrics.read_text()
    )
    host.run([*arguments, "--out", str(killed), "--resume"])
    assert result(killed) == result(whole)

    barely = tmp_path / "barely"
    (barely / "checkpoints").mkdir(parents=True)  # killed before the run file was there
    host.run([*arguments, "--out", str(barely), "--resume"])
    assert result(barely) == result(whole)


def steps(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if line["kind"] == "step"]


@pytest.mark.parametrize("shuffle", ["full", pytest.param("blocks", marks=pytest.mark.slow)])
def test_two_processes_take_over_the_run_of_one_and_train_what_one_trains(
    host: Any, arguments: list[str], tmp_path: Path, shuffle: str
) -> None:
    """A network without batch statistics: the same samples and views then give the same weights, to rounding."""
    (tmp_path / "plain.py").write_text(NO_NORM)
    arguments[arguments.index("digits/cnn_4_8")] = f"{tmp_path / 'plain.py'}:make"
    arguments += ["--train.epochs", "6", "--train.batch_size", "50", "--train.optimizer.learning_rate", "0.01"]
    arguments += ["--data.shuffle", shuffle, "--data.block_size", "20", "--data.shuffle_window", "5"]
    one, taken = tmp_path / "one", tmp_path / "taken"
    host.run([*arguments, "--out", str(one)])
    assert host.kill(
        [*arguments, "--out", str(taken)], lambda: (taken / "metrics.jsonl").exists() and len(steps(taken)) >= 2
    )
    assert len(steps(taken)) < len(steps(one)) / 2
    host.together([*arguments, "--out", str(taken), "--resume"])

    assert [step for step, _ in steps(taken)] == [step for step, _ in steps(one)]
    assert [loss for _, loss in steps(taken)] == pytest.approx([loss for _, loss in steps(one)], rel=1e-3)
    weights = load_file(one / "student" / "model.safetensors")
    for name, value in load_file(taken / "student" / "model.safetensors").items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-4)
