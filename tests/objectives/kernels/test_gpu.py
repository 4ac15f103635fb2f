"""The Triton kernels against the reference: on a GPU where there is one, else by Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs the extra 'triton'")


def test_kernels_equal_the_reference() -> None:
    # The interpreter has to be chosen before Triton is imported, hence a process of its own.
    environment = os.environ | ({} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"})
    host = Path(__file__).with_name("gpu_host.py")
    done = subprocess.run([sys.executable, str(host)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("cases equal") == 2
