"""Runs counterpoise command lines in forked children, so that a test can kill one without waiting for imports.

Arguments: a file for stderr, and further modules that the children need. Each line on stdin is a command line as JSON;
"started" and the child's process id is printed at once, "ended" and its exit status when it ends.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

import sklearn.datasets  # noqa: F401 - imported once, for all children
import torch

from counterpoise import cli
from counterpoise.engine import assemble, finish, trainer  # noqa: F401
from counterpoise.models import guard

guard.ready()
for module in sys.argv[2:]:
    importlib.import_module(module)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
        os._exit(cli.run(json.loads(line)))
    print("started", child, flush=True)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
