"""CIFAR-100 as pictures and a table with its fine and its coarse label at once: 120 labels, two a picture.

python benchmarks/evidence/multilabel_table.py data/cifar100 data/cifar100-both

Of each fine class the first images of the training part and of the test part, so that one core is done with it.
"""

from __future__ import annotations

import argparse
import csv
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def read(path: Path) -> dict[str, Any]:
    """A file of the official set, which must be one's own: pickles run code."""
    with path.open("rb") as file:
        found: dict[bytes, Any] = pickle.load(file, encoding="bytes")
    return {key.decode(): value for key, value in found.items()}


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="folder that holds cifar-100-python/")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--train", type=int, default=30, help="training images of each fine class")
    parser.add_argument("--test", type=int, default=10, help="test images of each fine class")
    asked = parser.parse_args()
    source = asked.source / "cifar-100-python"
    meta = read(source / "meta")
    fine, coarse = ([name.decode() for name in meta[f"{kind}_label_names"]] for kind in ("fine", "coarse"))
    rows = []
    for part, most in (("train", asked.train), ("test", asked.test)):
        (asked.out / part).mkdir(parents=True, exist_ok=True)
        found, seen = read(source / part), Counter[int]()
        pixels = np.asarray(found["data"]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        for index, (one, other) in enumerate(zip(found["fine_labels"], found["coarse_labels"], strict=True)):
            if seen[one] == most:
                continue
            seen[one] += 1
            name = f"{part}/{index:05d}.png"
            Image.fromarray(pixels[index]).save(asked.out / name)
            rows.append([name, part, f"{fine[one]}|group {coarse[other]}"])
    with (asked.out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "split", "labels"], *rows])


if __name__ == "__main__":
    main()
