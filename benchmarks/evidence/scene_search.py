"""Looking for a recipe with which a student of scenes gains from its teacher, on CamVid's val scenes, one seed each.

Nothing here is evidence: whatever looks best goes on to seeds and scenes of its own. The test scenes are not looked at.

- The student is that of recipes/camvid/small-cpu, an FPN of half a million parameters at half size, and so are views,
  optimizer and the term of the labels.
- Teachers: that of the recipe; the same for three times as long, with stronger views; and this one with an encoder that
  was trained on CIFAR-100's images at 64 x 64 before.
- Students alone for 10, 20 and 40 epochs, and from an encoder trained on CIFAR-100, too. Students that hear a teacher,
  beside the labels or instead of them, averaged over flips and sizes or not, with the encoder or from random weights.

- Few masks: one training scene in 8, or in 32, has one, and the others have none. Students alone, and students that
  hear the best teacher of all masks on all training scenes. About as many steps as on all masks.

A row a run that is finished: network, epochs, seconds of processor time, mIoU on the 101 val scenes.

    python benchmarks/evidence/scene_search.py data/camvid data/cifar100
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from kept_rows import KeptRows

import counterpoise
from counterpoise import config

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes" / "camvid" / "small-cpu"
ROWS = ROOT / "benchmarks" / "results" / "scene_search.csv"
COMMAND = "python benchmarks/evidence/scene_search.py data/camvid data/cifar100"
SEED = 101
STRONGER = {"scenes": {"scale": [0.6, 1.7], "jitter": 0.5, "rotate": 8, "blur": 0.5, "noise": 0.02, "gamma": 0.2}}
CLASS_WEIGHT = config.read(RECIPES / "common.yaml")["objective"]["cross_entropy"]["class_weight"]


def term(name: str, weight: float, **arguments: Any) -> dict[str, Any]:
    """A teacher's term in which each pixel counts as it does in cross-entropy."""
    return {
        name: {"objective": "class_weighted", "of": name, "class_weight": CLASS_WEIGHT, "weight": weight, **arguments}
    }


KD = term("forward_kl", 4.0, temperature=1.0)
TEACHERS: dict[str, dict[str, Any]] = {
    "teacher": {"epochs": 20},
    "teacher, longer": {"epochs": 60, "data": STRONGER},
    "teacher, longer, encoder": {"epochs": 60, "data": STRONGER, "encoder": "timm/resnet10t"},
}
STUDENTS: dict[str, dict[str, Any]] = {
    **{f"alone, {epochs}": {"epochs": epochs} for epochs in (10, 20, 40)},
    "alone, encoder, 20": {"epochs": 20, "encoder": "timm/test_resnet"},
    "alone, stronger views, 40": {"epochs": 40, "data": STRONGER},
    **{f"kd, {epochs}": {"epochs": epochs, "hears": KD} for epochs in (10, 20)},
    "kd, encoder, 20": {"epochs": 20, "hears": KD, "encoder": "timm/test_resnet"},
    "kd, six views, 20": {"epochs": 20, "hears": KD, "views": 6},
    "kd without labels, 20": {"epochs": 20, "hears": KD, "labels": False},
    "kd, stronger views, 20": {"epochs": 20, "hears": KD, "data": STRONGER},
}
FEW: dict[str, dict[str, Any]] = {
    "one mask in 8: alone, 20": {"share": 8, "epochs": 160},
    "one mask in 32: alone, stronger views, encoder, 15": {
        "share": 32,
        "epochs": 675,
        "data": STRONGER,
        "encoder": "timm/test_resnet",
    },
    "one mask in 32: kd, stronger views, encoder, 15": {
        "share": 32,
        "epochs": 15,
        "hears": KD,
        "data": STRONGER,
        "encoder": "timm/test_resnet",
    },
    "one mask in 32: kd, encoder, 30": {"share": 32, "epochs": 30, "hears": KD, "encoder": "timm/test_resnet"},
    "one mask in 32: alone, encoder, 30": {"share": 32, "epochs": 1350, "encoder": "timm/test_resnet"},
}
"""Of training scenes one in `share` has a mask."""


def few(given: argparse.Namespace, share: int) -> Path:
    """Scenes of which one in `share` has a mask; the others are in unlabeled/."""
    data: Path = given.out / f"one-in-{share}"
    if (data / "done").is_file():
        return data
    shutil.rmtree(data, ignore_errors=True)
    for split in ("train", "val"):
        for number, image in enumerate(sorted((given.scenes / "images" / split).iterdir())):
            known = split == "val" or number % share == 0
            place(image, data / "images" / split if known else data / "unlabeled")
            if known:
                place(given.scenes / "masks" / split / f"{image.stem}.png", data / "masks" / split)
    shutil.copy(given.scenes / "classes.txt", data)
    (data / "done").touch()
    return data


