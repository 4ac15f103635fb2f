"""From the winners of the search to the comparisons: the best balance rule, host and rival, picked on held-out images.

    python benchmarks/evidence/choose.py runs/evidence/search runs/evidence

reads search/final.yaml and search/search.csv, and writes resnet8.yaml, resnet20.yaml and the files of map.sh into the
second folder.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import yaml

from counterpoise.config import merge

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


class Writer:
    """Writes compare files of methods with the values that the search has chosen, over seeds that no trial has seen."""

    def __init__(self, final: dict[str, Any], out: Path) -> None:
        self.final = final
        self.out = out

    def write(
        self,
        name: str,
        methods: list[str],
        seeds: int,
        primary: str,
        student: str = "cifar/resnet8",
        run: dict[str, Any] | None = None,
    ) -> None:
        """NAME.yaml; `run` is laid over what all runs share."""
        chosen = {method: self.final["methods"][method] for method in methods}
        values = {
            **self.final,
            "out": str(self.out / name),
            "run": merge(self.final["run"], {"student": {"model": student}, **(run or {})}),
            "methods": chosen,
            "seeds": list(range(1, seeds + 1)),
            "baseline": "kd",
            "primary": primary,
        }
        (self.out / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def main() -> int:
    """Write the compare files."""
    search, out = (Path(argument) for argument in sys.argv[1:3])
    final: dict[str, Any] = yaml.safe_load((search / "final.yaml").read_text(encoding="utf-8"))
    scores = read_scores(search / "search.csv")
    hosts = [name for name in final["methods"] if name.startswith(HOSTS)]
    rules = [name for name in final["methods"] if name.startswith("balance-") and name not in hosts]
    rule, host = best(scores, rules), best(scores, hosts)
    rival, balanced = best(scores, list(RIVALS)), best(scores, ["balance", rule, host])
    print(f"picked on held-out images: rule {rule}, host {host}, rival {rival}, balanced {balanced}")
    small = ["alone", "kd", "dkd", "dist", "kd-standardized", "reverse-kl", "balance", rule, host]
    few = ["alone", "kd", "reverse-kl", "balance", rule]
    compare = Writer(final, out)
    compare.write("resnet8", small, seeds=5, primary="balance")
    compare.write("resnet20", ["alone", "kd", rival, balanced], seeds=3, primary=balanced, student="cifar/resnet20")
    # The map: few images with as many steps, a long schedule, and networks for devices.
    data = {"data": {"held_out": 45_000}, "train": {"epochs": 80, "evaluate_every": 80}}
    compare.write("few-10", few, seeds=5, primary="balance", run=data)
    long = ["kd", "reverse-kl", "balance", *({balanced} - {"balance"})]
    slow = {"train": {"epochs": 60, "evaluate_every": 10}}
    compare.write("long", long, seeds=3, primary="balance", run=slow)
    family = ["kd", *(name for name in rules + hosts if name not in (rule, host))]
    compare.write(
        "family", family, seeds=5, primary="balance-self-tuning" if rule != "balance-self-tuning" else rules[0]
    )
    for student in ("resnet8x4", "mobilenetv2"):
        train = {"train": {"epochs": 30, "evaluate_every": 10}}
        compare.write(f"device-{student}", ["kd", "balance"], 3, "balance", student=f"cifar/{student}", run=train)
    return 0


if __name__ == "__main__":
    sys.exit(main())
