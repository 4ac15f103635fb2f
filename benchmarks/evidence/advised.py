"""Does advice help? What `counterpoise advise` says, against the objective that `distill` takes by itself.

What is compared, decided before it was run, on two sets of pictures on which no default was chosen:

- signs: sixteen drawn traffic signs of 32 pixels; cifar/resnet20, trained here, teaches cifar/resnet8.
- scenes: digits on photographs with masks; digits/unet_16_32_96, trained here, teaches digits/unet_16_16_16.
- Each run file says no more than data, networks, epochs and learning rate. `advise` looks at training images alone.
- Scenes were decided anew before any student of theirs was trained to its end. At first their labels were not weighted
  (64 pixels, SGD at 0.1): the teacher answered the background alone, 8.3 mIoU, and `advise` refused, since after four
  epochs all candidates scored the same. Now data, optimizer and labels are those of the demo of digit scenes, whose
  classes are weighed and which were chosen on such scenes, at 1,200 of them; the teacher is trained on labels alone.
- default: the run file as it is. advised: the same with the objective of advice.yaml. Five fresh seeds each, all
  training images, scored on val, which chose nothing, after the last epoch.

Named beforehand: advised minus default on each set, corrected by Holm; top-1 and mIoU in percent.

    python benchmarks/evidence/advised.py --out runs/evidence/advised

Each run that is finished has its row in the CSV: the same command goes on with the others.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from drawn_signs import draw
from kept_rows import KeptRows

import counterpoise
from counterpoise import config
from counterpoise.demos.segmentation import LABELS
from counterpoise.statistics import Unit, holm, paired

SEEDS = (101, 102, 103, 104, 105)
COMMAND = "python benchmarks/evidence/advised.py"
RESULTS = Path(__file__).resolve().parents[1] / "results" / "advised.csv"
SETS: dict[str, dict[str, Any]] = {
    "signs": {
        "metric": "top1",
        "teacher": {"student": {"model": "cifar/resnet20"}, "epochs": 20},
        "run": {"student": {"model": "cifar/resnet8"}, "data": {"views": {"crop": "pad", "padding": 2, "flip": False}}},
    },
    "scenes": {
        "metric": "miou",
        "teacher": {"student": {"model": "digits/unet_16_32_96"}, "epochs": 20, "objective": dict(LABELS)},
        "run": {
            "task": "segmentation",
            "data": {
                "source": "digit_scenes",
                "options": {"train_size": 1200, "val_size": 400, "edge": 48},
                "scenes": {"scale": (1.0, 1.0), "flip": False, "resolution": "logits"},
            },
            "train": {"batch_size": 16, "optimizer": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.01}},
            "objective": {**LABELS, "balance": {}},
        },
    },
}
EPOCHS = 16


def values(out: Path, name: str) -> dict[str, Any]:
    """Of a run file, without a teacher."""
    train = {"epochs": EPOCHS, "batch_size": 32, "precision": "fp32", "device": "cpu", "evaluate_every": EPOCHS}
    train = {**train, "clip_gradient": None}
    common = {"train": {**train, "optimizer": {"learning_rate": 0.1}}, "student": {"model": "digits/unet_16_16_16"}}
    run = config.merge(common, SETS[name]["run"])
    return {**run, "data": {**run["data"], "path": str(out / "signs")}} if name == "signs" else run


def one(out: Path, kept: KeptRows, name: str) -> None:
    """Both ways on one set."""
    if len(kept.rows(set=name)) == 2 * len(SEEDS):
        return
    if name == "signs" and not (out / "signs" / "done").is_file():
        draw(out / "signs", 1_600, 1_600, seed=29)
        (out / "signs" / "done").touch()
    run = values(out, name)
    teacher, asked = out / f"{name}-teacher", SETS[name]["teacher"]
    if not (teacher / "summary.json").is_file():
        train = {**run["train"], "epochs": asked["epochs"], "evaluate_every": asked["epochs"]}
        own = {key: value for key, value in asked.items() if key != "epochs"}
        counterpoise.train({**run, **own, "train": train, "out": str(teacher)}, overwrite=True)
    file = out / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**run, "teacher": {"checkpoint": str(teacher)}}), encoding="utf-8")
    advice = counterpoise.advise(file, out=out / f"{name}-advice")
    print(f"{name}: {advice.best} {advice.compared}", flush=True)
    for seed in SEEDS:
        for way, base in (("default", {}), ("advised", {"objective": advice.objective})):
            if kept.rows(set=name, way=way, seed=seed):
                continue
            place = out / name / way / f"seed-{seed}"
            known = yaml.safe_load(file.read_text(encoding="utf-8"))
            result = counterpoise.distill({**known, **base, "seed": seed, "out": str(place)}, overwrite=True)
            said = {"best": advice.best, "objective": json.dumps(base.get("objective", {}))}
            score = round(float(result.last[SETS[name]["metric"]]), 2)
            kept.add({"set": name, "way": way, "seed": seed, "score": score, **said})


def main() -> int:
    """Run what is left, and print the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/advised"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    kept = KeptRows(RESULTS, COMMAND)
    found = {}
    for name in SETS:
        one(given.out, kept, name)
        top: dict[str, dict[Unit, float]] = {
            way: {int(row["seed"]): float(row["score"]) for row in kept.rows(set=name, way=way)}
            for way in ("default", "advised")
        }
        found[name] = paired(top["advised"], top["default"])
    for (name, told), p in zip(found.items(), holm([told.p for told in found.values()]), strict=True):
        print(f"{name}: advised minus default {told.mean:+.2f} ({told.low:+.2f} to {told.high:+.2f}), p {p:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
