"""What a process keeps of the memory that steps free."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

# Without torch, whose libraries leave the heap in another state on each machine.
PROGRAM = """
import ctypes, mmap, pathlib, sys
from counterpoise.engine.allocation import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
blocks = (ctypes.c_void_p * 30)()


def step():  # 120 MB in blocks of four
    for place in range(30):
        blocks[place] = libc.malloc(2**22)
        libc.memset(blocks[place], 1, 2**22)
    for place in reversed(range(30)):
        libc.free(blocks[place])


def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


before = resident()
for _ in range(6):
    step()
print(resident() - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not Path("/proc/self/statm").exists(),
    reason="a setting of glibc, seen in /proc",
)
def test_the_next_step_finds_the_memory_that_the_last_one_freed() -> None:
    kept = {
        how: int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, check=True).stdout)
        for how in ("keep", "leave")
    }
    assert kept["leave"] < 30e6 < 100e6 < kept["keep"]
