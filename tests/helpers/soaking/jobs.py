"""The commands that a soak tries, drawn by a seed: each takes a second or a few, and writes the folder `out`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml

Values = dict[str, Any]

PLAIN = """
from torch import nn


def make(num_classes):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, num_classes))
    net.input_size = 8
    return net
"""
"""A network without batch statistics: several processes train what one does."""

LABELS: Values = {"cross_entropy": {"weight": 1.0}}
OBJECTIVES: tuple[Values, ...] = (
    {**LABELS, "balance": {"weight": 1.0}},
    {**LABELS, "balance": {"weight": {"shape": "linear", "start": 1, "end": 3}}},
    {**LABELS, "forward_kl": {"weight": 3.6, "temperature": 2.0}},
    {**LABELS, "reverse_kl": {"weight": 0.5}, "dkd": {"weight": 0.5}},
    {**LABELS, "crd": {"weight": 0.5}},
    {**LABELS, "fitnet": {"weight": 0.1, "student_feature": "@-1", "teacher_feature": "@-1"}},
    {
        **LABELS,
        "dist": {"weight": 1.0},
        "at": {"weight": 10.0, "student_features": ["@-1"], "teacher_features": ["@-1"]},
    },
    {"cross_entropy": {"weight": 0.5}, "wttm": {"weight": 1.0}},
)
"""Some keep a state of their own: memories, regressors, weights that move."""
DENSE: tuple[Values, ...] = (
    {**LABELS, "balance": {"weight": 1.0}},
    {**LABELS, "cwd": {"weight": 3.0}},
    {**LABELS, "dice": {"weight": 1.0}, "forward_kl": {"weight": 1.0}},
    {**LABELS, "cirkd": {"weight": 1.0}},
)


@dataclass(frozen=True)
class Job:
    """A command line, and how it may be done.

    Attributes:
        arguments: it writes `out` in the working folder, and reads `asked.yaml` beside that where `values` are given.
        resume: whether --resume goes on with it; else the same line does.
        worlds: how many processes may do a part of it.
        near: whether its end depends on their number by rounding; else it is the same to the bit.
        copied: what it changes: `out` begins as a copy of that.
        measured: a file in `out` with what a clock said, by which it goes on.
    """

    kind: str
    arguments: tuple[str, ...]
    values: Mapping[str, Any] | None = None
    resume: bool = False
    worlds: tuple[int, ...] = (1,)
    near: bool = False
    copied: Path | None = None
    measured: str | None = None

    def line(self, begun: bool) -> list[str]:
        """What is called; `begun`: where `out` is there."""
        return [*self.arguments, *(["--resume"] if self.resume and begun else [])]

    def write(self, folder: Path) -> None:
        """`asked.yaml`, as a folder to work in needs it."""
        if self.values is not None:
            (folder / "asked.yaml").write_text(yaml.safe_dump(dict(self.values), sort_keys=False))


def lay(ground: Path) -> None:
    """Below a folder, what jobs start from and no command makes: pictures, a folder a class, and a network."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    ground.mkdir(parents=True)
    (ground / "plain.py").write_text(PLAIN)
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images[:120], digits.target[:120], strict=True)):
        place = ground / "pictures" / ("val" if number % 4 == 0 else "train") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.uint8(pixels * 15)).resize((16, 12 + number % 5))
        picture.convert("RGB").save(place / f"{number}.{'png' if number % 3 else 'jpg'}")


