"""Serves `counterpoise` command lines from forked children, so that a page of commands imports torch once.

A child of kill_host.py serves; `python command_host.py SOCKET ARGUMENTS...` asks it to run a command line, with the
working folder, environment and streams of its own, and ends as the command does.
"""

from __future__ import annotations

import array
import json
import os
import socket
import sys
import traceback

LONGEST = 1 << 20  # bytes of a request


def serve(path: str) -> None:
    """Run what is asked for, one command after another, until killed."""
    import torch

    from counterpoise.commands import app

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"{path}.new")
        listener.listen()
        os.rename(f"{path}.new", path)  # noqa: PTH104 - it is there once it answers
        while True:
            client, _ = listener.accept()
            with client:
                size = array.array("i").itemsize
                data, ancillary, *_ = client.recvmsg(LONGEST, socket.CMSG_LEN(3 * size))
                streams = array.array("i", ancillary[0][2][: 3 * size])
                child = os.fork()
                if child == 0:
                    code = 1
                    try:
                        request = json.loads(data)
                        for target, stream in enumerate(streams):
                            os.dup2(stream, target)
                        os.environ.update(request["environment"])
                        os.chdir(request["folder"])
                        sys.path.insert(0, "")
                        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
                        code = app.run(request["arguments"])
                        sys.stdout.flush()
                        sys.stderr.flush()
                    except BaseException:
                        traceback.print_exc()
                    finally:
                        os._exit(code)
                for stream in streams:
                    os.close(stream)
                client.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def ask(path: str, arguments: list[str]) -> int:
    """The exit code of a command line."""
    request = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.connect(path)
        socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
        return int(server.recv(64) or b"1")


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1], sys.argv[2:]))
