"""Features alone, then a tenth of the labels: against the same student trained on those labels alone.

What is compared, decided before it was run: on CIFAR-100, cifar/resnet8, three seeds, no setting searched for here.

- alone: 5,000 labeled images, 60 epochs.
- features, linear: all 50,000 images without their labels, 6 epochs (as many steps) of `features` from the teacher
  without its classifier; then `probe` on the 5,000 labels, which trains nothing else.
- features, tuned: the same student, then trained as `alone`, for 20 epochs, from there.

Scored on the 10,000 test images, which choose nothing, after the last epoch: no other is looked at. Each part that is
done is kept: the same command goes on.

    python benchmarks/evidence/features.py data/cifar100 data/teachers/cifar100-wrn_16_2.safetensors --json
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
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import counterpoise
from counterpoise.system.machine import device_name

SEEDS = (31, 32, 33)
STUDENT = "cifar/resnet8"
LABELED = 5_000
RESULTS = Path(__file__).resolve().parents[1] / "results" / "features_alone.csv"


def without_classifier(teacher: Path, out: Path) -> Path:
    """The teacher's weights without its classifier, as a backbone is published."""
    if not out.is_file():
        out.parent.mkdir(parents=True, exist_ok=True)
        with safe_open(teacher, "pt") as file:
            said = {key: value for key, value in (file.metadata() or {}).items() if key != "classes"}
        save_file({k: v for k, v in load_file(teacher).items() if not k.startswith("fc.")}, out, said)
    return out


def run(out: Path, seed: int, **sections: Any) -> Path:
    """A run, or what is left of it."""
    if (out / "summary.json").is_file():
        return out
    train = {
        "clip_gradient": None, "batch_size": 64, "device": "cpu",
        "schedule": {"name": "one_cycle"}, "log_every": 100, "evaluate_every": 100,
        **sections.pop("train"),
    }  # fmt: skip
    values = {"seed": seed, "train": train, "out": str(out), **sections}
    verb = counterpoise.distill if "teacher" in values else counterpoise.train
    verb(values, resume=(out / "run.yaml").is_file(), show=True)
    return out


def one_seed(data: dict[str, Any], backbone: Path, folder: Path, seed: int) -> dict[str, float]:
    """Top-1 on the test images, by way."""
    few = {**data, "held_out": 50_000 - LABELED, "split_seed": seed}
    labels = {"optimizer": {"learning_rate": 0.1288, "weight_decay": 0.000121}}
    alone = run(folder / "alone", seed, data=few, student={"model": STUDENT}, train={"epochs": 60, **labels})
    imitation = run(
        folder / "features",
        seed,
        data=data,
        student={"model": STUDENT},
        teacher={"model": "cifar/wrn_16_2", "checkpoint": str(backbone)},
        objective={"features": {}},
        train={"epochs": 6, "optimizer": {"learning_rate": 0.1, "weight_decay": 0.0005}},
    )
    probed = folder / "probed"
    if not (probed / "student.json").is_file():
        asked = {"data": few, "teacher": {"checkpoint": str(imitation)}, "train": {"device": "cpu", "batch_size": 250}}
        counterpoise.probe(asked, out=probed, overwrite=True, show=True)
    start = {"checkpoint": str(imitation)}
    tuned = run(folder / "tuned", seed, data=few, student=start, train={"epochs": 20, **labels})
    test = {"data": data}
    ways = {"alone": alone, "features, linear": probed, "features, tuned": tuned}
    scores = {way: float(counterpoise.evaluate(path, data=test, device="cpu")["top1"]) for way, path in ways.items()}
    explained = json.loads((imitation / "summary.json").read_text())["last"]["explained"]
    return {**scores, "explained": float(explained)}


def main() -> int:
    """Run what is left, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/features-alone"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    data = {"path": str(given.data), "source": "cifar", "views": {"crop": "pad", "padding": 4, "flip": True}}
    backbone = without_classifier(given.teacher, given.out / "backbone.safetensors")
    rows = []
    for seed in SEEDS:
        rows.append({"seed": seed, **one_seed(data, backbone, given.out / f"seed-{seed}", seed)})
        with RESULTS.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
    found: dict[str, Any] = {"machine": device_name(torch.device("cpu")), "seeds": len(rows)}
    for way in rows[0]:
        if way != "seed":
            values = [row[way] for row in rows]
            found[way] = {"mean": statistics.fmean(values), "sd": statistics.stdev(values)}
    gains = [row["features, linear"] - row["alone"] for row in rows]
    found["gain of features, linear over alone"] = {"mean": statistics.fmean(gains), "sd": statistics.stdev(gains)}
    print(json.dumps(found, indent=None if given.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