def first(ground: Path) -> dict[str, Job]:
    """The commands that make the rest of it, by the folder that each is to be."""
    train = {"epochs": 2, "batch_size": 25, "device": "cpu", "precision": "fp32"}
    run = {"data": {**DIGITS, "workers": 0}, "train": train, "student": {"model": "digits/cnn_8_16"}}
    scenes = {"task": "segmentation", "data": SCENES, "train": {**train, "batch_size": 4}}
    asked, taught = ("asked.yaml", "--out", "out", "--quiet"), _recording(ground, 2)
    return {
        "teacher": Job("train", ("train", *asked), run),
        "seer": Job("train", ("train", *asked), {**scenes, "student": {"model": "digits/unet_8_16"}}),
        "pack": Job("pack", ("pack", str(ground / "pictures"), "--out", "out", "--shards", "3")),
        "views": Job("record", ("record", *asked), taught),
        "epochs": Job("record", ("record", *asked, "--views", "epochs"), taught),
        "part1": Job("record", ("record", *asked, "--part", "1/2"), taught),
        "part2": Job("record", ("record", *asked, "--part", "2/2"), taught),
    }


DIGITS: Values = {"source": "digits", "options": {"train_size": 100}, "views": {"crop": "pad", "padding": 1}}
SCENES: Values = {"source": "digit_scenes", "options": {"train_size": 12, "val_size": 6, "edge": 32}, "workers": 0}


def _taught(by: Path) -> Values:
    return {"checkpoint": str(by), "accept_chance": True}


def _recording(ground: Path, epochs: int) -> Values:
    train = {"epochs": epochs, "batch_size": 25, "device": "cpu", "precision": "fp32"}
    student = {"model": "digits/cnn_4_8"}
    return {
        "data": {**copy.deepcopy(DIGITS), "workers": 0},
        "teacher": _taught(ground / "teacher"),
        "student": student,
        "train": train,
    }


def _small(random: Random, epochs: tuple[int, int]) -> Values:
    """The section `train`, with whatever has a state of its own."""
    values: Values = {
        "epochs": random.randint(*epochs),
        "batch_size": random.choice((16, 25, 32)),
        "device": "cpu",
        "precision": "fp32",
        "checkpoint_minutes": random.choice((0.00005, 0.0005, 0.005, 2.0)),
        "log_every": random.choice((1, 3, 10)),
        "evaluate_every": random.choice((1, 1, 2)),
        "optimizer": {"name": random.choice(("sgd", "adamw")), "learning_rate": random.choice((0.003, 0.05))},
        "schedule": {"name": random.choice(("one_cycle", "cosine", "constant"))},
        "ship": random.choice(("last", "best")),
    }
    for key, value in (("ema", 0.9), ("clip_gradient", 1.0), ("accumulate", 2)):
        if random.random() < 0.3:
            values[key] = value
    return values


def _data(random: Random, ground: Path) -> Values:
    """The section `data`: arrays, a folder, or a pack of it."""
    values: Values = {"workers": random.choice((0, 0, 1, 2))}
    if random.random() < 0.5:
        values |= {"source": "digits", "options": {"train_size": random.choice((100, 300))}}
    else:
        values |= {"path": str(random.choice((ground / "pictures", ground / "pack"))), "size": 8}
        if random.random() < 0.5:
            values |= {"shuffle": "blocks", "block_size": 8, "shuffle_window": 3}
    if random.random() < 0.4:
        values["views"] = {random.choice(("mixup", "cutmix")): 0.5}
    return values


def training(random: Random, ground: Path, taught: bool) -> Job:
    """`train` or `distill` on pictures, by one process, by two, or by now one, now two."""
    values: Values = {
        "seed": random.randrange(1000),
        "data": _data(random, ground),
        "student": {"model": "digits/cnn_4_8"},
        "train": _small(random, (4, 14)),
    }
    if taught:
        values["objective"] = random.choice(OBJECTIVES)
        values["teacher"] = _taught(ground / "teacher")
        if random.random() < 0.3:  # from the store: of its data, its views and its seed
            values |= {"seed": 0, "data": {**DIGITS, "workers": values["data"]["workers"]}}
            values |= {"teacher": {"store": str(ground / "views")}, "objective": OBJECTIVES[random.randrange(4)]}
    worlds = random.choice(((1,), (1,), (1,), (2,), (1, 2)))
    near = len(worlds) > 1
    if near:
        values["student"]["model"] = f"{ground / 'plain.py'}:make"
        values["train"] |= {"optimizer": {"name": "sgd", "learning_rate": 0.01}, "epochs": 4}
        values["data"].pop("views", None) if "path" in values["data"] else None
        if taught:
            values["objective"] = random.choice(OBJECTIVES[:3])
    kind = "distill" if taught else "train"
    return Job(kind, (kind, "asked.yaml", "--out", "out"), values, resume=True, worlds=worlds, near=near)


