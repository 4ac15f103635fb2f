"""Memory that steps take and give back on a CPU, kept by the process between them."""

from __future__ import annotations

import ctypes
import os
import platform

KEPT = 2**30
"""Freed bytes at the top of the heap from which on they go back to the system."""
LARGEST = 32 * 2**20
"""Blocks up to this come from the heap; glibc takes no larger number, and gets here by itself after a few steps."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> bool:
    """Let glibc keep what a step has freed for the next one; whether that was possible.

    By default it hands all above 64 MB back, and takes it again page by page: of cifar/resnet8 some 2,000 pages a step,
    a tenth of its time. Settings from outside (GLIBC_TUNABLES, MALLOC_...) stay as they are.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST) and mallopt(_TRIM_THRESHOLD, KEPT))
