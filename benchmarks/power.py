"""Simulated power cuts, and calls that fail, in the operations that keep a user's work: how many, and what was lost.

Every operation's system calls are recorded; the states that a crash may leave are made and opened, and done again in a
fifth of them. Then it is done with its n-th call failing, for n = 1, 2, ..., with EIO, ENOSPC, EINTR and EMFILE, once
and from then on; of the operations with most calls, each call in one of these ways. The tests in tests/power do so
with fewer. It takes Linux on x86-64.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

import harness

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from outage import tracing, trying
from outage.operations import OPERATIONS

STATES, TORN = 2000, 40
SLOW_STATES = 400
SLOW = ("site", "pack")
"""Those with most calls."""


def main() -> int:
    """Run it."""
    options = harness.arguments(__doc__ or "", threads=1)
    torch.set_num_threads(1)
    if reason := tracing.why_not():
        print(f"needs to trace calls: {reason}", file=sys.stderr)
        return 2
    cases = [tried(name, options.quick) for name in OPERATIONS]
    keys = ("states_tried", "states_lost", "failures_tried", "failures_lost")
    total = {key: sum(case[key] for case in cases) for key in keys}
    cases.append({"case": "all", **total})
    targets = [{"name": key, "value": total[key], "at_most": 0} for key in ("states_lost", "failures_lost")]
    return harness.report("power", cases, targets, options.json, options.out)


def tried(name: str, quick: bool) -> dict[str, Any]:
    """The figures of an operation."""
    states, torn = (60, 3) if quick else (SLOW_STATES if name in SLOW else STATES, TORN)
    crashed = trying.crash(OPERATIONS[name], states, again_every=5, torn=torn)
    ways = trying.some if quick else trying.in_turn if name in SLOW else trying.every_way
    failed = trying.failing(OPERATIONS[name], ways)
    for line in (*crashed.wrong, *failed.wrong):
        print(f"{name}: {line}", file=sys.stderr)
    return {
        "case": name,
        "changes": crashed.steps,
        "states_tried": crashed.count,
        "states_lost": len(crashed.wrong),
        "calls": failed.steps,
        "failures_tried": failed.count,
        "failures_lost": len(failed.wrong),
    }


if __name__ == "__main__":
    sys.exit(main())