def scenes(random: Random, ground: Path) -> Job:
    """`train` or `distill` on drawn scenes."""
    taught = random.random() < 0.6
    values: Values = {
        "task": "segmentation",
        "seed": random.randrange(1000),
        "data": {**SCENES, "workers": random.choice((0, 0, 1))},
        "student": {"model": "digits/unet_4_8"},
        "train": {**_small(random, (3, 6)), "batch_size": random.choice((4, 5))},
    }
    if taught:
        values |= {"teacher": _taught(ground / "seer"), "objective": random.choice(DENSE)}
    kind = "distill" if taught else "train"
    worlds = random.choice(((1,), (1,), (2,)))
    return Job(f"{kind} scenes", (kind, "asked.yaml", "--out", "out"), values, resume=True, worlds=worlds)


def record(random: Random, ground: Path) -> Job:
    """`record`, by any number of processes."""
    precision = random.choice(("float16", "int8", "int4", "float32", "top3"))
    values = _recording(ground, random.randint(2, 6))
    values["data"]["views"]["padding"] = random.choice((1, 2))
    line = ("record", "asked.yaml", "--out", "out", "--precision", precision)
    views = ("--views", "epochs") if random.random() < 0.4 else ()
    return Job("record", (*line, *views), values, worlds=random.choice(((1,), (1, 2))))


def extend(random: Random, ground: Path) -> Job:
    """`store extend`, by any number of processes."""
    values = _recording(ground, 2)
    line = ("store", "extend", "asked.yaml", "--out", "out", "--epochs", str(random.randint(3, 9)))
    return Job("store extend", line, values, worlds=random.choice(((1,), (1, 2))), copied=ground / "epochs")


def prune(random: Random, ground: Path) -> Job:
    """`store prune`, in place or into another folder."""
    keep = ",".join(str(view) for view in sorted(random.sample(range(9), random.randint(1, 8))))
    if random.random() < 0.5:
        return Job("store prune", ("store", "prune", "out", "--keep", keep), copied=ground / "views")
    fewer = ("--precision", random.choice(("int8", "int4")), "--out", "out")
    return Job("store prune", ("store", "prune", str(ground / "views"), "--keep", keep, *fewer))


def merge(random: Random, ground: Path) -> Job:
    """`store merge` of two parts."""
    parts = [str(ground / "part1"), str(ground / "part2")]
    random.shuffle(parts)
    return Job("store merge", ("store", "merge", *parts, "--out", "out"))


def pack(random: Random, ground: Path) -> Job:
    """`pack` of a folder."""
    line = ["pack", str(ground / "pictures"), "--out", "out", "--shards", str(random.randint(1, 12))]
    line += ["--shorter", "8"] if random.random() < 0.3 else []
    line += ["--no-shuffle"] if random.random() < 0.3 else []
    return Job("pack", tuple(line))


def _study(random: Random, ground: Path) -> Values:
    """The run that studies vary."""
    train = {"epochs": 2, "batch_size": 30, "precision": "fp32", "device": "cpu", "optimizer": {"learning_rate": 0.1}}
    return {
        "seed": random.randrange(1000),
        "data": {"source": "digits", "options": {"train_size": 90}, "views": {"crop": "none", "flip": False}},
        "teacher": _taught(ground / "teacher"),
        "student": {"model": "digits/cnn_4_8"},
        "train": train,
    }


