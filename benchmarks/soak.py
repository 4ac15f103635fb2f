"""Random commands that are killed, stopped, paused, moved to other numbers of processes and short of disk, for hours.

Each is compared with a twin that nobody disturbs: all files, to the byte, but for what a clock says; runs that one
process begins and two end are compared to rounding. Lost is what differs, what was printed as done and done again, an
exit status or a traceback that should not be, and a process left behind. One seed gives one sequence of commands and of
what is done to them; `--only` does one of them. Ctrl-C ends it early. It takes Linux, and root for full disks that are
file systems.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

import harness

sys.path.extend(str(Path(__file__).resolve().parents[1] / name) for name in ("tests", "tests/helpers"))

from soaking import jobs, plans, processes, trying

COUNTS = ("jobs", "commands", "kills", "stops", "pauses", "full_disks", "resumes", "moves")


def main() -> int:
    """Run it; 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of one plan")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--keep", type=Path, help="copy what has lost something to this folder")
    parser.add_argument("--out", type=Path, help="also write the counts to this CSV")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    processes.ready()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        ground = Path(name) / "ground"
        lay(ground)
        total, lost, number = Counter[str](), 0, asked.first if asked.only is None else asked.only
        try:
            while asked.only in (None, number) and time.monotonic() < started + 3600 * asked.hours:
                plan = plans.draw(asked.seed, number, ground)
                scratch = Path(name) / str(number)
                scratch.mkdir()
                report = trying.attempt(plan, scratch, None if asked.keep is None else asked.keep / str(number))
                total += report.done
                total["jobs"] += 1
                lost += bool(report.lost)
                print(f"{number} {plan.job.kind}: {report}", flush=True)
                shutil.rmtree(scratch)
                number += 1
        except KeyboardInterrupt:  # what was done until then counts
            processes.left()
    case = {"case": f"seed {asked.seed}", "hours": (time.monotonic() - started) / 3600}
    case |= {key: total[key] for key in COUNTS} | {"lost": lost}
    command = f"python benchmarks/soak.py --hours {asked.hours:g} --seed {asked.seed}"
    return harness.report("soak", [case], [{"name": "lost", "value": lost, "at_most": 0}], False, asked.out, command)


def lay(ground: Path) -> None:
    """What all jobs start from."""
    jobs.lay(ground)
    for name, job in jobs.first(ground).items():
        folder = ground / f"{name}.making"
        folder.mkdir()
        trying.whole(job, folder)
        (folder / "out").rename(ground / name)


if __name__ == "__main__":
    sys.exit(main())
