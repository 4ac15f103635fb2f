"""Runs on Ray and on Slurm's local stand-in, and workers that are killed."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from counterpoise.studies import results

Values = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]
# Its import, as importorskip makes it, would close the handlers of pytest's own log.
SLURM = pytest.mark.skipif(find_spec("submitit") is None, reason="needs the extra 'slurm'")


def scores(out: str) -> list[dict[str, str]]:
    with Path(out, "results.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in results.CLOCK} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_node_of_a_ray_cluster_dies_and_its_runs_go_on(
    comparison: Values, write: Write, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_worker_niceness", "0")  # Ray's 15 would stand still beside whatever else the machine does
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    comparison["run"]["train"] = {**comparison["run"]["train"], "epochs": 100, "checkpoint_minutes": 0.01}
    comparison["methods"].pop("alone")
    file = write({**comparison, "seeds": 1})
    assert run("compare", file, "--out", "here", "--quiet")[0] == 0
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        killed: list[str] = []

        def kill() -> None:
            """Once two runs are on their way, one of them on each node."""
            while True:
                half = [p for p in Path("there").glob("runs/*/*/seed-*/checkpoints/last.safetensors")
                        if not (p.parents[1] / "summary.json").exists()]  # fmt: skip
                if len(half) > 1:
                    break
                time.sleep(0.02)
            cluster.remove_node(second, allow_graceful=False)
            killed.extend(str(path.parents[1]) for path in half)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        code, _, error = run("compare", file, "--out", "there", "--on", "ray", "--cluster.num_cpus", "1")
        killer.join(1)
        assert code == 0, error
        assert len(killed) == 2
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert scores("there") == scores("here")


@pytest.mark.slow
@SLURM
def test_slurm_jobs_make_the_same_rows(comparison: Values, write: Write, run: Run) -> None:
    comparison["seeds"] = 1
    file = write(comparison)
    assert run("compare", file, "--out", "here", "--quiet")[0] == 0
    code, _, error = run("compare", file, "--out", "there", "--on", "slurm", "--cluster.executor", "local")
    assert code == 0, error
    assert scores("there") == scores("here")
    assert list(Path("slurm").glob("*_result.pkl"))


@SLURM
def test_what_a_program_logs_to_stays_open() -> None:
    program = (
        "import logging; from counterpoise.studies.backends.slurm import Options, Slurm\n"
        "class Own(logging.StreamHandler):\n    def close(self): print('closed')\n"
        "own = Own(); logging.getLogger().addHandler(own); Slurm(1, Options()); import os; os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@SLURM
def test_without_slurm_it_says_so(comparison: Values, write: Write, run: Run) -> None:
    code, _, error = run("compare", write(comparison), "--on", "slurm", "--cluster.executor", "slurm")
    assert code == 2
    assert "Slurm cannot be used" in error


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(comparison: Values, write: Write) -> None:
    """And the next call goes on at once: no orphan holds a run."""
    comparison["run"]["train"] = {**comparison["run"]["train"], "epochs": 30, "checkpoint_minutes": 0.002}
    file = str(write({**comparison, "seeds": 1}))
    command = [sys.executable, "-m", "counterpoise", "compare", file, "--jobs", "2", "--quiet"]
    with subprocess.Popen(command, start_new_session=True) as first:
        while len(list(Path("out").glob("runs/*/*/seed-0/checkpoints/last.safetensors"))) < 2:
            assert first.poll() is None
            time.sleep(0.02)
        os.kill(first.pid, signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [row["method"] for row in scores("out")] == ["alone", "kd", "balance"]