METHODS: Values = {
    "alone": {"objective": LABELS},
    "kd": {"objective": {**LABELS, "forward_kl": {"weight": 3.6, "temperature": 2.0}}},
    "balance": {"objective": {**LABELS, "balance": {"weight": 1.8}}},
}


def compare(random: Random, ground: Path) -> Job:
    """`compare` of three methods over two or three seeds."""
    values = {"run": _study(random, ground), "methods": METHODS, "seeds": random.randint(2, 3), "baseline": "kd"}
    values["run"].pop("seed")
    return Job("compare", ("compare", "asked.yaml", "--out", "out"), {**values, "primary": "balance"})


def search(random: Random, ground: Path) -> Job:
    """`search` of two methods, halved once."""
    rate = {"key": "train.optimizer.learning_rate", "low": 0.02, "high": 0.4, "log": True}
    decay = {"key": "train.optimizer.weight_decay", "low": 1e-5, "high": 1e-2, "log": True}
    shared = {"forward_weight": "$total * $share", "reverse_weight": "$total * (1 - $share)"}
    values = {
        "run": _study(random, ground),
        "ranges": {"learning_rate": rate, "weight_decay": decay},
        "methods": {
            "alone": METHODS["alone"],
            "balance": {"objective": {**LABELS, "balance": {"weight": 1, **shared}}},
        },
        "trials": random.randint(2, 4),
        "rungs": [1, 2],
        "val_images": 30,
        "final": {"baseline": "alone", "primary": "balance", "seeds": 2},
    }
    values["run"].pop("seed")
    return Job("search", ("search", "asked.yaml", "--out", "out"), values)


def fit(random: Random, ground: Path) -> Job:
    """`fit` of three networks, one of them above the budget."""
    values = {**_study(random, ground), "objective": OBJECTIVES[0]}
    students = ("--students", "digits/cnn_4_8", "digits/cnn_16_32", "digits/cnn_32_64")
    budget = ("--budget", "multiply_adds<=0.3M", "--runtime", "onnx")
    quick = ("--rounds", "6", "--seconds", "0.001", "--val_images", "30")
    line = ("fit", "asked.yaml", *budget, *students, *quick, "--out", "out")
    return Job("fit", line, values, measured="measurements.jsonl")


def advise(random: Random, ground: Path) -> Job:
    """`advise` with one rung."""
    values = {**_study(random, ground), "objective": OBJECTIVES[2]}
    values["train"]["batch_size"] = 5  # that some learn something, for what learns nothing is refused
    quick = ("--rungs", "2", "4", "--keep", "0.2", "--seeds", "2", "--strengths", "2", "--val_images", "20")
    return Job("advise", ("advise", "asked.yaml", *quick, "--out", "out"), values)


def export(random: Random, ground: Path) -> Job:
    """`export` to ONNX."""
    precision = random.choice(("float32", "float16", "int8"))
    line = (
        "export",
        str(ground / "teacher"),
        "--to",
        "onnx",
        "--precision",
        precision,
        "--images",
        "60",
        "--out",
        "out",
    )
    rounded = ("--min_same", "1", "--calibration_images", "32") if precision == "int8" else ()
    return Job("export", (*line, "--overwrite", *rounded))


KINDS: dict[str, tuple[int, Callable[[Random, Path], Job]]] = {
    "train": (5, lambda random, ground: training(random, ground, taught=False)),
    "distill": (7, lambda random, ground: training(random, ground, taught=True)),
    "scenes": (4, scenes),
    "record": (4, record),
    "store extend": (2, extend),
    "store prune": (2, prune),
    "store merge": (1, merge),
    "pack": (3, pack),
    "compare": (2, compare),
    "search": (1, search),
    "fit": (1, fit),
    "advise": (1, advise),
    "export": (2, export),
}
"""How often each is drawn, and how."""


def draw(random: Random, ground: Path) -> Job:
    """One of them."""
    (kind,) = random.choices(list(KINDS), [often for often, _ in KINDS.values()])
    return KINDS[kind][1](random, ground)
