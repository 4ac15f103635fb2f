"""CamVid on two cores: a teacher, then students alone, with KD and with Balance, by recipes/camvid/small-cpu.

    python benchmarks/camvid.py --data data/camvid --out runs/camvid-small --csv benchmarks/results/camvid_small_cpu.csv

data/camvid is a folder of images/ and masks/, each with train, val and test.

Runs that are finished in --out are kept, so the same command goes on where it was stopped. The test images are scored
when all runs are done: mIoU, pixel accuracy, and of the thin and rare classes of streets how much of them is found
(recall) and how much of what is taken for them is right (precision), by all pixels together. Scores are those of the
last epoch: no epoch is chosen by looking.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
from counterpoise import config, distill, evaluate, train

RECIPES = Path(__file__).resolve().parents[1] / "recipes" / "camvid" / "small-cpu"
METHODS = ("alone", "kd", "balance")
THIN = ("pole", "sign", "pedestrian", "bicyclist")
"""What the names of these classes begin with, in small letters."""
SCORES = ("val_miou", "val_miou_best", "test_miou", "test_pixel_accuracy")


def main() -> int:
    """Run what is missing, score the test images, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CamVid: images/ and masks/ with train, val and test")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--csv", type=Path, help="write a line a run")
    parser.add_argument("--seeds", type=int, default=3, help="students of each kind, from seed 1 on")
    parser.add_argument(
        "--only", nargs="+", choices=METHODS, help="train these and score nothing: for several processes at once"
    )
    parser.add_argument(
        "--epochs", type=int, help="fewer epochs than those of the recipes, to see that all of it works"
    )
    options = parser.parse_args()
    seeds = range(1, options.seeds + 1)
    names = ["teacher", *(f"{method}-{seed}" for method in options.only or METHODS for seed in seeds)]
    for name in names:
        fit(name, options.data, options.out, options.epochs)
    if options.only:
        return 0
    rows = [row(name, options.data, options.out) for name in names]
    if options.csv:
        command = f"python benchmarks/camvid.py --data {options.data} --out {options.out} --seeds {options.seeds}"
        command += f" --epochs {options.epochs}" if options.epochs else ""
        write(options.csv, [{**values, "command": command} for values in rows])
    show(rows)
    return 0


def fit(name: str, data: Path, out: Path, epochs: int | None = None) -> None:
    """Train what is called METHOD-SEED, unless it is done; with the seconds of processor time that it took."""
    folder = out / name
    spent = folder / "processor.json"
    if spent.exists():
        return
    method, _, seed = name.partition("-")
    values: dict[str, Any] = {"seed": int(seed or 0), "out": str(folder), "data": {"path": str(data)}}
    if method in METHODS[1:]:
        values["teacher"] = {"checkpoint": str(out / "teacher"), **({"accept_chance": True} if epochs else {})}
    if epochs:
        values["train"] = {"epochs": epochs}
    run = config.merge(config.read(RECIPES / f"{method}.yaml"), values)
    started = time.process_time()
    result = (distill if "teacher" in run else train)(run, overwrite=True, show=sys.stderr.isatty())
    spent.write_text(json.dumps({"seconds": time.process_time() - started, "device": harness.device()}))
    print(f"{name}: val mIoU {result.last['miou']:.2f}, {result.seconds:.0f} s", flush=True)


