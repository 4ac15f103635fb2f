"""Ctrl-C ends a command without a traceback at whatever moment it comes."""

from __future__ import annotations

import subprocess
import sys

import pytest

WHILE_IMPORTING = """
import _thread, threading
from counterpoise.__main__ import main
threading.Timer(0.1, _thread.interrupt_main).start()
main()
"""
MADE_ANOTHER_ERROR = """
import os, signal, sys, types
from counterpoise.__main__ import main

def run(arguments):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt as stop:
        raise ValueError("a schema could not be built: KeyboardInterrupt") from stop

sys.modules["counterpoise.commands.app"] = types.SimpleNamespace(run=run)
main()
"""
AT_THE_END = """
import atexit, os, signal, sys, types
from counterpoise.__main__ import main
atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.modules["counterpoise.commands.app"] = types.SimpleNamespace(run=lambda arguments: 0)
main()
"""
NO_CTRL_C = """
import sys, types
from counterpoise.__main__ import main

def run(arguments):
    raise ValueError("a fault of ours")

sys.modules["counterpoise.commands.app"] = types.SimpleNamespace(run=run)
main()
"""


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [(WHILE_IMPORTING, 130, "Stopped.\n"), (MADE_ANOTHER_ERROR, 130, "Stopped.\n"), (AT_THE_END, -2, "")],
)
def test_ctrl_c_ends_a_command_without_a_traceback(program: str, code: int, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", program, "list"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, said)


def test_an_error_without_ctrl_c_keeps_its_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", NO_CTRL_C, "list"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: a fault of ours\n")
