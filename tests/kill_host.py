"""Runs counterpoise command lines in forked children, so that a test can kill one without waiting for imports.

Argument: a socket. One such process serves all that run tests of a session: each connection has a child of its own, and
when none is left, it ends. Each line that is sent is JSON. {"arguments": a command line, "folder": for stdout.txt and
stderr.txt, "processes": how many work together, as torchrun starts them}: "started" and the last child's process id is
told at once, "ended" and the first exit status that is not 0 when all have ended. {"serve": a socket}: a child serves
it as `command_host` does, and "started" and its process id is told.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import resource
import select
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

import command_host
import torch
from PIL import Image

import counterpoise
from counterpoise import config
from counterpoise.__main__ import ended
from counterpoise.data import sources
from counterpoise.system import torchvision_guard

sys.path.append(str(Path(__file__).with_name("helpers")))
import onnx_registry

STOPS = (signal.SIGINT, signal.SIGTERM)
# What any of the children imports is imported once: all modules of ours, and what these import when it is needed.
LIBRARIES = [
    *("sklearn.datasets", "timm", "segmentation_models_pytorch", "jinja2", "optuna"),
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
        # Other tools' packages may be missing, take seconds, and one of them changes Pillow: commands need none.
        if not module.name.endswith("__main__") and not module.name.startswith("counterpoise.integrations."):
            importlib.import_module(module.name)
    for library in LIBRARIES:
        with contextlib.suppress(ModuleNotFoundError):  # an extra that is not installed
            importlib.import_module(library)
    onnx_registry.keep(warm=True)
    sources.load(config.Data(source="digits"))  # which is kept
    Image.init()


def work(request: dict[str, Any]) -> None:
    """A child's life: `where` it works, with files of at most `largest_file` bytes, where these are given."""
    torch.set_num_threads(1)
    os.chdir(request.get("where") or ".")
    if request.get("largest_file"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"],) * 2)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(Path(request["folder"]) / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    command_host.end_if_it_hangs()
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        code = ended(request["arguments"])
    except KeyboardInterrupt:  # just before it, or just after
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start(request: dict[str, Any]) -> list[int]:
    """Process ids of the children that run a command line together."""
    together, world = {}, request["processes"]
    if world > 1:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        together = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    held = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # until a child has its handlers
    for rank in range(world):
        children.append(os.fork())
        if children[-1] == 0:
            if together:
                os.environ |= together | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            work(request)
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
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


def attend(connection: socket.socket) -> None:
    """Do what is asked for on a connection, until it is closed."""

    def tell(event: str, number: int) -> None:
        connection.sendall(f"{event} {number}\n".encode())

    for line in connection.makefile():
        request = json.loads(line)
        if "serve" in request:
            server = os.fork()
            if server == 0:
                connection.close()
                command_host.serve(request["serve"])
            tell("started", server)
            continue
        children = start(request)
        tell("started", children[-1])
        tell("ended", wait(children))


def accept(listener: socket.socket, seconds: float) -> bool:
    """Give whoever connects within so many seconds a child; whether somebody has."""
    if not select.select([listener], [], [], seconds)[0]:
        return False
    connection, _ = listener.accept()
    with connection:
        if os.fork() == 0:
            listener.close()
            with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
                attend(connection)
            os._exit(0)
    return True


def alone() -> bool:
    """Whether no child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def main(path: str) -> None:
    gc.disable()
    import_all()
    gc.freeze()  # else the first garbage collection of each child copies all of these objects' pages
    gc.enable()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"{path}.new")
        listener.listen()
        os.rename(f"{path}.new", path)  # noqa: PTH104 - it is there once it answers
        accept(listener, 60.0)
        while accept(listener, 0.2) or not alone():
            pass
        os.unlink(path)  # noqa: PTH108 - who comes now starts another one, but for one that is waiting already
        while accept(listener, 0.0) or not alone():
            pass


if __name__ == "__main__":
    main(sys.argv[1])
