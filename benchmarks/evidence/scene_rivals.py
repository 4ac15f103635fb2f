"""CWD and DIST beside KD where twelve scenes have masks: what scene_gain.py left with one seed, named anew.

What is compared, decided before it was run. scene_gain.py gave CWD and DIST one seed each, most likely on a
processor that multiplies in bfloat16; the machine that goes on has none. Rows of two precisions are not mixed in one
comparison, so KD runs again beside the two, and all else is as there: scenes, masks, teacher, student, 1,350 steps, the
published weights, score on the 233 test scenes after the last step.

- kd, cwd, dist; float32 and channels last, said in the run and not left to the machine; three fresh seeds.
- The teacher is trained again by the same lines, in float32 too: 60.98 mIoU on val, where that of scene_gain.py has
  61.75. The encoders from CIFAR-100 are trained again as well, in what the machine takes, which was float32.

Named beforehand, by mIoU, corrected by Holm: cwd minus kd, and dist minus kd. Told beside them: precision and recall
of the rare classes.

    python benchmarks/evidence/scene_rivals.py data/camvid data/cifar100      # --part runs (--lane 1/2), table

Each run that is finished has its row in the CSV: the same command goes on with the others.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from kept_rows import KeptRows
from scene_gain import RESULTS, one, tell

SEEDS = (311, 312, 313)
WAYS = ("kd", "cwd", "dist")
NAMED = (("cwd", "kd"), ("dist", "kd"))
ROWS = RESULTS / "scene_rivals.csv"
COMMAND = "python benchmarks/evidence/scene_rivals.py data/camvid data/cifar100"


def main() -> int:
    """Run what is left, or tell what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("images", type=Path, help="CIFAR-100")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/scene-rivals"))
    parser.add_argument("--part", choices=("runs", "table"), default="runs")
    parser.add_argument("--lane", default="1/1", help="which share of the runs: 1/2 and 2/2 for two processes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    kept = KeptRows(ROWS, COMMAND)
    if given.part == "table":
        tell(kept, WAYS, NAMED, NAMED)
        return 0
    lane, lanes = map(int, given.lane.split("/"))
    for number, (seed, way) in enumerate((seed, way) for seed in SEEDS for way in WAYS):
        if number % lanes == lane - 1:
            one(given, way, seed, kept, precision="fp32", channels_last=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
