"""Where a number comes from: device, versions, commit, and the code that made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from counterpoise.config import Run
from counterpoise.config.keys import MAKING
from counterpoise.system.machine import device_name

APART = ("device", "versions", "code")
"""What numbers of one table must have in common."""


def here(run: Run) -> dict[str, Any]:
    """The origin of a run that is trained in this process."""
    import torch

    from counterpoise.engine.export_student import commit, versions
    from counterpoise.engine.processes import choose_device

    return {
        "device": device_name(choose_device(run.train.device)),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "commit": commit(),
        "code": code(),
    }


def key(sittings: Sequence[Mapping[str, Any]]) -> str:
    """A short name for where a run was trained; several where it moved on its way. Threads do not count."""
    found = []
    for sitting in sittings:
        text = json.dumps([sitting.get(part) for part in APART], sort_keys=True)
        found.append(hashlib.sha256(text.encode()).hexdigest()[:8])
    return "+".join(dict.fromkeys(found))


@cache
def code() -> str:
    """sha256 of the package's own source, but for what only starts runs or tells of them."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if name.parts[0] in MAKING:
            digest.update(name.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
