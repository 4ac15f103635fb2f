"""What a process keeps of the memory that steps free."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from counterpoise.engine.allocation import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()


def step():
    held = [torch.ones(2**20) for _ in range(30)]  # 120 MB in blocks of four
    return float(held[-1][0])


for _ in range(6):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_not_taken_anew_at_each_step() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, check=True).stdout)
        for how in ("keep", "leave")
    }
    assert faults["keep"] < 100 < faults["leave"] / 100
