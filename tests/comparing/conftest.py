"""A teacher of digits, and files that compare tiny students of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from counterpoise import api, cli

Values = dict[str, Any]
DATA: Values = {"source": "digits", "options": {"train_size": 60}, "views": {"crop": "none", "flip": False}}
TRAIN: Values = {"epochs": 2, "batch_size": 30, "precision": "fp32", "device": "cpu"}
LABELS: Values = {"cross_entropy": {"weight": 1.0}}

HOST = Path(__file__).parents[1] / "engine" / "kill_host.py"
MODULES = [
    *(f"counterpoise.comparing.{name}" for name in ("compare", "search", "report")),
    *("optuna", "matplotlib.figure", "matplotlib.backends.backend_agg", "scipy.stats", "scipy.stats.qmc"),
]


class Host:
    """Children that run command lines and may be killed; paths in these are absolute."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, str(HOST), str(log), *MODULES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, arguments: list[str]) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        return self.number()

    def run_and_kill(self, arguments: list[str], seconds: float, kills: int) -> None:
        """Kill what takes `seconds` at random moments, so many times, and then let it end."""
        moments = random.Random()
        done = 0
        while done < kills:
            pid = self.start(arguments)
            time.sleep(moments.uniform(0.0, seconds / max(4, kills / 2)))
            with contextlib.suppress(ProcessLookupError):  # it had come to its end
                os.kill(pid, signal.SIGKILL)
            done += self.number() == -signal.SIGKILL
        self.run(arguments)

    def number(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def run(self, arguments: list[str], code: int = 0) -> float:
        start = time.perf_counter()
        self.start(arguments)
        assert self.number() == code, self.log.read_text()
        return time.perf_counter() - start


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One for all tests: it takes seconds to import what its children need."""
    host = Host(tmp_path_factory.mktemp("host") / "stderr.txt")
    yield host
    host.process.kill()
    host.process.communicate()


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that trained a small teacher."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    train = {**TRAIN, "epochs": 8, "optimizer": {"learning_rate": 0.1}}
    api.train({"data": DATA, "student": {"model": "digits/cnn_8_16"}, "train": train, "out": out})
    return out


@pytest.fixture
def comparison(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Values:
    """The values of a compare file of alone, kd and balance over two seeds; in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return {
        "out": "out",
        "run": {
            "data": DATA,
            "teacher": {"checkpoint": str(teacher)},
            "student": {"model": "digits/cnn_4_8"},
            "train": TRAIN,
        },
        "methods": {
            "alone": {"objective": LABELS},
            "kd": {"objective": {**LABELS, "forward_kl": {"weight": 3.6, "temperature": 2.0}}},
            "balance": {"objective": {**LABELS, "balance": {"weight": 1.8}}},
        },
        "seeds": 2,
        "baseline": "kd",
        "primary": "balance",
    }


@pytest.fixture
def searched(comparison: Values) -> Values:
    """The values of a search file of the same, three points a method, halved once."""
    weights = {"forward_weight": "$total * $share", "reverse_weight": "$total * (1 - $share)"}
    return {
        "out": "out",
        "run": {**comparison["run"], "data": {**DATA, "options": {"train_size": 90}}},
        "ranges": {
            "learning_rate": {"key": "train.optimizer.learning_rate", "low": 0.02, "high": 0.4, "log": True},
            "weight_decay": {"key": "train.optimizer.weight_decay", "low": 1e-5, "high": 1e-2, "log": True},
        },
        "methods": {
            "alone": {"objective": LABELS},
            "balance": {"objective": {**LABELS, "balance": {"weight": 1, **weights}}},
        },
        "trials": 3,
        "rungs": [1, 2],
        "val_images": 30,
        "final": {"baseline": "alone", "primary": "balance", "seeds": 2},
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Values], Path]:
    """Values as a YAML file."""

    def put(values: Values, name: str = "file.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return put


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line; exit code, stdout, stderr."""

    def call(*arguments: str | os.PathLike[str]) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run([os.fspath(argument) for argument in arguments])
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return call
