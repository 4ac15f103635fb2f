"""Whichever allocation fails, by itself or with all others: the older state is whole, and the next start goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from outage import memory
from outage.operations import OPERATIONS

from counterpoise.errors import of_memory

NETWORK = """
import numpy
import torch


class Net(torch.nn.Sequential):
    def forward(self, pictures):
        {}
        return super().forward(pictures)


def make(num_classes):
    return Net(torch.nn.Flatten(), torch.nn.Linear(192, num_classes))
"""
GOLDEN = Path(__file__).parents[1] / "golden"
QUICK = ("checkpoint", "first student folder", "results.csv", "store pruned")
pytestmark = pytest.mark.skipif(bool(memory.why_not()), reason=memory.why_not())


@pytest.mark.parametrize("name", QUICK)
def test_each_allocation_may_fail(name: str) -> None:
    """A few of them; more in the slow test."""
    tried = memory.starving(OPERATIONS[name], growth=16)
    assert tried.wrong == []
    assert tried.count >= 6


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_allocation_of_many_may_fail(name: str) -> None:
    tried = memory.starving(OPERATIONS[name], growth=1.3)
    assert tried.wrong == []


@pytest.mark.parametrize("asked", ["torch.empty(2**50)", "numpy.ones(2**50)"])
def test_a_lack_of_memory_is_said_and_the_run_can_go_on(
    asked: str, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    Path("net.py").write_text(NETWORK.format(asked))
    shutil.copy(GOLDEN / "run" / "run.yaml", "run.yaml")
    code, _, said = run(
        "train", "run.yaml", "--student.model", "net.py:make", "--out", "out", "--student.input_size", "8"
    )
    assert code == 2
    assert "There is not enough memory: " in said
    assert "smaller batches (train.batch_size)" in said
    assert "Traceback" not in said
    Path("net.py").write_text(NETWORK.format(0))
    assert run("train", "out/run.yaml", "--out", "out", "--resume")[0] == 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "There is not enough memory. Less"),
        (MemoryError("Unable to allocate 7 GiB for an array"), "memory: Unable to allocate 7 GiB for an array. Less"),
        (OSError(12, "Cannot allocate memory"), "There is not enough memory: [Errno 12] Cannot allocate memory. Less"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:125] . DefaultCPUAllocator: can't allocate memory: you tried"),
            "memory: DefaultCPUAllocator: can't allocate memory: you tried. Less",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore"), "memory: CUDA out of memory. Tried"),
        (
            torch.OutOfMemoryError("Failed to allocate a Tensor object"),
            "memory: Failed to allocate a Tensor object. Less",
        ),
        (RuntimeError("can't allocate read lock"), "memory: can't allocate read lock. Less"),
        (
            ValueError("Error calling function `f`: MemoryError: "),
            "memory: Error calling function `f`: MemoryError. Less",
        ),
        (ValueError("invalid literal"), ""),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ""),
        (OSError(28, "No space left on device"), ""),
    ],
)
def test_what_says_that_memory_is_used_up_is_known(error: Exception, said: str) -> None:
    found = of_memory(error)
    assert said in found
    assert bool(found) == bool(said)
