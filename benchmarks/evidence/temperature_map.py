"""Where the reverse term helps: five divergences at five temperatures, with gradients of one strength and no labels.

What is compared, decided before it was run:

- cifar/wrn_16_2 (70.4%) teaches cifar/resnet8 on 45,000 training images of CIFAR-100, mirrored; 4 epochs, three seeds.
- forward KL, reverse KL, half of each, Jensen-Shannon, and half the variance of the difference of logits, which is what
  both KLs tend to as the temperature rises: the control, whose loss knows no temperature. Where its learning rate is
  the same it is the same run, which is made once.
- At each temperature each has the weight with which the norm of its gradient, by all parameters at the first step, is
  that of cross-entropy of the labels at weight 1 (mean over the first batches of three students that train for nothing
  else). The labels teach none of them.
- The learning rate is chosen for forward KL at each temperature, on the 5,000 other training images after 2 epochs of
  one further seed, and given to all five.

Named beforehand, by top-1 on the test images after the last epoch: reverse minus forward at each temperature, five
comparisons corrected by Holm. The prediction to test: reverse is ahead at temperatures of at most 1, and not from 2 on.
Agreement, divergences, calibration, coverage and far pictures are told beside it and decide nothing.

    python benchmarks/evidence/temperature_map.py data/cifar100 data/teachers/cifar100-wrn_16_2.safetensors \
        --far data/cifar10 --part rates      # then --part runs, which --lane 1/2 and 2/2 share, then --part table

data/cifar10 is a folder of pictures of other classes. Each run that is finished has its row in a
CSV: the same command goes on with the others.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from kept_rows import KeptRows
from temperature_scores import Judge

import counterpoise
from counterpoise.engine.matching import gradient_norms
from counterpoise.statistics import holm, paired

TEMPERATURES = (0.5, 1.0, 2.0, 4.0, 8.0)
SEEDS = (61, 62, 63)
MATCHED_ON = (71, 72, 73)
RATES, RATE_SEED, RATE_EPOCHS = (0.02, 0.05, 0.1, 0.2), 74, 2
EPOCHS = 4
HELD_OUT = 5_000
RESULTS = Path(__file__).resolve().parents[1] / "results"
RUNS = RESULTS / "temperature_map_runs.csv"
COMMAND = (
    "python benchmarks/evidence/temperature_map.py data/cifar100 data/teachers/cifar100-wrn_16_2.safetensors "
    "--far data/cifar10"
)


def terms(temperature: float) -> dict[str, dict[str, Any]]:
    """The divergences by name, each at weight 1."""
    side = {"temperature": temperature}
    both = {"forward_weight": 0.5, "reverse_weight": 0.5}
    return {
        "forward": {"objective": "forward_kl", **side},
        "reverse": {"objective": "reverse_kl", **side},
        "both": {
            "objective": "balance",
            **both,
            "forward_temperature": temperature,
            "reverse_temperature": temperature,
        },
        "jsd": {"objective": "jsd", **side},
        "variance": {"objective": "gkl", "power": 0.0, "soft_weight": 0.0},
    }


def values(given: argparse.Namespace, seed: int, objective: Mapping[str, Any], **train: Any) -> dict[str, Any]:
    """A run."""
    rate = {"learning_rate": train.pop("rate", 0.1), "weight_decay": 0.0005}
    return {
        "seed": seed,
        "data": {
            "path": str(given.images),
            "source": "cifar",
            "held_out": HELD_OUT,
            "views": {"crop": "none", "flip": True},
        },
        "teacher": {"store": str(given.out / "store")},
        "student": {"model": "cifar/resnet8"},
        "objective": objective,
        "train": {
            "clip_gradient": None,
            "epochs": EPOCHS,
            "batch_size": 64,
            "device": "cpu",
            "precision": "fp32",
            "optimizer": rate,
            "schedule": {"name": "one_cycle"},
            "log_every": 100,
            "evaluate_every": EPOCHS,
            **train,
        },
    }


def store(given: argparse.Namespace) -> None:
    """The teacher's answers to all views."""
    if (given.out / "store" / "index.json").is_file():
        return
    asked = values(given, 0, {"forward_kl": {"weight": 1.0}})
    asked["teacher"] = {"model": "cifar/wrn_16_2", "checkpoint": str(given.teacher)}
    counterpoise.record(asked, out=given.out / "store", views="complete", show=True)


