"""What a student of CIFAR-100 learns from pictures of no class of CIFAR-100, by divergence and temperature.

What is compared, decided before it was run:

- cifar/wrn_16_2 (70.4%) teaches cifar/resnet8. The student sees 40,000 pictures of CIFAR-10 (ten other classes), or as
  many squares cut out of the driving scenes of CamVid at random, of 32 to 128 pixels, made 32 wide. It sees no picture
  of CIFAR-100 and no label; 2 epochs, mirrored, three seeds. Scored on the 10,000 test images of CIFAR-100.
- forward KL, reverse KL, half of each, Jensen-Shannon and half the variance of the difference of logits (see
  temperature_map.py), at temperatures 1 and 4. The last of these has no temperature: one run is in both rows.
- Each has the weight with which its gradient at the first step, by all parameters, is as long as that of cross-entropy
  on pictures and labels of CIFAR-100 is there (means over the first batches of three other students). The learning rate
  of each temperature is the one chosen in temperature_map.py.

Named beforehand, by top-1 after the last epoch: reverse minus forward, for each of the two kinds of pictures and both
temperatures; four comparisons corrected by Holm. All else is told beside it and decides nothing.

    python benchmarks/evidence/far_pictures.py data/cifar100 data/teachers/cifar100-wrn_16_2.safetensors \
        --far data/cifar10 --scenes data/camvid      # two processes share it by --lane 1/2 and 2/2; then --part table
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import temperature_map
import torch
from kept_rows import KeptRows
from PIL import Image
from temperature_map import HELD_OUT, MATCHED_ON, RESULTS, fit, tell, terms
from temperature_scores import Judge

import counterpoise
from counterpoise.engine.matching import gradient_norms

TEMPERATURES = (1.0, 4.0)
SEEDS = (81, 82, 83)
EPOCHS = 2
PICTURES, NOT_TRAINED_ON = 40_000, 100
KINDS = ("cifar10", "scenes")
TOLD = ("top1", "agreement", "forward_kl", "reverse_kl", "calibration_error")
RUNS = RESULTS / "far_pictures_runs.csv"
COMMAND = (
    "python benchmarks/evidence/far_pictures.py data/cifar100 data/teachers/cifar100-wrn_16_2.safetensors "
    "--far data/cifar10 --scenes data/camvid"
)


def pictures(given: argparse.Namespace, kind: str) -> Path:
    """A table of them. It needs val pictures, too, which without labels and teacher score nothing."""
    path: Path = given.out / f"{kind}.csv"
    if path.is_file():
        return path
    files = cut(given) if kind == "scenes" else sorted(given.far.rglob("*.png"))
    rows = [{"path": str(file.absolute()), "split": "train"} for file in files[:PICTURES]]
    for row in rows[-NOT_TRAINED_ON:]:
        row["split"] = "val"
    with path.open("w", newline="", encoding="utf-8") as opened:
        made = csv.DictWriter(opened, rows[0])
        made.writeheader()
        made.writerows(rows)
    return path


def cut(given: argparse.Namespace) -> list[Path]:
    """Squares of the training scenes."""
    folder = given.out / "squares"
    folder.mkdir(exist_ok=True)
    scenes = sorted((given.scenes / "images" / "train").iterdir())
    drawn = np.random.default_rng(80)
    files = []
    for number in range(PICTURES):
        files.append(folder / f"{number:05}.png")
        if number % 100 == 0:
            with Image.open(scenes[drawn.integers(len(scenes))]) as image:
                scene = image.convert("RGB")
        side = int(drawn.integers(32, 129))
        left, top = (int(drawn.integers(room - side + 1)) for room in scene.size)
        scene.crop((left, top, left + side, top + side)).resize((32, 32), Image.Resampling.BOX).save(files[-1])
    return files


def values(given: argparse.Namespace, kind: str, seed: int, objective: dict[str, Any], rate: float) -> dict[str, Any]:
    """A run on pictures of this kind; all that is not said here is that of the map."""
    run = temperature_map.values(given, seed, objective, rate=rate)
    options = {"image": "path", "split": "split", "labeled": False}
    run["data"] = {"path": str(pictures(given, kind)), "options": options, "views": {"crop": "none", "flip": True}}
    run["teacher"] = {"store": str(given.out / f"store-{kind}")}
    run["train"].update({"epochs": EPOCHS, "evaluate_every": EPOCHS, "channels_last": True})
    return run


def store(given: argparse.Namespace, kind: str) -> None:
    """The teacher's answers to all views of these pictures."""
    if not (given.out / f"store-{kind}" / "index.json").is_file():
        asked = values(given, kind, 0, {"forward_kl": {"weight": 1.0}}, 0.1)
        asked["teacher"] = {"model": "cifar/wrn_16_2", "checkpoint": str(given.teacher)}
        counterpoise.record(asked, out=given.out / f"store-{kind}", views="complete", show=True)


