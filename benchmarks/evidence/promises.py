"""Is the promise of a student kept, in float and in 8 bits; and what does a cascade with its teacher bring? CIFAR-100.

What is looked at, decided before it was run:

- cifar/wrn_16_2 (70.4%) teaches cifar/resnet20 for 8 epochs on the training images, mirrored, by labels and forward KL
  at temperature 4 and weight 9. Its ONNX export in 8 bits is calibrated on training images.
- Of the 10,000 test images, which chose nothing, 3,000 are drawn a hundred times. On them the promise is chosen, by the
  student's answers and by the export's own; on the other 7,000 it is kept or broken. Risks of 5, 10 and 20%.
- What is promised is that at most 5 of 100 are broken (95% confidence). The hundred draws share their images, so they
  are not independent: the count is the word taken literally, not a test of it.
- The cascade is that of `counterpoise cascade`: chosen on one half of the test images, told on the other.

    python benchmarks/evidence/promises.py data/cifar100 data/teachers/cifar100-wrn_16_2.safetensors
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from temperature_map import RESULTS
from temperature_scores import answers, validation

import counterpoise
from counterpoise.deploy import base
from counterpoise.engine import betting, cascades, promising
from counterpoise.engine.student import load_student
from counterpoise.errors import DataError
from counterpoise.models import catalog
from counterpoise.system.machine import device_name

DRAWS, CHOSEN_ON, RISKS = 100, 3_000, (0.05, 0.1, 0.2)
COMMAND = "python benchmarks/evidence/promises.py data/cifar100 data/teachers/cifar100-wrn_16_2.safetensors"
SEED = 71


def student(given: argparse.Namespace) -> Path:
    """Train it, or what is left of that."""
    out: Path = given.out / "student"
    if not (out / "summary.json").is_file():
        objective = {"cross_entropy": {"weight": 1.0}, "forward_kl": {"weight": 9.0, "temperature": 4.0}}
        run = {
            "seed": SEED,
            "out": str(out),
            "data": {"path": str(given.images), "source": "cifar", "views": {"crop": "none", "flip": True}},
            "student": {"model": "cifar/resnet20"},
            "objective": objective,
            "train": {
                "epochs": 8,
                "batch_size": 64,
                "device": "cpu",
                "precision": "fp32",
                "channels_last": True,
                "optimizer": {"learning_rate": 0.05, "weight_decay": 0.0005},
                "schedule": {"name": "one_cycle"},
                "evaluate_every": 8,
            },
        }
        asked = {**run, "teacher": {"model": "cifar/wrn_16_2", "checkpoint": str(given.teacher)}}
        counterpoise.record(asked, out=given.out / "store", views="complete", show=True)
        run["teacher"] = {"store": str(given.out / "store")}
        counterpoise.distill(run, resume=(out / "run.yaml").is_file(), show=True)
    return out


def in_eight_bits(given: argparse.Namespace, run: Path, images: torch.Tensor) -> torch.Tensor:
    """Logits of the ONNX export."""
    out = given.out / "int8"
    if not (out / "export.json").is_file():
        counterpoise.export(run, to="onnx", precision="int8", out=out, images=1_000)
    runtime = base.find("onnx").open(out, 1)
    parts = [torch.from_numpy(np.asarray(runtime(part.numpy()))) for part in images.split(250)]
    return torch.cat(parts).float()


def broken(logits: betting.Floats, labels: np.ndarray[Any, np.dtype[np.int64]], risk: float) -> dict[str, float]:
    """Of all draws, how often the others were wrong more often than promised; means of what was answered.

    A draw on which no threshold keeps the risk promises nothing, and breaks nothing: these are told.
    """
    rows = []
    for draw in range(DRAWS):
        order = np.random.default_rng(1000 + draw).permutation(len(labels))
        own, others = order[:CHOSEN_ON], order[CHOSEN_ON:]
        try:
            found = promising.choose(logits[own], labels[own], risk, seed=draw)
        except DataError:
            continue
        shares = promising.probabilities(logits[others], found.temperature)
        there = shares.max(1) >= found.threshold
        wrong = shares.argmax(1) != labels[others]
        inside = shares[np.arange(len(others)), labels[others]] >= found.least
        rows.append((there.mean(), wrong[there].mean(), inside.mean()))
    if not rows:
        return {"promised": 0}
    answered, error, covered = (np.array(column) for column in zip(*rows, strict=True))
    return {
        "promised": len(rows),
        "broken": int((error > risk).sum()),
        "answered": round(100 * float(answered.mean()), 2),
        "wrong_of_answered": round(100 * float(error.mean()), 2),
        "largest_wrong": round(100 * float(error.max()), 2),
        "in_set": round(100 * float(covered.mean()), 2),
    }


def main() -> int:
    """Run it, and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/promises"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    run, test = student(given), validation(given.images, 0)
    labels = test.labels.numpy().astype(np.int64)
    told = {"float32": answers(load_student(run), test.images), "int8": in_eight_bits(given, run, test.images)}
    rows = []
    for precision, logits in told.items():
        top1 = round(100 * float((logits.argmax(1) == test.labels).float().mean()), 2)
        for risk in RISKS:
            known = {"precision": precision, "top1": top1, "risk": 100 * risk, "draws": DRAWS}
            rows.append({**known, **broken(logits.double().numpy(), labels, risk)})
    write("promises.csv", rows)
    teacher = answers(catalog.build("cifar/wrn_16_2", num_classes=100, checkpoint=given.teacher), test.images)
    right = [logits.argmax(1).numpy() == labels for logits in (told["float32"], teacher)]
    found = cascades.chosen(told["float32"].double().numpy(), labels, *right, give=0.0)
    print(json.dumps(found, indent=1))
    top = {"student_top1": round(found["student_top1"], 2), "teacher_top1": round(found["teacher_top1"], 2)}
    lines = [{"row": "chosen", **(found["chosen"] or {})}, *({"row": "table", **row} for row in found["table"])]
    write("cascade.csv", [{**{key: _short(value) for key, value in line.items()}, **top} for line in lines])
    return 0


def _short(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """A table into benchmarks/results, with the machine and the command."""
    origin = {"machine": device_name(torch.device("cpu")), "command": COMMAND}
    rows = [{**row, **origin} for row in rows]
    with (RESULTS / name).open("w", newline="", encoding="utf-8") as file:
        made = csv.DictWriter(file, list(max(rows, key=len)), lineterminator="\n", restval="")
        made.writeheader()
        made.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
