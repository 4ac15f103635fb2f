"""Simulated power cuts, and calls that fail, in the operations that keep a user's work: how many, and what was lost.

Every operation's system calls are recorded; the states that a crash may leave are made and opened, and done again. Then
it is done with its n-th call failing, for n = 1, 2, ..., with EIO, ENOSPC, EINTR and EMFILE, once and from then on. The
tests in tests/power do the same with fewer states. It takes Linux on x86-64.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

import harness

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from power.operations import OPERATIONS

from power import tracing, trying

STATES, QUICK_STATES, TORN = 2000, 60, 40


def main() -> int:
    """Run it."""
    options = harness.arguments(__doc__ or "", threads=1)
    torch.set_num_threads(1)
    if reason := tracing.why_not():
        print(f"needs to trace calls: {reason}", file=sys.stderr)
        return 2
    cases: list[dict[str, Any]] = []
    for name, make in OPERATIONS.items():
        states, torn = (QUICK_STATES, 3) if options.quick else (STATES, TORN)
        crashed = trying.crash(make, states, again_every=5, torn=torn)
        failed = trying.failing(make, trying.in_turn if options.quick else trying.every_way)
        for line in (*crashed.wrong, *failed.wrong):
            print(f"{name}: {line}", file=sys.stderr)
        cases.append(
            {
                "case": name,
                "changes": crashed.steps,
                "states_tried": crashed.count,
                "states_lost": len(crashed.wrong),
                "calls": failed.steps,
                "failures_tried": failed.count,
                "failures_lost": len(failed.wrong),
            }
        )
        print(f"{name}: {crashed.count} states, {failed.count} failures", file=sys.stderr)
    keys = ("states_tried", "states_lost", "failures_tried", "failures_lost")
    total = {key: sum(case[key] for case in cases) for key in keys}
    cases.append({"case": "all", **total})
    targets = [{"name": key, "value": total[key], "at_most": 0} for key in ("states_lost", "failures_lost")]
    return harness.report("power", cases, targets, options.json, options.out)


if __name__ == "__main__":
    sys.exit(main())
