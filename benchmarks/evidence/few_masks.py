"""Thin structures with few masks: a student taught on pictures without masks against the same student alone.

What is compared, decided before it was run, on settings that were found on drawings of another seed:

- Drawn vessels (counterpoise.demos.drawn_vessels). Six pictures of three patients have masks. Each of three folds
  trains on two of these patients; 120 pictures of 60 other patients have no masks. Scored after the last step on 48
  pictures of 24 further patients, which choose nothing: mIoU, and Dice, precision and recall of vessels by picture.
- The teacher, digits/unet_32_64_128, is trained on the masks of the fold alone, and answers by the mean over a view
  and its mirror image. The student, digits/unet_16_16_16, has less than 1 MB. All networks make 576 steps.
- alone: the masks. alone, as long: as many processor seconds as the student of Balance and its teacher's answers took.
  kd and balance: the teacher's word alone, at temperature 1, on all pictures; masks are heard through the teacher.

Named beforehand: balance minus alone, over three folds of three seeds each, by mIoU.

    python benchmarks/evidence/few_masks.py --out runs/evidence/few-masks

Each seed that is finished has its rows in the CSV: the same command goes on with the others.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from kept_rows import KeptRows

import counterpoise
from counterpoise.demos.drawn_vessels import WHITE, draw
from counterpoise.statistics import Unit, paired

SEEDS, FOLDS = (1, 2, 3), (1, 2, 3)
DRAWN = 11
TEACHER, STUDENT = "digits/unet_32_64_128", "digits/unet_16_16_16"
STEPS, BATCH = 576, 8
LABELS: dict[str, Any] = {"cross_entropy": {"weight": 1.0}}
RESULTS = Path(__file__).resolve().parents[1] / "results" / "few_masks.csv"
COMMAND = "python benchmarks/evidence/few_masks.py"
SCORES = ("dice", "precision", "recall")


def pictures(out: Path, drawn: int) -> Path:
    """fold-1/ to fold-3/, each with train, val and test, and unlabeled/, from eight drawings."""
    data = out / "data"
    if (data / "done").is_file():
        return data
    shutil.rmtree(data, ignore_errors=True)
    for number in range(8):
        draw(data / "drawn", drawn * 1000 + number)
        for file in sorted((data / "drawn" / "images").iterdir()):
            mask = data / "drawn" / "masks" / file.name
            name = f"drawing_{number}_{file.name}"
            if number == 0:
                patient = int(file.name.split("_")[1])
                for fold in FOLDS if patient <= len(FOLDS) else ():
                    put(data / f"fold-{fold}", "val" if patient == fold else "train", name, file, mask)
            elif number <= 5:
                put(data / "unlabeled", "", name, file, None)
            else:
                for fold in FOLDS:
                    put(data / f"fold-{fold}", "test", name, file, mask)
    for fold in FOLDS:
        shutil.copy(data / "drawn" / "classes.txt", data / f"fold-{fold}")
    shutil.rmtree(data / "drawn")
    (data / "done").touch()
    return data


def put(folder: Path, split: str, name: str, image: Path, mask: Path | None) -> None:
    """A picture, with its mask or without."""
    for kind, file in (("images", image), ("masks", mask)):
        if file is not None:
            target = folder / kind / split if mask is not None else folder
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target / name)


def values(data: Path, fold: int, model: str, seed: int, steps: int, rate: float, taught: bool) -> dict[str, Any]:
    """A run of so many steps; one that is taught sees pictures without masks, too."""
    shown = 124 if taught else 4 * 16  # so that an epoch of the masks alone is not over at once
    epochs = max(1, round(steps * BATCH / shown))
    return {
        "task": "segmentation",
        "seed": seed,
        "data": {
            "path": str(data / f"fold-{fold}"),
            "white_level": WHITE,
            "workers": 0,
            "scenes": {"size": [96, 96], "scale": [0.8, 1.25], "crops": 1 if taught else 16, "flip_vertical": True},
            **({"unlabeled": str(data / "unlabeled")} if taught else {}),
        },
        "student": {"model": model},
        "train": {
            "clip_gradient": None,
            "epochs": epochs,
            "batch_size": BATCH,
            "precision": "fp32",
            "device": "cpu",
            "optimizer": {"name": "adamw", "learning_rate": rate, "weight_decay": 0.01},
            "schedule": {"name": "one_cycle"},
            "channels_last": True,
            "evaluate_every": epochs,
        },
    }


def fit(out: Path, run: Mapping[str, Any], terms: Mapping[str, Any], teacher: Path | None = None) -> Path:
    """A run, or what is left of it, and the processor seconds that it took."""
    if (out / "processor_seconds").is_file():
        return out
    asked = {**run, "objective": terms, "out": str(out)}
    started = time.process_time()
    if teacher is None:
        counterpoise.train(asked, overwrite=True)
    else:
        voice = {"checkpoint": str(teacher), "views": 2, "accept_chance": True}
        counterpoise.distill({**asked, "teacher": voice}, overwrite=True)
    (out / "processor_seconds").write_text(f"{time.process_time() - started:.1f}", encoding="utf-8")
    return out


def seconds(out: Path) -> float:
    """Of a run that is finished."""
    return float((out / "processor_seconds").read_text(encoding="utf-8"))


def scores(out: Path) -> dict[str, float]:
    """On the test pictures, in percent."""
    found = counterpoise.evaluate(out, split="test", device="cpu")
    by_picture = {name: [row["scores"][name]["vessel"] for row in found["cases"]] for name in SCORES}
    known = {name: [value for value in values if value is not None] for name, values in by_picture.items()}
    return {"miou": found["miou"], **{name: statistics.fmean(values) for name, values in known.items()}}


def main() -> int:
    """Run what is left, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/few-masks"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = pictures(given.out, DRAWN)
    kept = KeptRows(RESULTS, COMMAND)
    for fold in FOLDS:
        todo = [seed for seed in SEEDS if not kept.rows(fold=fold, seed=seed, network="balance")]
        if not todo:
            continue
        run = values(data, fold, TEACHER, 0, STEPS, 0.004, taught=False)
        teacher = fit(given.out / f"teacher-{fold}", run, LABELS)
        if not kept.rows(fold=fold, network="teacher"):
            kept.add(row("teacher", fold, 0, teacher))
        for seed in todo:
            found = students(given.out / f"fold-{fold}" / f"seed-{seed}", data, fold, seed, teacher)
            kept.add(*(row(name, fold, seed, path) for name, path in found.items()))
    top: dict[str, dict[Unit, float]] = {}
    for told in kept.rows():
        if told["seed"]:
            top.setdefault(str(told["network"]), {})[int(told["fold"]), int(told["seed"])] = float(told["miou"])
    for name, baseline in (("balance", "alone"), ("balance", "alone, as long"), ("kd", "alone"), ("balance", "kd")):
        gain = paired(top[name], top[baseline], folds=len(FOLDS))
        print(f"{name} minus {baseline}: {gain.mean:.2f} ({gain.low:.2f} to {gain.high:.2f}), p {gain.p:.4f}")
    return 0


