"""Every logit objective on scikit-learn's digits: the demo's networks, its teacher, five seeds, one table.

    python benchmarks/digits_objectives.py --out benchmarks/results/digits-objectives.csv

All methods carry the demo's total weight beside cross-entropy at weight 1, at the demo's temperature where they have
one, and are otherwise as their papers set them: by that rule alone, tuned on nothing. Hosts with balance keep their own
weight and get the reverse term on top. One line a run; rows of a finished file are kept.
"""

from __future__ import annotations

import argparse
import csv
import inspect
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import harness
from counterpoise import distill, train
from counterpoise.demos import OBJECTIVES, TEACHER, TOTAL_WEIGHT, student_run
from counterpoise.engine.export_student import commit, versions
from counterpoise.objectives.base import entries

TEMPERATURE = 2.0
REVERSE = {"objective": "reverse_kl", "weight": TOTAL_WEIGHT / 2, "temperature": TEMPERATURE}
FIELDS = ("method", "seed", "top1_last", "top1_best", "seconds", "device", "torch", "counterpoise", "commit")


def methods() -> dict[str, dict[str, Any]]:
    """Terms beside cross-entropy, by the name of the row."""
    rows: dict[str, dict[str, Any]] = {"alone": {}}
    for name, entry in entries().items():
        if entry.kind.needs & {"features", "maps"} or "teacher" not in entry.kind.needs or name == "class_weighted":
            continue  # the last is balance, where nothing is weighed
        term: dict[str, Any] = {"weight": TOTAL_WEIGHT}
        if "temperature" in inspect.signature(entry.kind).parameters:
            term["temperature"] = TEMPERATURE
        rows[name] = {name: term}
    rows["balance"] = {"balance": dict(OBJECTIVES["balance"]["balance"])}
    rows["standardized dkd"] = {"dkd": {"objective": "standardized", "of": "dkd", "weight": TOTAL_WEIGHT}}
    rows["gkl at equal weights"] = {"gkl": {"weight": TOTAL_WEIGHT, "power": 0.0, "soft_weight": 0.0}}
    for host in ("dkd", "dist", "standardized"):
        rows[f"balance on {host}"] = {**rows[host], "reverse": REVERSE}
    for rule in ("entropy", "head_tail", "class_ratio", "self_tuning"):
        rows[f"balance, {rule}"] = {"balance": {**OBJECTIVES["balance"]["balance"], "rule": rule}}
    return rows


def main() -> int:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="CSV, which is gone on with where it exists")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    done: list[dict[str, str]] = []
    if options.out.exists():
        with options.out.open(newline="", encoding="utf-8") as file:
            done = list(csv.DictReader(file))
    finished = {(row["method"], int(row["seed"])) for row in done}
    with tempfile.TemporaryDirectory() as folder, options.out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not done:
            writer.writeheader()
        teacher = train(student_run(Path(folder, "teacher"), TEACHER, 0, 30, OBJECTIVES["alone"])).folder
        for method, terms in methods().items():
            for seed in range(1, options.seeds + 1):
                if (method, seed) in finished:
                    continue
                values = student_run(
                    Path(folder, f"{method}-{seed}"), "digits/cnn_4_8", seed, 20, {**OBJECTIVES["alone"], **terms}
                )
                result = distill({**values, "teacher": {"checkpoint": str(teacher)}}) if terms else train(values)
                row = {"method": method, "seed": seed, "top1_last": f"{result.last['top1']:.2f}"}
                row |= {"top1_best": f"{result.best['top1']:.2f}", "seconds": f"{result.seconds:.2f}"}
                row |= {"device": harness.device(), "commit": commit()}
                row |= {name: versions()[name] for name in ("torch", "counterpoise")}
                writer.writerow(row)
                file.flush()
                done.append({key: str(value) for key, value in row.items()})
    table(done)
    return 0


def table(rows: list[dict[str, str]]) -> None:
    """Markdown, mean and standard deviation over seeds, by the last epoch."""
    by_method: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_method[row["method"]].append(row)

    def spread(method: str, column: str) -> str:
        values = [float(row[column]) for row in by_method[method]]
        return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}"

    print("| method | last epoch | best epoch |\n|---|---|---|")
    for method in sorted(by_method, key=lambda m: -statistics.fmean(float(r["top1_last"]) for r in by_method[m])):
        print(f"| {method} | {spread(method, 'top1_last')} | {spread(method, 'top1_best')} |")


if __name__ == "__main__":
    sys.exit(main())
