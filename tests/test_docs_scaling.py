"""The commands and files of docs/scaling.md, run by two "machines" on loopback: two agents with one meeting point."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from counterpoise import config

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "scaling.md"
FILES = ROOT / "docs" / "scaling"
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
CLOCK = ("images_per_second", "stages", "readers", "advice")


@pytest.fixture(scope="session")
def work(host: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run.yaml and its teacher, and with what one process makes of it in runs/alone."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "net.py").write_text(NO_NORM)
    common = ["--data.source", "digits", "--train.device", "cpu", "--train.precision", "fp32", "--quiet"]
    teacher = ["--student.model", "digits/cnn_8_16", "--train.epochs", "1", "--out", str(folder / "teacher")]
    host.run(["train", *common, *teacher])
    values: dict[str, Any] = {
        "data": {"source": "digits", "options": {"train_size": 600}},
        "teacher": {"checkpoint": str(folder / "teacher"), "accept_chance": True},
        "student": {"model": f"{folder}/net.py:make"},
        "train": {"epochs": 20, "batch_size": 50, "device": "cpu", "precision": "fp32", "checkpoint_minutes": 0.001},
    }
    values["train"]["optimizer"] = {"learning_rate": 0.01}
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return folder


NO_NORM = """
from torch import nn


def make(num_classes):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, num_classes))
    net.input_size = 8
    return net
"""


@pytest.fixture(scope="session")
def whole(host: Any, work: Path) -> dict[str, bytes]:
    """What two processes make of the run when nobody disturbs them."""
    host.together(["distill", str(work / "run.yaml"), "--out", str(work / "runs" / "whole"), "--quiet"])
    return result(work / "runs" / "whole")


def result(folder: Path) -> dict[str, bytes]:
    """All that must not depend on machines and kills."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]
    weights = (folder / "student" / "model.safetensors", folder / "checkpoints" / "best.safetensors")
    return {"metrics": json.dumps(lines).encode(), **{path.name: path.read_bytes() for path in weights}}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "GLOO_SOCKET_IFNAME": "lo", **more}


@contextlib.contextmanager
def machines(command: str, folder: Path, **variables: str) -> Iterator[list[subprocess.Popen[str]]]:
    """The same command on two machines; whatever is left of them is ended with the block."""
    logs = [(folder / f"machine{number}.log").open("w") for number in range(2)]
    both = [
        subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env=environment(**variables),
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for log in logs
    ]
    try:
        yield both
    finally:
        for machine, log in zip(both, logs, strict=True):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(machine.pid, signal.SIGTERM)  # torchrun ends its processes, which have groups of their own
            with contextlib.suppress(subprocess.TimeoutExpired):
                machine.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(machine.pid, signal.SIGKILL)
            log.close()


def ended(both: list[subprocess.Popen[str]], folder: Path, seconds: float = 120) -> None:
    for machine in both:
        machine.wait(seconds)
    said = [(folder / f"machine{number}.log").read_text() for number in range(2)]
    assert [machine.returncode for machine in both] == [0, 0], said


def two_machines(out: str) -> str:
    """The block of the page, for one process a machine on this one."""
    (block,) = (block for block in BLOCKS if "--nnodes 2" in block)
    for there, here in (
        ("first.example:29400", f"127.0.0.1:{free_port()}"),
        ("--nproc-per-node 8", "--nproc-per-node 1"),
        ("runs/mine", out),
    ):
        assert there in block
        block = block.replace(there, here)
    return block


