"""A gain on scenes: a mask for one frame in 32, and a teacher for the others. CamVid at half size, on test scenes.

What is compared, decided before it was run; teacher, views and epochs are those that scene_search.py found on val:

- 12 of the 367 training scenes (one in 32) have their masks, the other 355 have none. The teacher, the FPN of
  recipes/camvid/small-cpu with an encoder from CIFAR-100 and 60 epochs of stronger views, has seen all masks: the good
  large model that is there already. The student is the recipe's with its views, its encoder from CIFAR-100 as well; all
  make 1,350 steps of 8 windows.
- alone: the 12 masks. alone, as long: so many steps that they take the processor time of 1,350 steps of Balance with
  its live teacher, measured in turn.
- kd, balance, cwd, dist: all 367 scenes, the 12 masks by cross-entropy at weight 1/32, which is their share, and the
  teacher's word. KD and Balance (three quarters forward, one quarter reverse) at temperature 1, weight 4, each pixel
  weighed as in cross-entropy, as the recipe has them; CWD at weight 3 and temperature 4 and DIST at weight 1 and
  temperature 1, as published. No weight is searched for here.
- Three seeds. Scored after the last step on the 233 test scenes, which nothing was chosen on.

Named beforehand, by mIoU, corrected by Holm: kd minus alone, balance minus alone, and both minus alone, as long. The
aim is 2 points. Told beside them: precision and recall, means over pole, sign, fence, pedestrian and bicyclist, of
which it is said that reverse KL raises the one and lowers the other (balance minus kd).

    python benchmarks/evidence/scene_gain.py data/camvid data/cifar100      # --part cost, runs (--lane 1/2), table

Each run that is finished has its row in the CSV: the same command goes on with the others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import scene_search
import torch
from kept_rows import KeptRows, Value
from scene_search import CLASS_WEIGHT, KD, STRONGER, few, fit, scenes, term

import counterpoise
from counterpoise import config
from counterpoise.statistics import Unit, holm, paired

SEEDS = (301, 302, 303)
SHARE, EPOCHS = 32, 30
"""One training scene in so many has a mask; epochs of all 367 scenes, 1,350 steps."""
RARE = ("pole", "sign_symbol", "fence", "pedestrian", "bicyclist")
RESULTS = Path(__file__).resolve().parents[1] / "results"
ROWS = RESULTS / "scene_gain.csv"
COMMAND = "python benchmarks/evidence/scene_gain.py data/camvid data/cifar100"
TEACHER: dict[str, Any] = {"epochs": 60, "data": STRONGER, "encoder": "timm/resnet10t"}
LABELS = {"cross_entropy": {"weight": 1 / SHARE, "class_weight": CLASS_WEIGHT}}
SIDES = {"forward_weight": 0.75, "reverse_weight": 0.25, "forward_temperature": 1.0, "reverse_temperature": 1.0}
TERMS: dict[str, dict[str, Any]] = {
    "kd": KD,
    "balance": term("balance", 4.0, **SIDES),
    "cwd": {"cwd": {"weight": 3.0, "temperature": 4.0}},
    "dist": {"dist": {"weight": 1.0, "temperature": 1.0}},
}
SEARCH = KeptRows(scene_search.ROWS, scene_search.COMMAND)
"""Where encoders have their rows."""
WAYS = ("alone", *TERMS, "alone, as long")
NAMED = (("kd", "alone"), ("balance", "alone"), ("kd", "alone, as long"), ("balance", "alone, as long"))


def run_of(given: argparse.Namespace, way: str, epochs: float, seed: int) -> dict[str, Any]:
    """A run of so many epochs of all scenes."""
    alone = way.startswith("alone")
    steps = round(epochs * 45)
    # Of 12 scenes an epoch is one step, since what is left of them makes no batch.
    asked = {"epochs": steps if alone else steps // 45, "encoder": "timm/test_resnet"}
    run = config.merge(scenes(given, "alone", asked, SEARCH), {"seed": seed})
    run["data"]["path"] = str(few(given, SHARE))
    if not alone:
        run["data"]["unlabeled"] = str(few(given, SHARE) / "unlabeled")
        run["objective"] = {**LABELS, **TERMS[way]}
    return run


def voice(given: argparse.Namespace, way: str, precision: str = "auto") -> dict[str, Any] | None:
    """The teacher, trained where it is not there yet."""
    if way.startswith("alone"):
        return None
    out = given.out / "teacher"
    fit(out, config.merge(scenes(given, "teacher", TEACHER, SEARCH), {"train": {"precision": precision}}))
    return {"checkpoint": str(out)}


def cost(given: argparse.Namespace) -> float:
    """How many times as long a step of Balance takes as one alone: medians of three short runs each, in turn."""
    path: Path = given.out / "cost.json"
    if not path.is_file():
        taken: dict[str, list[float]] = {"alone": [], "balance": []}
        for number in range(3):
            for way, found in taken.items():
                out = given.out / "cost" / f"{way}-{number}"
                run = {**run_of(given, way, 1, 0), "out": str(out)}
                teacher = voice(given, way)
                told = (
                    counterpoise.train(run, overwrite=True)
                    if teacher is None
                    else counterpoise.distill({**run, "teacher": teacher}, overwrite=True)
                )
                found.append(sum(told.stages.values()) / told.steps)
        ratio = statistics.median(taken["balance"]) / statistics.median(taken["alone"])
        path.write_text(json.dumps({"ratio": ratio, "seconds a step": taken}), encoding="utf-8")
    return float(json.loads(path.read_text(encoding="utf-8"))["ratio"])


def scored(out: Path, data: Path) -> dict[str, float]:
    """On the test scenes, in percent."""
    found = counterpoise.evaluate(out, data=data, split="test", device="cpu")
    classes = {row["class"]: row for row in found["per_class"]}
    means = {
        key: statistics.fmean(float(classes[name][key] or 0.0) for name in RARE) for key in ("precision", "recall")
    }
    return {"miou": found["miou"], **{f"rare_{key}": value for key, value in means.items()}}


def one(given: argparse.Namespace, way: str, seed: int, kept: KeptRows, **train: Any) -> None:
    """One run, and its row, which has its precision and its teacher's where `train` says that."""
    known: dict[str, Value] = {"way": way, "seed": seed}
    if kept.rows(**known):
        return
    epochs = EPOCHS * (cost(given) if way == "alone, as long" else 1.0)
    out = given.out / way / f"seed-{seed}"
    precision = {key: value for key, value in train.items() if key == "precision"}
    run = config.merge(run_of(given, way, epochs, seed), {"train": train})
    spent = fit(out, run, voice(given, way, **precision))
    ended = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    figures = {**scored(out, given.scenes), "val_miou": ended["last"]["miou"], "processor_seconds": spent}
    row = {**known, "steps": ended["steps"], **precision}
    kept.add({**row, **{key: round(value, 2) for key, value in figures.items()}})


