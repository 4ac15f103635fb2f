"""Two heads against labels alone and against one head that hears both, with 1% and 10% of CIFAR-100's labels.

What is compared, decided before it was run; no setting is searched for here, and all ways make as many steps:

- alone: the labeled images, cross-entropy.
- mixed: all 50,000 images; cross-entropy where there is a label, balance from the teacher, each with weight 1.
- two heads: the same images and terms; labels train one head, the teacher the other, and the answer is their mixture.

After these were run, since a batch holds one labeled image or none at 1%, and cross-entropy is the mean over those that
it holds, two more ways, decided before they were run: mixed and two heads "by share", with cross-entropy weighed by the
share of images that have a label, so that an image's label weighs as much as the teacher's word of an image.

cifar/resnet8 from cifar/wrn_16_2, views mirrored, so that the teacher's answers to all views are recorded once. Every
way trains on the same four fifths of the labels. Scored on the 10,000 test images, which choose nothing, after the last
epoch. Each run that is done has its row in the CSV: the same command goes on with the others.

    python benchmarks/evidence/few_labels.py data/cifar100-folder data/teachers/cifar100-wrn_16_2.safetensors --json

where cifar100-folder is {train,test}/CLASS/NAME.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from kept_rows import KeptRows

import counterpoise
from counterpoise.system.machine import device_name

SEEDS = (41, 42, 43)
SHARES = (0.01, 0.1)
EPOCHS, BATCH = 4, 64
STUDENT = "cifar/resnet8"
RESULTS = Path(__file__).resolve().parents[1] / "results" / "few_labels.csv"
VIEWS = {"crop": "none", "flip": True}
WAYS: dict[str, tuple[bool, str | None]] = {
    "alone": (False, None),
    "mixed": (False, "one"),
    "two heads": (True, "one"),
    "mixed by share": (False, "share"),
    "two heads by share": (True, "share"),
}
"""By way, whether it has two heads, and how labels are weighed; None where there are only labels."""
COMMAND = "python benchmarks/evidence/few_labels.py data/cifar100-folder data/teachers/cifar100-wrn_16_2.safetensors"


def tables(images: Path, out: Path, share: float, seed: int) -> tuple[Path, Path, int]:
    """A table of all training images, of which few have a label, one of these alone, and how many train."""
    rows, drawn = [], random.Random(seed)
    for folder in sorted((images / "train").iterdir()):
        files = sorted(folder.iterdir())
        known = set(drawn.sample(files, round(share * len(files))))
        held = set(drawn.sample(sorted(known), len(known) // 5))
        for file in files:
            label = folder.name if file in known else ""
            rows.append({"path": str(file), "label": label, "split": "val" if file in held else "train"})
    few = [row for row in rows if row["label"]]
    out.mkdir(parents=True, exist_ok=True)
    for name, some in (("all", rows), ("few", few)):
        with (out / f"{name}.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(some)
    return out / "all.csv", out / "few.csv", sum(row["split"] == "train" for row in few)


def data(table: Path) -> dict[str, Any]:
    """The data section of a table."""
    options = {"image": "path", "label": "label", "split": "split"}
    return {"path": str(table), "options": options, "views": VIEWS}


def run(out: Path, seed: int, steps: int, images: int, **sections: Any) -> Path:
    """A run of so many steps over so many images, or what is left of it."""
    if (out / "summary.json").is_file():
        return out
    epochs = max(1, round(steps * BATCH / images))
    train = {
        "clip_gradient": None,
        "epochs": epochs,
        "batch_size": BATCH,
        "device": "cpu",
        "precision": "fp32",
        "optimizer": {"learning_rate": 0.1, "weight_decay": 0.0005},
        "schedule": {"name": "one_cycle"},
        "log_every": 100,
        "evaluate_every": epochs,
    }
    values = {"seed": seed, "train": train, "out": str(out), **sections}
    verb = counterpoise.distill if "teacher" in values else counterpoise.train
    verb(values, resume=(out / "run.yaml").is_file(), show=True)
    return out


def one(given: argparse.Namespace, kept: KeptRows, share: float, seed: int) -> None:
    """All ways of one share and seed that have no row yet."""
    done = {row["way"] for row in kept.rows(labels=share, seed=seed)}
    if done >= set(WAYS):
        return
    folder = given.out / f"{share:g}-seed-{seed}"
    every, few, labeled = tables(given.images, folder, share, seed)
    teacher = {"model": "cifar/wrn_16_2", "checkpoint": str(given.teacher)}
    store = given.out / f"store-{share:g}-{seed}"
    if not (store / "index.json").is_file():
        asked = {"data": data(every), "teacher": teacher, "student": {"model": STUDENT}, "train": {"device": "cpu"}}
        counterpoise.record(asked, out=store, views="complete", show=True)
    steps, whole = EPOCHS * 50_000 // BATCH, 50_000 - labeled // 4
    for way, (heads, labels_weight) in WAYS.items():
        if way in done:
            continue
        student = {"model": STUDENT, "two_heads": heads}
        if labels_weight is None:
            path = run(folder / way, seed, steps, labeled, data=data(few), student={"model": STUDENT})
        else:
            weight = labeled / whole if labels_weight == "share" else 1.0
            terms = {"cross_entropy": {"weight": weight}, "balance": {"weight": 1.0}}
            taught = {"data": data(every), "teacher": {"store": str(store)}, "objective": terms}
            path = run(folder / way, seed, steps, whole, student=student, **taught)
        test = {"data": {"path": str(given.images), "options": {"val_split": "test"}}}
        top1 = float(counterpoise.evaluate(path, data=test, device="cpu")["top1"])
        kept.add({"labels": share, "seed": seed, "way": way, "top1": top1})


def main() -> int:
    """Run what is left, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/few-labels"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    kept = KeptRows(RESULTS, COMMAND)
    for seed in SEEDS:
        for share in SHARES:
            one(given, kept, share, seed)
    found: dict[str, Any] = {"machine": device_name(torch.device("cpu"))}
    for share in SHARES:
        for way in WAYS:
            values = [float(row["top1"]) for row in kept.rows(labels=share, way=way)]
            found[f"{100 * share:g}%, {way}"] = {"mean": statistics.fmean(values), "sd": statistics.stdev(values)}
    print(json.dumps(found, indent=None if given.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