def weights(given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """By temperature and divergence, the weight that gives a gradient as long as that of cross-entropy."""
    path = given.out / "weights.json"
    if not path.is_file():
        measured = {f"{name} {t:g}": term for t in TEMPERATURES for name, term in terms(t).items()}
        named = {key.replace(" ", "_at_").replace(".", "_"): term for key, term in measured.items()}
        norms = [gradient_norms(values(given, seed, {"cross_entropy": {}, **named})) for seed in MATCHED_ON]
        mean = {name: statistics.fmean(one[name] for one in norms) for name in norms[0]}
        ratios = {key: mean["cross_entropy"] / mean[name] for key, name in zip(measured, named, strict=True)}
        found = {f"{t:g}": {name: ratios[f"{name} {t:g}"] for name in terms(t)} for t in TEMPERATURES}
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    known: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
    return known


def fit(out: Path, run: dict[str, Any]) -> Path:
    """A run, or what is left of it."""
    if not (out / "summary.json").is_file():
        counterpoise.distill({**run, "out": str(out)}, resume=(out / "run.yaml").is_file(), show=True)
    return out


def objective(given: argparse.Namespace, temperature: float, name: str) -> dict[str, Any]:
    """The one term of a run."""
    return {"divergence": {**terms(temperature)[name], "weight": weights(given)[f"{temperature:g}"][name]}}


def rates(given: argparse.Namespace) -> dict[str, float]:
    """The learning rate by temperature: forward KL's best on the images that were held out."""
    kept = KeptRows(RESULTS / "temperature_map_rates.csv", COMMAND)
    found = {}
    for temperature in TEMPERATURES:
        for rate in RATES:
            if not kept.rows(temperature=temperature, learning_rate=rate):
                out = given.out / "rates" / f"{temperature:g}-{rate:g}"
                asked = objective(given, temperature, "forward")
                run = values(given, RATE_SEED, asked, rate=rate, epochs=RATE_EPOCHS, evaluate_every=RATE_EPOCHS)
                summary = json.loads((fit(out, run) / "summary.json").read_text(encoding="utf-8"))
                kept.add({"temperature": temperature, "learning_rate": rate, "top1": summary["last"]["top1"]})
        best = max(kept.rows(temperature=temperature), key=lambda row: float(row["top1"]))
        found[f"{temperature:g}"] = float(best["learning_rate"])
    return found


def cells() -> Iterator[tuple[float, str, int]]:
    """All runs, whole seeds first."""
    for seed, temperature in itertools.product(SEEDS, TEMPERATURES):
        for name in terms(temperature):
            yield temperature, name, seed


def runs(given: argparse.Namespace) -> None:
    """Train and score all, or this lane's share."""
    chosen, weight, kept = rates(given), weights(given), KeptRows(RUNS, COMMAND)
    judge = Judge(given.images, given.teacher, given.far, HELD_OUT)
    lane, lanes = (int(part) for part in given.lane.split("/"))
    for number, (temperature, name, seed) in enumerate(cells()):
        cell = {"temperature": temperature, "divergence": name, "seed": seed}
        if number % lanes != lane - 1 or kept.rows(**cell):
            continue
        at = f"{temperature:g}"
        known = {"weight": round(weight[at][name], 4), "learning_rate": chosen[at]}
        if name == "variance" and (same := kept.rows(divergence=name, seed=seed, **known)):
            scores = {key: same[0][key] for key in Judge.NAMES}
        else:
            run = values(given, seed, objective(given, temperature, name), rate=chosen[at])
            scores = judge.scores(fit(given.out / "runs" / at / name / f"seed-{seed}", run))
        kept.add({**cell, **known, **scores})


def table(given: argparse.Namespace) -> None:
    """From the rows of all runs, means, and reverse minus forward."""
    rows = list(KeptRows(RUNS, COMMAND).rows())
    tell("temperature_map", rows, len(list(cells())), ("temperature",), Judge.NAMES)


def tell(stem: str, rows: list[dict[str, Any]], wanted: int, case: tuple[str, ...], told: Sequence[str]) -> None:
    """Means of divergences, and their differences from forward KL, of which Holm corrects those of reverse KL.

    Args:
        stem: the CSVs in benchmarks/results are stem_table.csv and stem_differences.csv.
        rows: of the runs, with divergence, seed, top1 and all that is told.
        wanted: how many there must be.
        case: columns within whose values divergences are compared.
    """
    runs = {(row["divergence"], row["seed"], *(row[key] for key in case)) for row in rows}
    if len(runs) < wanted:
        raise SystemExit(f"{wanted - len(runs)} runs are not finished: --part runs goes on with them.")
    if len(rows) > len(runs):
        raise SystemExit(f"{len(rows) - len(runs)} rows are of a run that has a row already: remove them.")
    means: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for values_of_case in dict.fromkeys(tuple(row[key] for key in case) for row in rows):
        known = dict(zip(case, values_of_case, strict=True))
        here = [row for row in rows if all(row[key] == value for key, value in known.items())]
        top1: dict[str, dict[int, float]] = {}
        for name in dict.fromkeys(row["divergence"] for row in here):
            own = [row for row in here if row["divergence"] == name]
            top1[name] = {row["seed"]: row["top1"] for row in own}
            spread = {key: statistics.fmean(row[key] for row in own) for key in told}
            spread["top1_std"] = statistics.stdev(top1[name].values())
            means.append({**known, "divergence": name, "seeds": len(own), **rounded(spread)})
        for name in [name for name in top1 if name != "forward"]:
            compared = paired(top1[name], top1["forward"])
            interval = {"low": compared.low, "high": compared.high, "p": compared.p}
            differences.append({**known, "minus_forward": name, "top1": compared.mean, **interval, "p_holm": ""})
    named = [row for row in differences if row["minus_forward"] == "reverse"]
    for row, p in zip(named, holm([row["p"] for row in named]), strict=True):
        row["p_holm"] = p
    write(f"{stem}_table.csv", means)
    write(f"{stem}_differences.csv", [rounded(row) for row in differences])


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Four places."""
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """A table into benchmarks/results."""
    with (RESULTS / name).open("w", newline="", encoding="utf-8") as file:
        made = csv.DictWriter(file, list(rows[-1]), lineterminator="\n")
        made.writeheader()
        made.writerows(rows)


def main() -> int:
    """One part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("--far", type=Path, required=True, help="pictures of none of the classes, for AUROC")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/temperature-map"))
    parser.add_argument("--part", choices=("rates", "runs", "table"), default="rates")
    parser.add_argument("--lane", default="1/1", help="which share of the runs: 1/2 and 2/2 for two processes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.part != "table":
        store(given)
    {"rates": rates, "runs": runs, "table": table}[given.part](given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