def place(file: Path, folder: Path) -> None:
    """A copy of a file in a folder that is there or not."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, folder)


def encoder(given: argparse.Namespace, model: str, kept: KeptRows) -> Path:
    """A classifier of CIFAR-100's images at 64 x 64, whose layers an encoder of the same network can start from."""
    out: Path = given.out / "encoders" / model.partition("/")[2]
    spent = fit(
        out,
        {
            "seed": SEED,
            "data": {
                "path": str(given.images),
                "source": "cifar",
                "held_out": 5_000,
                "workers": 0,
                "views": {"size": [64, 64], "scale": [0.4, 1.0], "flip": True},
            },
            "student": {"model": model, "input_size": 64},
            "train": {
                "clip_gradient": None,
                "epochs": 2,
                "batch_size": 64,
                "device": "cpu",
                "optimizer": {"learning_rate": 0.1, "weight_decay": 0.0005},
                "schedule": {"name": "one_cycle"},
                "evaluate_every": 2,
                "channels_last": True,
            },
        },
    )
    note(kept, f"encoder {model}", 2, spent, out, "top1")
    return out


def fit(out: Path, run: Mapping[str, Any], teacher: Mapping[str, Any] | None = None) -> float:
    """Train what is left of a run; the seconds of processor time that it took."""
    told = out / "processor_seconds"
    if not told.is_file():
        started = time.process_time()
        asked = {**run, "out": str(out)}
        if teacher is None:
            counterpoise.train(asked, overwrite=True, show=True)
        else:
            counterpoise.distill({**asked, "teacher": dict(teacher)}, overwrite=True, show=True)
        told.write_text(f"{time.process_time() - started:.1f}", encoding="utf-8")
    return float(told.read_text(encoding="utf-8"))


def note(kept: KeptRows, name: str, epochs: int, spent: float, out: Path, score: str) -> None:
    """A row of a run that is finished."""
    if not kept.rows(network=name):
        val = round(summary(out)[score], 2)
        kept.add({"network": name, "epochs": epochs, "processor_seconds": spent, "score": score, "val": val})


def summary(out: Path) -> dict[str, float]:
    """Scores of the last epoch."""
    last: dict[str, float] = json.loads((out / "summary.json").read_text(encoding="utf-8"))["last"]
    return last


def scenes(given: argparse.Namespace, kind: str, asked: Mapping[str, Any], kept: KeptRows) -> dict[str, Any]:
    """A run by the recipe, with what is asked beside."""
    epochs = asked["epochs"]
    run = config.read(RECIPES / f"{kind}.yaml")
    more: dict[str, Any] = {
        "seed": SEED,
        "data": {"path": str(given.scenes), **asked.get("data", {})},
        "train": {"clip_gradient": None, "epochs": epochs, "evaluate_every": epochs, "device": "cpu"},
        "student": {"checkpoint": str(encoder(given, asked["encoder"], kept))} if "encoder" in asked else {},
    }
    return config.merge(run, more)


def main() -> int:
    """Run what is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("images", type=Path, help="CIFAR-100")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence/scene-search"))
    parser.add_argument("--only", nargs="+", help="these networks and the teachers alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    kept = KeptRows(ROWS, COMMAND)
    best, found = None, -1.0
    for name, asked in TEACHERS.items():
        out = given.out / name
        spent = fit(out, scenes(given, "teacher", asked, kept))
        note(kept, name, asked["epochs"], spent, out, "miou")
        if summary(out)["miou"] > found:
            best, found = out, summary(out)["miou"]
    for name, asked in STUDENTS.items():
        if given.only and name not in given.only:
            continue
        student(given, name, scenes(given, "alone", asked, kept), asked, best, kept)
    for name, asked in FEW.items():
        data = few(given, asked["share"])
        shown = {"path": str(data), **({"unlabeled": str(data / "unlabeled")} if "hears" in asked else {})}
        run = config.merge(scenes(given, "alone", asked, kept), {"data": shown})
        run["objective"]["cross_entropy"]["weight"] = 1.0 / asked["share"] if "hears" in asked else 1.0
        student(given, name, run, asked, best, kept)
    return 0


def student(
    given: argparse.Namespace,
    name: str,
    run: dict[str, Any],
    asked: Mapping[str, Any],
    teacher: Path | None,
    kept: KeptRows,
) -> None:
    """Train what hears a teacher or none, and note it."""
    voice = None
    if "hears" in asked:
        run["objective"] = {**(run["objective"] if asked.get("labels", True) else {}), **asked["hears"]}
        voice = {"checkpoint": str(teacher), "views": asked.get("views", 1)}
    spent = fit(given.out / name, run, voice)
    note(kept, name, asked["epochs"], spent, given.out / name, "miou")


if __name__ == "__main__":
    sys.exit(main())