def test_every_block_of_the_page_is_one_that_is_run_here() -> None:
    assert len(BLOCKS) == 2
    (section,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    teacher = config.resolve(yaml.safe_load(section)).teacher  # such runs are in teachers/test_sharded.py
    assert teacher is not None
    assert teacher.shard
    assert sum("--nnodes 2" in block for block in BLOCKS) == 1
    named = re.findall(r"\(scaling/([\w.]+)\)", PAGE.read_text(encoding="utf-8"))
    assert sorted(named) == sorted(path.name for path in FILES.iterdir())


@pytest.mark.slow
def test_one_machine(work: Path, whole: dict[str, bytes]) -> None:
    block = BLOCKS[0].replace("--nproc-per-node 8", "--nproc-per-node 2").replace("runs/mine", "runs/one")
    subprocess.run(["bash", "-c", block], cwd=work, env=environment(), check=True, timeout=120)
    assert result(work / "runs" / "one") == whole


@pytest.mark.slow
def test_two_machines_train_what_two_processes_of_one_do(work: Path, whole: dict[str, bytes]) -> None:
    with machines(two_machines("runs/two"), work) as both:
        ended(both, work)
    assert result(work / "runs" / "two") == whole


def workers(both: list[subprocess.Popen[str]]) -> list[int]:
    """Process ids of the processes that train: bash has become torchrun, or has it as a child."""
    found = []
    for machine in both:
        level = [machine.pid]
        while level:
            pid = level.pop()
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    level += [int(child) for child in task.read_text().split()]
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"counterpoise" in words and b"--nnodes" not in words:
                    found.append(pid)
    return found


@pytest.mark.slow
def test_processes_that_are_killed_are_started_anew_and_end_in_the_same_bytes(
    work: Path, whole: dict[str, bytes]
) -> None:
    kills, done, farthest = 20, 0, 0
    out = work / "runs" / "killed"
    with machines(two_machines("runs/killed").replace("--max-restarts 3", "--max-restarts 200"), work) as both:
        while done < kills and all(machine.poll() is None for machine in both):
            log = out / "metrics.jsonl"
            size = log.stat().st_size if log.exists() else 0
            there = workers(both)
            if size > farthest and len(there) == 2:  # it has gone on since the last kill
                os.kill(there[done % 2], signal.SIGKILL)
                done, farthest = done + 1, size
            time.sleep(0.02)
        ended(both, work, 300)
    assert done == kills
    assert result(out) == whole


@pytest.mark.slow
def test_the_file_for_slurm_starts_one_torchrun_a_machine(work: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    """By stand-ins for Slurm's two commands: srun starts its command twice here, scontrol names this machine."""
    stand_ins = {
        "srun": '#!/bin/bash\n"$@" & one=$!\n"$@" & wait $! && wait $one\n',
        "scontrol": '#!/bin/bash\n[ "$*" = "show hostnames node[1-2]" ] && echo 127.0.0.1 && echo 127.0.0.1\n',
    }
    for name, text in stand_ins.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": str(free_port())}
    around = environment(**job)
    around["PATH"] = f"{tmp_path}:{around['PATH']}"
    command = ["bash", str(FILES / "slurm.sh"), "run.yaml", "runs/slurm"]
    subprocess.run(command, cwd=work, env=around, check=True, timeout=180)
    assert result(work / "runs" / "slurm") == whole


@pytest.mark.slow
def test_the_file_for_kubernetes_runs_with_what_the_operator_tells(work: Path, whole: dict[str, bytes]) -> None:
    job = yaml.safe_load((FILES / "pytorchjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    elastic, pods = job["spec"]["elasticPolicy"], job["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert elastic["minReplicas"] == elastic["maxReplicas"] == pods["replicas"] == 2
    pod = pods["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == "pytorch"
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    told = {  # by the operator, from the fields above
        "PET_RDZV_BACKEND": elastic["rdzvBackend"],
        "PET_RDZV_ENDPOINT": f"127.0.0.1:{free_port()}",
        "PET_RDZV_ID": "counterpoise",
        "PET_NNODES": f"{elastic['minReplicas']}:{elastic['maxReplicas']}",
        "PET_NPROC_PER_NODE": "1",
        "PET_MAX_RESTARTS": str(elastic["maxRestarts"]),
        **{variable["name"]: variable["value"] for variable in container["env"]},
    }
    (line,) = container["args"]
    assert container["command"] == ["sh", "-c"]
    line = line.replace("/runs/run.yaml", "run.yaml").replace("/runs/mine", "runs/kubernetes")
    with machines(line, work, **told) as both:
        ended(both, work)
    assert result(work / "runs" / "kubernetes") == whole


@pytest.mark.slow
def test_the_file_for_ray_train_joins_two_processes(work: Path, whole: dict[str, bytes]) -> None:
    pytest.importorskip("ray.train.torch")
    command = [sys.executable, str(FILES / "ray_train.py"), "run.yaml", "runs/ray", "2"]
    done = subprocess.run(
        command, cwd=work, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(work / "runs" / "ray") == whole