def weights(given: argparse.Namespace, kind: str) -> dict[str, float]:
    """By divergence and temperature, the weight that gives a gradient as long as that of labels of CIFAR-100."""
    path = given.out / f"weights-{kind}.json"
    if not path.is_file():
        asked = {f"{name}_at_{t:g}": term for t in TEMPERATURES for name, term in terms(t).items()}
        norms = [gradient_norms(values(given, kind, seed, asked, 0.1)) for seed in MATCHED_ON]
        known = [gradient_norms(labeled(given, seed))["cross_entropy"] for seed in MATCHED_ON]
        wanted = statistics.fmean(known)
        found = {name: wanted / statistics.fmean(one[name] for one in norms) for name in asked}
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    made: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return made


def labeled(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """A run on CIFAR-100 that asks no teacher."""
    run = temperature_map.values(given, seed, {"cross_entropy": {}})
    del run["teacher"]
    return run


def rates() -> dict[float, float]:
    """The learning rate of each temperature."""
    kept = KeptRows(RESULTS / "temperature_map_rates.csv", "")
    best = {t: max(kept.rows(temperature=t), key=lambda row: float(row["top1"])) for t in TEMPERATURES}
    return {t: float(row["learning_rate"]) for t, row in best.items()}


def cells() -> Iterator[tuple[str, float, str, int]]:
    """All runs, whole seeds first."""
    for seed, kind, t in itertools.product(SEEDS, KINDS, TEMPERATURES):
        for name in terms(t):
            yield kind, t, name, seed


def runs(given: argparse.Namespace) -> None:
    """Train and score all, or this lane's share."""
    chosen, kept = rates(), KeptRows(RUNS, COMMAND)
    weight = {kind: weights(given, kind) for kind in KINDS}
    judge = Judge(given.images, given.teacher, given.far, HELD_OUT)
    lane, lanes = (int(part) for part in given.lane.split("/"))
    for number, (kind, t, name, seed) in enumerate(cells()):
        cell: dict[str, str | float] = {"pictures": kind, "temperature": t, "divergence": name, "seed": seed}
        if number % lanes != lane - 1 or kept.rows(**cell):
            continue
        own = weight[kind][f"{name}_at_{t:g}"]
        if name == "variance" and (
            same := kept.rows(**{**cell, "temperature": TEMPERATURES[0], "weight": round(own, 4)})
        ):
            kept.add({**{key: same[0][key] for key in same[0] if key not in kept.origin}, "temperature": t})
            continue
        run = values(given, kind, seed, {"divergence": {**terms(t)[name], "weight": own}}, chosen[t])
        scores = judge.scores(fit(given.out / "runs" / kind / f"{t:g}" / name / f"seed-{seed}", run))
        known = {"weight": round(own, 4), "learning_rate": chosen[t]}
        kept.add({**cell, **known, **{told: scores[told] for told in TOLD}})


def main() -> int:
    """One part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--far", type=Path, required=True, help="pictures of CIFAR-10")
    parser.add_argument("--scenes", type=Path, required=True, help="CamVid")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/far-pictures"))
    parser.add_argument("--part", choices=("runs", "table"), default="runs")
    parser.add_argument("--lane", default="1/1", help="which share of the runs: 1/2 and 2/2 for two processes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.part == "table":
        tell(
            "far_pictures", list(KeptRows(RUNS, COMMAND).rows()), len(list(cells())), ("pictures", "temperature"), TOLD
        )
        return 0
    for kind in KINDS:
        store(given, kind)
    runs(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
