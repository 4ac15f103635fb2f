"""How the processes of a run meet, and what they send each other."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import torch.distributed as dist
from safetensors.torch import load_file

import counterpoise
from counterpoise.engine.processes import join
from counterpoise.errors import RunError

RUN = [
    *("train", "--data.source", "digits", "--data.options.train_size", "200", "--student.model", "digits/cnn_4_8"),
    *("--train.epochs", "2", "--train.batch_size", "50", "--train.device", "cpu", "--train.precision", "fp32"),
    *("--train.log_every", "1", "--quiet"),
]


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "step"]


def test_gradients_that_travel_in_bf16_train_nearly_the_same_student(host: Any, tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    host.together([*RUN, "--out", str(whole)])
    host.together([*RUN, "--train.reduce_dtype", "bf16", "--out", str(half)])
    assert losses(half)[0] == losses(whole)[0]
    assert losses(half) == pytest.approx(losses(whole), rel=1e-2)
    one, other = (load_file(folder / "student" / "model.safetensors") for folder in (whole, half))
    assert any(not one[name].equal(other[name]) for name in one)


def _joined_before(rank: int, meet: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    with join("cpu") as processes:
        assert (processes.rank, processes.world) == (rank, 2)
        assert processes.any(rank == 1)
    assert dist.is_initialized()
    dist.destroy_process_group()


def test_processes_that_others_have_joined_are_left_joined(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_joined_before, args=(rank, tmp_path / "meet")) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


LATE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>
int pthread_mutex_lock(pthread_mutex_t *mutex) {
    static int (*real)(pthread_mutex_t *);
    char name[16] = "";
    if (!real) real = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    pthread_getname_np(pthread_self(), name, sizeof name);
    if (!strcmp(name, "pt_gloo_runloop")) usleep(50000);
    return real(mutex);
}
"""
"""Lets gloo's threads drop what they have sent 50 ms late, as on a busy machine."""

LEAVES = """
import torch.distributed.nn  # imported later, its functions would hold the group, too
from torch.nn.parallel import DistributedDataParallel
from counterpoise.engine.processes import join

def run():
    with join("cpu") as processes:
        network = DistributedDataParallel(torch.nn.Linear(3, 3))
        network(torch.ones(2, 3)).sum().backward()
        torch.distributed.all_reduce(torch.ones(1000))

run()
print("ended")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler")
def test_a_run_ends_while_threads_of_gloo_still_hold_what_they_have_sent(tmp_path: Path) -> None:
    (tmp_path / "late.c").write_text(LATE)
    late = tmp_path / "late.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", late, tmp_path / "late.c", "-ldl"], check=True)
    shared = {"LD_PRELOAD": str(late), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    both = [
        subprocess.Popen([sys.executable, "-c", LEAVES], env=os.environ | shared | {"RANK": rank}, stdout=PIPE)
        for rank in "01"
    ]
    try:
        assert [process.communicate(timeout=120)[0] for process in both] == [b"ended\n"] * 2
    finally:
        for process in both:
            process.kill()


def _ships_its_best(rank: int, port: int, folder: Path) -> None:
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    (folder / str(rank)).mkdir()
    os.chdir(folder / str(rank))
    leaps = {"optimizer": {"learning_rate": 0.6}, "schedule": {"name": "constant"}}  # the best is seldom the last
    train = {"epochs": 5, "batch_size": 50, "device": "cpu", "ship": "best", **leaps}
    data = {"source": "digits", "options": {"train_size": 150}, "workers": 0}
    result = counterpoise.train(
        {"data": data, "student": {"model": "digits/cnn_8_16"}, "seed": 1, "train": train, "out": "run"}
    )
    assert result.best["epoch"] < result.last["epoch"]


@pytest.mark.slow
def test_the_best_weights_are_read_where_they_were_written(tmp_path: Path) -> None:
    """By the first process: the other one, on another machine, may have no such folder."""
    port = _free_port()
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_ships_its_best, args=(rank, port, tmp_path)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    weights = load_file(tmp_path / "0" / "run" / "student" / "model.safetensors")
    kept = load_file(tmp_path / "0" / "run" / "checkpoints" / "best.safetensors")
    assert all(weights[name].equal(kept[name]) for name in kept)
    assert not (tmp_path / "1" / "run").exists()


def test_processes_that_do_not_meet_are_told_where_the_commands_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RunError, match=r"The 2 processes of this run did not meet: .*docs/scaling.md"), join("cpu"):
        pass
