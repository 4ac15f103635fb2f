"""From the winners of deeper.yaml to their comparison, with KD at Balance's values beside them.

    python benchmarks/evidence/deeper.py runs/evidence/deeper runs/evidence/primary.yaml

KD at the learning rate, weight decay, total weight and temperature that were chosen for Balance differs from it in
nothing but the reverse term.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import yaml


def main() -> int:
    """Write the compare file."""
    search, out = (Path(argument) for argument in sys.argv[1:3])
    final: dict[str, Any] = yaml.safe_load((search / "final.yaml").read_text(encoding="utf-8"))
    methods = final["methods"]
    same = copy.deepcopy(methods["balance"])
    sides = same["objective"].pop("balance")
    total = sides["forward_weight"] + sides["reverse_weight"]
    same["objective"]["forward_kl"] = {"weight": total, "temperature": sides["forward_temperature"]}
    methods = {"kd": methods["kd"], "kd-at-balance": same, "balance": methods["balance"]}
    run = {**final["run"], "teacher": {"store": "runs/evidence/store-seed-{seed}"}}
    values = {**final, "out": str(out.with_suffix("")), "run": run, "methods": methods}
    out.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