def tell(
    kept: KeptRows,
    ways: tuple[str, ...],
    named: tuple[tuple[str, str], ...],
    of_rare: tuple[tuple[str, str], ...],
) -> None:
    """Print means, the differences that were named, and those of the rare classes."""
    top: dict[str, dict[str, dict[Unit, float]]] = {}
    for row in kept.rows():
        for key in ("miou", "rare_precision", "rare_recall"):
            top.setdefault(key, {}).setdefault(str(row["way"]), {})[int(row["seed"])] = float(row[key])
    for way in ways:
        told = [
            f"{statistics.fmean(v.values()):.2f} ± {statistics.stdev(v.values()):.2f}"
            for v in (t[way] for t in top.values())
        ]
        print(f"| {way} | {' | '.join(told)} |")
    found = [paired(top["miou"][way], top["miou"][baseline]) for way, baseline in named]
    for (way, baseline), gain, p in zip(named, found, holm([gain.p for gain in found]), strict=True):
        print(f"| {way} - {baseline} | {gain.mean:+.2f} | {gain.low:+.2f} to {gain.high:+.2f} | {p:.3f} |")
    for way, baseline in of_rare:
        for key in ("rare_precision", "rare_recall"):
            gain = paired(top[key][way], top[key][baseline])
            spread = f"{gain.low:+.2f} to {gain.high:+.2f} | {gain.p:.3f}"
            print(f"| {key}, {way} - {baseline} | {gain.mean:+.2f} | {spread} |")


def main() -> int:
    """Run what is left, or tell what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("images", type=Path, help="CIFAR-100")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/scene-gain"))
    parser.add_argument("--part", choices=("cost", "runs", "table"), default="runs")
    parser.add_argument("--lane", default="1/1", help="which share of the runs: 1/2 and 2/2 for two processes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    kept = KeptRows(ROWS, COMMAND)
    if given.part == "table":
        print(f"a step of Balance takes {cost(given):.2f} times one alone")
        tell(kept, WAYS, NAMED, (("balance", "kd"),))
        return 0
    voice(given, "kd")
    cost(given)
    lane, lanes = map(int, given.lane.split("/"))
    named = [(seed, way) for way in ("kd", "balance", "alone, as long", "alone") for seed in SEEDS]  # these first
    beside = [(seed, way) for seed in SEEDS for way in WAYS if (seed, way) not in named]
    for number, (seed, way) in enumerate((*named, *beside)):
        if given.part == "runs" and number % lanes == lane - 1:
            one(given, way, seed, kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
