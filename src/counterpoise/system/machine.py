"""What the machine calls itself, and what it can count in."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

GROUPS, LIMITS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
"""Where Linux says in which groups this process is, and what these may take."""


def device_name(device: torch.device) -> str:
    """The graphics card, or the kind of device and the processor."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"{device.type} {processor()}"


def sum_dtype(device: torch.device) -> torch.dtype:
    """What to sum in: float64 where the device has it, which MPS has not."""
    import torch

    return torch.float32 if device.type == "mps" else torch.float64


def as_double(values: torch.Tensor) -> torch.Tensor:
    """`values` in float64: where they are, or on the CPU where their device has no float64."""
    import torch

    return (values if sum_dtype(values.device) == torch.float64 else values.cpu()).double()


def cores() -> int:
    """How many cores this process may use: of its container and its affinity, not of the host.

    LOKY_MAX_CPU_COUNT says fewer.
    """
    import joblib  # type: ignore[import-untyped]

    return int(joblib.cpu_count())


def peak_memory() -> float | None:
    """Bytes that this process has held at most so far; None where the system does not say."""
    with suppress(OSError, StopIteration):  # not ru_maxrss, which a child inherits from what started it
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith("VmHWM:"))
    return None


def memory() -> float:
    """Bytes that this process may take: of its container and the groups that it is in, not of the host."""
    limits = [float("inf")]
    with suppress(AttributeError, OSError, ValueError):  # Windows
        limits.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    with suppress(OSError, ValueError):
        for line in GROUPS.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds not in ("", "memory"):
                continue
            root = LIMITS / kinds
            group = root / path.strip("/")
            for folder in (group, *group.parents):
                with suppress(OSError, ValueError):  # `max` is no number
                    file = "memory.limit_in_bytes" if kinds else "memory.max"
                    limits.append(float(int((folder / file).read_text())))
                if folder == root:
                    break
    return min(limits)


@cache
def processor() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
