"""From the winners of the search to the comparisons: the best balance rule, host and rival, picked on held-out images.

    python benchmarks/evidence/choose.py runs/evidence/search runs/evidence

reads search/final.yaml and search/search.csv, and writes resnet8.yaml and resnet20.yaml into the second folder.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import yaml

HOSTS = "balance-on-"
RIVALS = ("dkd", "dist", "kd-standardized", "reverse-kl", "jsd")


def best(scores: dict[str, float], names: list[str]) -> str:
    """The highest on held-out images; the earlier of equals."""
    return max(names, key=lambda name: scores[name])


def read_scores(path: Path) -> dict[str, float]:
    """Each method's best score on the last rung."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    last = [column for column in rows[0] if column.endswith("_epochs")][-1]
    scores: dict[str, float] = {}
    for row in rows:
        if row[last]:
            scores[row["method"]] = max(float(row[last]), scores.get(row["method"], float("-inf")))
    return scores


def main() -> int:
    """Write both compare files."""
    search, out = (Path(argument) for argument in sys.argv[1:3])
    final: dict[str, Any] = yaml.safe_load((search / "final.yaml").read_text(encoding="utf-8"))
    scores = read_scores(search / "search.csv")
    hosts = [name for name in final["methods"] if name.startswith(HOSTS)]
    rules = [name for name in final["methods"] if name.startswith("balance-") and name not in hosts]
    rule, host = best(scores, rules), best(scores, hosts)
    rival, balanced = best(scores, list(RIVALS)), best(scores, ["balance", rule, host])
    print(f"picked on held-out images: rule {rule}, host {host}, rival {rival}, balanced {balanced}")
    small = ["alone", "kd", "dkd", "dist", "kd-standardized", "reverse-kl", "balance", rule, host]
    large = ["alone", "kd", rival, balanced]
    for name, student, methods, seeds, primary in (
        ("resnet8", "cifar/resnet8", small, [1, 2, 3, 4, 5], "balance"),
        ("resnet20", "cifar/resnet20", large, [1, 2, 3], balanced),
    ):
        values = {
            **final,
            "out": str(out / name),
            "run": {**final["run"], "student": {"model": student}},
            "methods": {method: final["methods"][method] for method in methods},
            "seeds": seeds,
            "baseline": "kd",
            "primary": primary,
        }
        (out / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
