"""Runs counterpoise command lines in forked children, so that a test can kill one without waiting for imports.

Arguments: a folder for stdout.txt and stderr.txt, and further modules that the children need. Each line on stdin is
JSON: {"arguments": a command line, "processes": how many work together, as torchrun starts them}. "started" and the
last child's process id is printed at once, "ended" and the first exit status that is not 0 when all have ended.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

import sklearn.datasets  # noqa: F401 - imported once, for all children
import torch

from counterpoise.commands import app
from counterpoise.engine import (
    export_student,  # noqa: F401
)
from counterpoise.system import torchvision_guard

torchvision_guard.ready()
for module in sys.argv[2:]:
    importlib.import_module(module)


def serve(arguments: list[str]) -> None:
    """A child's life."""
    torch.set_num_threads(1)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(Path(sys.argv[1]) / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    code = app.run(arguments)
    sys.stdout.flush()
    os._exit(code)


for line in sys.stdin:
    request = json.loads(line)
    world, together = request["processes"], {}
    if world > 1:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        together = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    for rank in range(world):
        children.append(os.fork())
        if children[-1] == 0:
            if together:
                os.environ |= together | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            serve(request["arguments"])
    print("started", children[-1], flush=True)
    failed = 0
    while children:
        child, status = os.wait()
        children.remove(child)
        failed = failed or os.waitstatus_to_exitcode(status)
        if failed:
            for other in children:  # it would wait for the one that has failed; torchrun does so, too
                os.kill(other, signal.SIGKILL)
    print("ended", failed, flush=True)