def row(name: str, data: Path, out: Path) -> dict[str, Any]:
    """What is known of a finished run, in the order of the table's columns."""
    folder = out / name
    method, _, seed = name.partition("-")
    scored = folder / "test.json"
    if not scored.exists():
        scored.write_text(json.dumps(evaluate(folder, data, batch_size=16, split="test"), indent=2))
    test, summary = json.loads(scored.read_text()), json.loads((folder / "summary.json").read_text())
    spent = json.loads((folder / "processor.json").read_text())
    made = json.loads((folder / "student" / "student.json").read_text())["provenance"]
    terms = config.read(RECIPES / f"{method}.yaml")["objective"]
    return {
        "method": method,
        "seed": int(seed or 0),
        "val_miou": summary["last"]["miou"],
        "val_miou_best": summary["best"]["miou"],
        "test_miou": test["miou"],
        "test_pixel_accuracy": test["pixel_accuracy"],
        **thin(test["per_class"]),
        "seconds": summary["seconds"],
        "processor_seconds": spent["seconds"],
        "parameters": summary["parameters"],
        "objective": "; ".join(
            f"{term}: " + ", ".join(f"{key} {value}" for key, value in given.items()) for term, given in terms.items()
        ),
        "device": spent["device"],
        "versions": " ".join(f"{package} {version}" for package, version in made["versions"].items()),
        "commit": made["commit"],
    }


def thin(per_class: Sequence[Mapping[str, Any]]) -> dict[str, float | str]:
    """Precision and recall of the thin classes by column of the CSV; empty where there is none.

    Raises ValueError where the data have no such class: its columns would say nothing.
    """
    found: dict[str, float | str] = {}
    for name in THIN:
        rows = [each for each in per_class if each["class"].lower().startswith(name)]
        if len(rows) != 1:
            raise ValueError(f"{len(rows)} classes begin with '{name}': {[each['class'] for each in per_class]}")
        for score in ("precision", "recall"):
            found[f"test_{name}_{score}"] = "" if rows[0][score] is None else rows[0][score]
    return found


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A line a run, numbers with two decimals."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for values in rows:
            writer.writerow({k: f"{v:.2f}" if isinstance(v, float) else v for k, v in values.items()})


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Markdown: mean and standard deviation over seeds, and differences between runs of one seed."""
    by_method = {kind: [row for row in rows if row["method"] == kind] for kind in ("teacher", *METHODS)}
    print("| method | " + " | ".join(SCORES) + " | seconds | processor seconds |\n" + "|---" * (len(SCORES) + 3) + "|")
    for method, found in by_method.items():
        cells = [spread([row[column] for row in found]) for column in SCORES]
        times = [f"{statistics.fmean(row[column] for row in found):.0f}" for column in ("seconds", "processor_seconds")]
        print(f"| {method} | " + " | ".join(cells + times) + " |")
    print("\n| method | " + " | ".join(f"{name}: precision | recall" for name in THIN) + " |\n" + "|---" * 9 + "|")
    for method, found in by_method.items():
        columns = [f"test_{name}_{score}" for name in THIN for score in ("precision", "recall")]
        known = [[row[column] for row in found if row[column] != ""] for column in columns]
        print(f"| {method} | " + " | ".join(spread(values) if values else "-" for values in known) + " |")
    total = sum(row["seconds"] for row in rows), sum(row["processor_seconds"] for row in rows)
    print(f"\nall runs: {total[0]:.0f} s, {total[1]:.0f} s of processor time")
    if len(by_method["alone"]) < 2:
        return
    print("\n| difference, by seed | val_miou, 95% interval | test_miou, 95% interval |\n|---|---|---|")
    for upper, lower in (("kd", "alone"), ("balance", "alone"), ("balance", "kd")):
        cells = [
            difference([row[column] for row in by_method[upper]], [row[column] for row in by_method[lower]])
            for column in ("val_miou", "test_miou")
        ]
        print(f"| {upper} - {lower} | " + " | ".join(cells) + " |")


def spread(values: Sequence[float]) -> str:
    """Mean, and standard deviation where there are several."""
    mean = f"{statistics.fmean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def difference(upper: Sequence[float], lower: Sequence[float]) -> str:
    """Mean of the differences of pairs, with Student's interval of 95%."""
    from scipy.stats import t

    pairs = [a - b for a, b in zip(upper, lower, strict=True)]
    half = t.ppf(0.975, len(pairs) - 1) * statistics.stdev(pairs) / len(pairs) ** 0.5
    mean = statistics.fmean(pairs)
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


if __name__ == "__main__":
    sys.exit(main())
