"""Students of one teacher, live and from stores of 16, 8 and 4 bits a logit: accuracy beside accuracy.

cifar/wrn_16_2 teaches cifar/resnet8 for 5 epochs of CIFAR-100's views (pad, crop and mirror), with the default
objective. Of the 50,000 training images the same 10,000 are used throughout, so that it ends in under an hour on two
cores; the test set is whole. Each seed has its own views and so stores of its own, recorded once in float32 and made
smaller by `store.prune`, which gives the bytes that recording in fewer bits gives.

Goes on where it was stopped: finished students are in --out, stores and running students in --work.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

import counterpoise
import harness
from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.sources.base import Splits
from counterpoise.teachers import store as stores

TEACHER = harness.SHARED / "teachers" / "cifar100-wrn_16_2.safetensors"
KINDS = ("live", "float16", "int8", "int4", "labels alone")
SEEDS = (0, 1, 2)


def main() -> int:
    """Train what is not trained yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="unpacked CIFAR-100")
    parser.add_argument("--out", type=Path, required=True, help="CSV, a line a student")
    parser.add_argument("--work", type=Path, required=True, help="folder for stores and runs, 150 MB")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    whole = sources.load(config.Data(path=options.data))
    chosen = torch.randperm(len(whole.train), generator=torch.Generator().manual_seed(0))[: options.images]
    data = Splits(whole.train.subset(chosen), whole.val)
    cases = finished(options.out)
    done = {(case["teacher"], int(case["seed"])) for case in cases}
    for seed in SEEDS:
        for kind in KINDS:
            if (kind, seed) not in done:
                cases.append(student(kind, seed, data, options))
                harness.write_csv(options.out, {**about(options), "cases": cases})
                print(cases[-1], flush=True)
    for kind in KINDS:
        top1 = [float(case["top1"]) for case in cases if case["teacher"] == kind]
        print(f"{kind}: {statistics.fmean(top1):.2f} +- {statistics.stdev(top1):.2f}")
    return 0


def finished(out: Path) -> list[dict[str, Any]]:
    """The cases in a CSV of before."""
    if not out.exists():
        return []
    with out.open(newline="", encoding="utf-8") as file:
        keys = ("teacher", "seed", "top1", "images", "epochs", "loss")
        return [{key: row[key] for key in keys} for row in csv.DictReader(file)]


def about(options: argparse.Namespace) -> dict[str, Any]:
    """What `harness.write_csv` says of all cases."""
    return {
        "benchmark": "store_training",
        "device": harness.device(),
        "versions": harness.versions(),
        "commit": harness.commit(),
        "command": "python benchmarks/store_training.py --data FOLDER --work FOLDER --out benchmarks/results/"
        f"{options.out.name} --images {options.images} --epochs {options.epochs}",
    }


def student(kind: str, seed: int, data: Splits, options: argparse.Namespace) -> dict[str, Any]:
    """Train one, after recording where there is no store yet."""
    teacher = {"model": "cifar/wrn_16_2", "checkpoint": str(TEACHER)}
    folder = options.work / f"{kind.replace(' ', '-')}-{seed}"
    values: dict[str, Any] = {
        "seed": seed,
        "student": {"model": "cifar/resnet8"},
        "train": {"epochs": options.epochs, "precision": "bf16", "evaluate_every": options.epochs},
        "out": str(folder),
    }
    if kind == "labels alone":
        result = counterpoise.train(values, data=data, resume=folder.exists())
    else:
        if kind != "live":
            teacher = {"store": str(store(kind, seed, {**values, "teacher": teacher}, data, options))}
        result = counterpoise.distill({**values, "teacher": teacher}, data=data, resume=folder.exists())
    lines = (result.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    terms = json.loads(lines[-1])["terms"]
    return {
        "teacher": kind,
        "seed": seed,
        "top1": f"{result.last['top1']:.2f}",
        "images": options.images,
        "epochs": options.epochs,
        "loss": f"{sum(terms.values()):.6f}",
    }


def store(kind: str, seed: int, values: dict[str, Any], data: Splits, options: argparse.Namespace) -> Path:
    """The store of a precision."""
    exact, path = options.work / f"store-{seed}", options.work / f"store-{seed}-{kind}"
    counterpoise.record(values, out=exact, views="epochs", precision="float32", data=data)
    if not (path / "index.json").exists():
        stores.prune(exact, precision=kind, out=path)
    return path


if __name__ == "__main__":
    sys.exit(main())
