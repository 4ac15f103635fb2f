"""Serves `counterpoise` command lines from forked children, so that many commands import torch once.

A child of kill_host.py serves; `python command_host.py SOCKET ARGUMENTS...` asks it to run a command line, with the
working folder, environment, limits and streams of its own, hands on signals, and ends as the command does.
"""

from __future__ import annotations

import array
import contextlib
import faulthandler
import json
import os
import resource
import signal
import socket
import sys
import traceback

LONGEST = 1 << 20  # bytes of a request
PATIENCE = 240  # seconds; no command line of a test takes as long


def end_if_it_hangs() -> None:
    """After PATIENCE, say on stderr where each thread of this process stands, and end it."""
    faulthandler.dump_traceback_later(PATIENCE, exit=True, file=2)


def serve(path: str) -> None:
    """Run what is asked for until killed; a child has its id and then its exit code told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"{path}.new")
        listener.listen()
        os.rename(f"{path}.new", path)  # noqa: PTH104 - it is there once it answers
        while True:
            client, _ = listener.accept()
            with client, contextlib.suppress(ChildProcessError):
                if os.fork() == 0:
                    code = 1
                    try:
                        code = work(client)
                    except BaseException:
                        traceback.print_exc()
                    finally:
                        client.sendall(f"{code}\n".encode())
                        os._exit(code)
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def work(client: socket.socket) -> int:
    """A child's life."""
    import torch

    from counterpoise.commands import app

    client.sendall(f"{os.getpid()}\n".encode())
    size = array.array("i").itemsize
    data, ancillary, *_ = client.recvmsg(LONGEST, socket.CMSG_LEN(3 * size))
    request = json.loads(data)
    for target, stream in enumerate(array.array("i", ancillary[0][2][: 3 * size])):
        os.dup2(stream, target)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    resource.setrlimit(resource.RLIMIT_FSIZE, tuple(request["largest_file"]))
    sys.path.insert(0, "")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    end_if_it_hangs()
    code = app.run(request["arguments"])
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def ask(path: str, arguments: list[str]) -> int:
    """The exit code of a command line."""
    request = {
        "arguments": arguments,
        "folder": os.getcwd(),  # noqa: PTH109
        "environment": dict(os.environ),
        "largest_file": resource.getrlimit(resource.RLIMIT_FSIZE),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.connect(path)
        told = server.makefile()
        child = int(told.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(child, number))
        socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
        return int(told.readline() or "1")


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1], sys.argv[2:]))