def row(name: str, fold: int, seed: int, run: Path) -> dict[str, str | int | float]:
    """Of a network that is finished."""
    figures = {**scores(run), "processor_seconds": seconds(run)}
    return {"network": name, "fold": fold, "seed": seed, **{key: round(value, 2) for key, value in figures.items()}}


def students(out: Path, data: Path, fold: int, seed: int, teacher: Path) -> dict[str, Path]:
    """All ways of one seed on one fold."""
    temperatures = {"forward_temperature": 1.0, "reverse_temperature": 1.0}
    ways = {
        "kd": {"forward_kl": {"weight": 1.0, "temperature": 1.0}},
        "balance": {"balance": {"weight": 1.0, "forward_weight": 0.5, "reverse_weight": 0.5, **temperatures}},
    }
    alone = fit(out / "alone", values(data, fold, STUDENT, seed, STEPS, 0.005, taught=False), LABELS)
    found = {"alone": alone}
    for name, terms in ways.items():
        run = values(data, fold, STUDENT, seed, STEPS, 0.005, taught=True)
        found[name] = fit(out / name, run, terms, teacher)
    steps = round(STEPS * seconds(out / "balance") / seconds(alone))
    longer = fit(out / "alone-long", values(data, fold, STUDENT, seed, steps, 0.005, taught=False), LABELS)
    return {**found, "alone, as long": longer}


if __name__ == "__main__":
    sys.exit(main())
