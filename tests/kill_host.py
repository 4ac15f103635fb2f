"""Runs counterpoise command lines in forked children, so that a test can kill one without waiting for imports.

Argument: a folder for stdout.txt and stderr.txt. Each line on stdin is JSON. {"arguments": a command line, "processes":
how many work together, as torchrun starts them}: "started" and the last child's process id is printed at once, "ended"
and the first exit status that is not 0 when all have ended. {"serve": a socket}: a child serves it as `command_host`
does, and "started" and its process id is printed.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
from pathlib import Path

import command_host
import torch
from PIL import Image

import counterpoise
from counterpoise.commands import app
from counterpoise.system import torchvision_guard

# What any of the children imports is imported once: all modules of ours, and what these import when it is needed.
LIBRARIES = [
    *("sklearn.datasets", "timm", "segmentation_models_pytorch", "torchmetrics.classification", "jinja2", "optuna"),
    *("onnxruntime", "onnx.checker", "onnxscript.optimizer", "torch.onnx", "torch.export", "torch._dynamo", "networkx"),
    *(
        "onnxscript.function_libs.torch_lib.ops",
        "torch.onnx._internal.exporter._compat",
        "onnxruntime.quantization.shape_inference",
    ),
    *("torch.onnx._internal.exporter._torchlib.ops", "torch._functorch.aot_autograd", "torch.export._trace"),
    *("torchao.quantization", "torchvision.transforms.v2", "scipy.stats.qmc", "matplotlib.backends.backend_agg"),
    *("torch.distributed.fsdp", "torch.distributed.device_mesh"),
]


def import_all() -> None:
    torchvision_guard.ready()
    for module in pkgutil.walk_packages(counterpoise.__path__, "counterpoise."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for library in LIBRARIES:
        importlib.import_module(library)
    Image.init()


def work(arguments: list[str]) -> None:
    """A child's life."""
    torch.set_num_threads(1)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(Path(sys.argv[1]) / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    code = app.run(arguments)
    sys.stdout.flush()
    os._exit(code)


def start(arguments: list[str], world: int) -> list[int]:
    """Process ids of the children that run a command line together."""
    together = {}
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
            work(arguments)
    return children


def wait(children: list[int]) -> int:
    """The first exit status that is not 0; others, which would wait for that one, are killed, as torchrun does."""
    failed = 0
    while children:
        child, status = os.wait()
        if child not in children:  # a server that its test has killed
            continue
        children.remove(child)
        failed = failed or os.waitstatus_to_exitcode(status)
        if failed:
            for other in children:
                os.kill(other, signal.SIGKILL)
    return failed


import_all()
for line in sys.stdin:
    request = json.loads(line)
    if "serve" in request:
        server = os.fork()
        if server == 0:
            command_host.serve(request["serve"])
        print("started", server, flush=True)
        continue
    children = start(request["arguments"], request["processes"])
    print("started", children[-1], flush=True)
    print("ended", wait(children), flush=True)
