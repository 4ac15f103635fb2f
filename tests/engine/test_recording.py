"""Recording in parts, by two processes, killed and on a full disk; and runs that are killed while they read a store."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from counterpoise.commands import app

PLAIN = """
from torch import nn


def make(num_classes):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, num_classes))
    net.input_size = 8
    return net
"""
DATA = ["--data.source", "digits", "--data.options.train_size", "120", "--data.views.crop", "pad"]
FAST = ["--train.device", "cpu", "--train.precision", "fp32", "--train.batch_size", "20", "--quiet"]


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "run"
    arguments = ["train", *DATA, *FAST, "--train.epochs", "1", "--student.model", "digits/cnn_8_16", "--out", str(out)]
    assert app.run(arguments) == 0
    return out


@pytest.fixture
def flags(teacher: Path, tmp_path: Path) -> list[str]:
    """What recording and training have in common; a network without batch statistics."""
    (tmp_path / "plain.py").write_text(PLAIN)
    models = ["--student.model", f"{tmp_path / 'plain.py'}:make", "--teacher.checkpoint", str(teacher)]
    return [*DATA, *FAST, *models, "--teacher.accept_chance"]


def contents(store: Path) -> dict[str, bytes]:
    return {str(f.relative_to(store)): f.read_bytes() for f in store.rglob("*") if f.is_file() and f.name != ".lock"}


def chunks(store: Path) -> int:
    return len(list((store / "chunks").glob("*.bin"))) if store.exists() else 0


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_recording_ends_in_the_same_bytes(kills: int, host: Any, flags: list[str], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = ["record", *flags, "--precision", "int8", "--data.views.padding", "4"]
    seconds = host.run([*arguments, "--out", str(whole)])
    assert chunks(whole) == 162
    moments = random.Random()
    done = 0
    while done < kills:
        if done % 2:  # soon after a chunk was written, else at any moment from the first
            before, soon = chunks(killed), moments.uniform(0, 0.02)

            def moment(before: int = before, soon: float = soon) -> bool:
                written = chunks(killed) > before
                time.sleep(soon * written)
                return written

            ended = not host.kill([*arguments, "--out", str(killed)], moment)
        else:
            ended = not host.kill_within([*arguments, "--out", str(killed)], 0.3 * seconds)
        if ended:  # begin anew, for kills are of recordings
            assert contents(killed) == contents(whole)
            shutil.rmtree(killed)
        else:
            done += 1
    host.run([*arguments, "--out", str(killed)])
    assert contents(killed) == contents(whole)


@pytest.mark.slow
def test_a_training_killed_while_it_reads_a_store_ends_in_the_same_bytes(
    host: Any, flags: list[str], tmp_path: Path
) -> None:
    store, whole, killed = (tmp_path / name for name in ("store", "whole", "killed"))
    views = ["--data.views.padding", "1", "--data.views.mixup", "0.3", "--train.epochs", "3"]
    host.run(["record", *flags, *views, "--out", str(store)])
    flags = flags[: flags.index("--teacher.checkpoint")]
    arguments = ["distill", *flags, *views, "--teacher.store", str(store), "--train.log_every", "1"]
    arguments += ["--train.checkpoint_minutes", "0.0005"]
    host.run([*arguments, "--out", str(whole)])
    metrics = killed / "metrics.jsonl"
    for step in (3, 14):
        again = ["--resume"] if killed.exists() else []
        assert host.kill(
            [*arguments, "--out", str(killed), *again],
            lambda step=step: metrics.exists() and f'"step": {step},' in metrics.read_text(),
        )
    host.run([*arguments, "--out", str(killed), "--resume"])
    for name in ("student/model.safetensors", "checkpoints/best.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_two_processes_record_one_store(host: Any, flags: list[str], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    views = ["--data.views.padding", "1"]
    record = ["record", *flags, *views, "--precision", "float16", "--json"]
    assert app.run([*record, "--out", str(one)]) == 0
    said = json.loads(host.together([*record, "--out", str(two)]))
    assert (said["finished"], said["chunks"]) == (True, 18)
    assert contents(two) == contents(one)


@pytest.mark.slow
def test_what_befalls_another_process_is_told(torchrun: Callable[..., str], flags: list[str], tmp_path: Path) -> None:
    arguments = ["record", *flags, "--data.views.padding", "1", "--out", str(tmp_path / "store")]
    in_the_way = tmp_path / "store" / "chunks" / "000017-000000.bin"  # the second process writes it
    in_the_way.mkdir(parents=True)
    said = torchrun(arguments, fails=True)
    assert "Error: Process 1 of 2" in said
    assert "000017-000000.bin could not be written" in said
    assert "of 18 chunks are whole; make room and run the same command" in said
    in_the_way.rmdir()
    assert app.run(arguments) == 0


@pytest.mark.slow
def test_two_processes_train_from_a_store_what_one_trains(
    torchrun: Callable[..., str], flags: list[str], tmp_path: Path
) -> None:
    store, views = tmp_path / "store", ["--data.views.padding", "1"]
    assert app.run(["record", *flags, *views, "--out", str(store)]) == 0
    flags = flags[: flags.index("--teacher.checkpoint")]
    train = ["distill", *flags, *views, "--train.epochs", "2", "--train.optimizer.learning_rate", "0.01"]
    train += ["--teacher.store", str(store)]
    assert app.run([*train, "--out", str(tmp_path / "alone")]) == 0
    torchrun([*train, "--out", str(tmp_path / "together")])
    weights = [load_file(tmp_path / name / "student" / "model.safetensors") for name in ("alone", "together")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)


def test_a_full_disk_loses_nothing(program: list[str], flags: list[str], tmp_path: Path) -> None:
    """The kernel itself refuses to write: a chunk has 4,800 bytes."""
    whole, full = tmp_path / "whole", tmp_path / "full"
    arguments = ["record", *flags, "--data.views.padding", "1", "--precision", "float32"]
    assert app.run([*arguments, "--out", str(whole)]) == 0
    assert app.run([*arguments, "--out", str(full), "--part", "1/2"]) == 0
    assert chunks(full) == 9
    done = subprocess.run(
        [*program, *arguments, "--out", str(full)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)),
    )
    assert done.returncode == 2, done.stderr
    assert "000009-000000.bin could not be written: the file size limit is reached" in done.stderr
    assert "9 of 18 chunks are whole; make room and run the same command to go on" in done.stderr
    assert "Traceback" not in done.stderr
    assert chunks(full) == 9
    assert app.run([*arguments, "--out", str(full)]) == 0
    assert contents(full) == contents(whole)


def test_a_seed_in_the_address_of_a_store_is_that_of_the_run(flags: list[str], tmp_path: Path) -> None:
    for seed in ("3", "4"):
        out = str(tmp_path / f"store-{seed}")
        assert app.run(["record", *flags, "--views", "epochs", "--epochs", "1", "--seed", seed, "--out", out]) == 0
    training = ["distill", *flags, "--train.epochs", "1", "--seed", "4"]
    weights = {}
    for name, store in (("named", "store-4"), ("pattern", "store-{seed}")):
        out = tmp_path / name
        assert app.run([*training, "--teacher.store", str(tmp_path / store), "--out", str(out)]) == 0
        weights[name] = (out / "student" / "model.safetensors").read_bytes()
    assert weights["pattern"] == weights["named"]
    wrong = [*training, "--teacher.store", str(tmp_path / "store-3"), "--out", str(tmp_path / "wrong")]
    assert app.run(wrong) == 2  # so it was not store-3
