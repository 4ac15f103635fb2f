"""The reverse term where labels are bad: a long tail of classes, and labels of which 40% are wrong. CIFAR-100.

What is compared, decided before it was run; no setting is searched for:

- Long tail: class c of 100, in order of name, keeps 490 * 100^(-c/99) of its training images, from 490 down to 5.
  Wrong labels: of 49,000 training images 40%, drawn at random, have one of the other 99 labels, each as often.
  Ten images a class are held out of both, and choose nothing.
- cifar/resnet20 is trained on these labels, and teaches cifar/resnet8 on the same images and labels, mirrored.
  Learning rate 0.1, one cycle. Long tail: teacher 40 epochs, students 15, in fp32. Wrong labels: teacher 8, students 4,
  in bf16: each as the machine at hand was fast at. They are not compared with each other.
- alone; forward KL and reverse KL at temperatures 1 and 4; RLD at 4, from the first step on. Each is beside
  cross-entropy at weight 1, with the weight at which its gradient at the first step is as long as that of cross-entropy
  (means over the first batches of three students that train for nothing else). Three seeds.

Scored on the 10,000 test images after the last epoch: accuracy of all, and by how many training images a class of the
long tail has: head (over 100), middle (20 to 100), tail (under 20). Named beforehand: reverse minus forward at
temperatures 1 and 4, by the tail's accuracy of the long tail and by that of all of wrong labels; four comparisons,
corrected by Holm. All else is told beside it and decides nothing.

    python benchmarks/evidence/hard_labels.py data/cifar100-folder      # --kind tail or wrong, one process each
                                        # or two that share one kind by --lane 1/2 and 2/2, once --part teacher is done

where cifar100-folder is {train,test}/CLASS/NAME.png. Then --part table.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from kept_rows import KeptRows
from temperature_map import RESULTS, fit, rounded, write

import counterpoise
from counterpoise.engine.matching import gradient_norms
from counterpoise.statistics import holm, paired

SEEDS = (91, 92, 93)
MATCHED_ON = (94, 95, 96)
TEACHER_SEED = DRAWN = 90
EPOCHS = {"tail": (40, 15), "wrong": (8, 4)}
"""Of teacher and students."""
PRECISION = {"tail": "fp32", "wrong": "bf16"}
HELD, FACTOR, WRONG = 10, 100, 0.4
TERMS: dict[str, dict[str, Any]] = {
    "forward at 1": {"objective": "forward_kl", "temperature": 1.0},
    "reverse at 1": {"objective": "reverse_kl", "temperature": 1.0},
    "forward at 4": {"objective": "forward_kl", "temperature": 4.0},
    "reverse at 4": {"objective": "reverse_kl", "temperature": 4.0},
    "rld": {"objective": "rld", "temperature": 4.0, "warmup": 0.0},
}
WAYS = ("alone", *TERMS)
SCORES = {"tail": ("top1", "head", "middle", "tail"), "wrong": ("top1",)}
NAMED = {"tail": "tail", "wrong": "top1"}
RUNS = RESULTS / "hard_labels_runs.csv"
COMMAND = "python benchmarks/evidence/hard_labels.py data/cifar100-folder"


def table(given: argparse.Namespace, kind: str) -> Path:
    """A table of the training images with their labels, good and bad."""
    path: Path = given.out / f"{kind}.csv"
    if path.is_file():
        return path
    rows, drawn = [], random.Random(DRAWN)
    folders = sorted((given.images / "train").iterdir())
    for number, folder in enumerate(folders):
        files = drawn.sample(sorted(folder.iterdir()), len(list(folder.iterdir())))
        kept = files[HELD:]
        if kind == "tail":
            kept = kept[: round(len(kept) * FACTOR ** (-number / (len(folders) - 1)))]
        for file in files[:HELD]:
            rows.append({"path": str(file.absolute()), "label": folder.name, "split": "val"})
        for file in kept:
            rows.append({"path": str(file.absolute()), "label": folder.name, "split": "train"})
    if kind == "wrong":
        names = [folder.name for folder in folders]
        training = [row for row in rows if row["split"] == "train"]
        for row in drawn.sample(training, round(WRONG * len(training))):
            row["label"] = drawn.choice([name for name in names if name != row["label"]])
    with path.open("w", newline="", encoding="utf-8") as opened:
        made = csv.DictWriter(opened, rows[0])
        made.writeheader()
        made.writerows(rows)
    return path


def values(given: argparse.Namespace, kind: str, seed: int, objective: dict[str, Any] | None) -> dict[str, Any]:
    """A run of a student; without an objective, of the teacher."""
    teacher, student = EPOCHS[kind]
    epochs = teacher if objective is None else student
    return {
        "seed": seed,
        "data": {
            "path": str(table(given, kind)),
            "options": {"image": "path", "label": "label", "split": "split"},
            "views": {"crop": "none", "flip": True},
        },
        "student": {"model": "cifar/resnet20" if objective is None else "cifar/resnet8"},
        **({} if objective is None else {"objective": objective}),
        "train": {
            "clip_gradient": None,
            "epochs": epochs,
            "batch_size": 64,
            "device": "cpu",
            "precision": PRECISION[kind],
            "channels_last": True,
            "optimizer": {"learning_rate": 0.1, "weight_decay": 0.0005},
            "schedule": {"name": "one_cycle"},
            "log_every": 100,
            "evaluate_every": epochs,
        },
    }


def train(out: Path, run: dict[str, Any]) -> Path:
    """A run without a teacher, or what is left of it."""
    if not (out / "summary.json").is_file():
        counterpoise.train({**run, "out": str(out)}, resume=(out / "run.yaml").is_file(), show=True)
    return out


def store(given: argparse.Namespace, kind: str) -> Path:
    """The answers to all views of a teacher that has been trained on these labels."""
    path: Path = given.out / f"store-{kind}"
    teacher = train(given.out / f"teacher-{kind}", values(given, kind, TEACHER_SEED, None))
    if not (path / "index.json").is_file():
        asked = {**values(given, kind, 0, {"forward_kl": {}}), "teacher": {"checkpoint": str(teacher)}}
        counterpoise.record(asked, out=path, views="complete", show=True)
    return path


def taught(given: argparse.Namespace, kind: str, seed: int, objective: dict[str, Any]) -> dict[str, Any]:
    """A run that hears the teacher."""
    return {**values(given, kind, seed, objective), "teacher": {"store": str(store(given, kind))}}


def weights(given: argparse.Namespace, kind: str) -> dict[str, float]:
    """By way, the weight that gives a gradient as long as that of cross-entropy."""
    path = given.out / f"weights-{kind}.json"
    if not path.is_file():
        named = {way.replace(" ", "_"): term for way, term in TERMS.items()}
        asked = {"cross_entropy": {}, **named}
        norms = [gradient_norms(taught(given, kind, seed, asked)) for seed in MATCHED_ON]
        mean = {name: statistics.fmean(one[name] for one in norms) for name in asked}
        found = {way: mean["cross_entropy"] / mean[name] for way, name in zip(TERMS, named, strict=True)}
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    made: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return made


def scores(given: argparse.Namespace, kind: str, run: Path) -> dict[str, float]:
    """In percent, on the test images."""
    test = {"data": {"path": str(given.images), "options": {"val_split": "test"}}}
    found = counterpoise.evaluate(run, data=test, device="cpu")
    if kind == "wrong":
        return {"top1": found["top1"]}
    with table(given, kind).open(newline="", encoding="utf-8") as file:
        count = Counter(row["label"] for row in csv.DictReader(file) if row["split"] == "train")
    parts: dict[str, list[float]] = {"head": [], "middle": [], "tail": []}
    for row in found["per_class"]:
        known = count[row["class"]]
        parts["head" if known > 100 else "middle" if known >= 20 else "tail"].append(row["recall"])
    return {"top1": found["top1"], **{part: statistics.fmean(recalls) for part, recalls in parts.items()}}


def cells() -> Iterator[tuple[str, int]]:
    """All students, whole seeds first."""
    yield from ((way, seed) for seed, way in itertools.product(SEEDS, WAYS))


def runs(given: argparse.Namespace, kind: str) -> None:
    """Train and score all that have no row yet."""
    kept, weight = KeptRows(RUNS, COMMAND), weights(given, kind)
    lane, lanes = (int(part) for part in given.lane.split("/"))
    if lane == 1 and not kept.rows(kind=kind, way="teacher"):
        found = scores(given, kind, given.out / f"teacher-{kind}")
        kept.add(row_of(kind, "teacher", TEACHER_SEED, 0.0, found))
    for number, (way, seed) in enumerate(cells()):
        if number % lanes != lane - 1 or kept.rows(kind=kind, way=way, seed=seed):
            continue
        out = given.out / "runs" / kind / way.replace(" ", "-") / f"seed-{seed}"
        objective: dict[str, Any] = {"cross_entropy": {}}
        if way == "alone":
            train(out, values(given, kind, seed, objective))
        else:
            objective["divergence"] = {**TERMS[way], "weight": weight[way]}
            fit(out, taught(given, kind, seed, objective))
        kept.add(row_of(kind, way, seed, weight.get(way, 0.0), scores(given, kind, out)))


def row_of(kind: str, way: str, seed: int, weight: float, found: dict[str, float]) -> dict[str, Any]:
    """As the CSV has it."""
    told = {name: round(found[name], 4) if name in found else "" for name in SCORES["tail"]}
    return {"kind": kind, "way": way, "seed": seed, "weight": round(weight, 4), **told}


def tables() -> None:
    """From the rows of all runs, means, and reverse minus forward."""
    rows: list[dict[str, Any]] = list(KeptRows(RUNS, COMMAND).rows())
    means: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for kind in SCORES:
        by_way = {way: [row for row in rows if (row["kind"], row["way"]) == (kind, way)] for way in ("teacher", *WAYS)}
        missing = sum(len(SEEDS) - len(by_way[way]) for way in WAYS)
        if missing:
            raise SystemExit(f"{missing} runs of '{kind}' are not finished: the same command without --part goes on.")
        for way, own in by_way.items():
            told: dict[str, Any] = {name: "" for score in SCORES["tail"] for name in (score, f"{score}_std")}
            for score in SCORES[kind]:
                told[score] = statistics.fmean(row[score] for row in own)
                told[f"{score}_std"] = statistics.stdev(row[score] for row in own) if len(own) > 1 else ""
            means.append({"kind": kind, "way": way, "seeds": len(own), **rounded(told)})
        for at, score in itertools.product(("1", "4"), SCORES[kind]):
            sides = [{row["seed"]: row[score] for row in by_way[f"{side} at {at}"]} for side in ("reverse", "forward")]
            found = paired(*sides)
            case = {"kind": kind, "temperature": at, "score": score, "reverse_minus_forward": found.mean}
            differences.append({**case, "low": found.low, "high": found.high, "p": found.p, "p_holm": ""})
    named = [row for row in differences if row["score"] == NAMED[row["kind"]]]
    for row, p in zip(named, holm([row["p"] for row in named]), strict=True):
        row["p_holm"] = p
    write("hard_labels_table.csv", means)
    write("hard_labels_differences.csv", [rounded(row) for row in differences])


def main() -> int:
    """One part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/hard-labels"))
    parser.add_argument("--kind", choices=("tail", "wrong"), help="one of them; without it both")
    parser.add_argument("--part", choices=("teacher", "runs", "table"), default="runs")
    parser.add_argument("--lane", default="1/1", help="which share of the students: 1/2 and 2/2 for two processes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.part == "table":
        tables()
        return 0
    for kind in SCORES if given.kind is None else (given.kind,):
        if given.part == "teacher":
            weights(given, kind)
        else:
            runs(given, kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
