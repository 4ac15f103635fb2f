"""CIFAR-100 as photographs: JPEGs of 400 x 400 pixels, quality 90, enlarged by Lanczos, with fine noise.

python benchmarks/enlarged.py UNPACKED data/enlarged; then counterpoise compare benchmarks/scaled.yaml
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from counterpoise import config
from counterpoise.data import sources

EDGE, NOISE, QUALITY = 400, 8.0, 90


def main() -> None:
    """Write them: the first `--train` of the training images, and the first `--val` of the test images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cifar", type=Path, help="unpacked CIFAR-100")
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=5000)
    parser.add_argument("--val", type=int, default=2000)
    options = parser.parse_args()
    splits = sources.load(config.Data(path=options.cifar, source="cifar"))
    for half, images, count in (("train", splits.train, options.train), ("val", splits.val, options.val)):
        generator = np.random.default_rng(0 if half == "train" else 1)
        for index in range(count):
            small = Image.fromarray(images.read(index).permute(1, 2, 0).numpy())
            large = np.asarray(small.resize((EDGE, EDGE), Image.Resampling.LANCZOS)).astype(np.float32)
            large += generator.normal(0, NOISE, large.shape)
            place = options.out / half / images.classes[int(images.labels[index])]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(large.clip(0, 255).astype(np.uint8)).save(place / f"{index:05d}.jpg", quality=QUALITY)


if __name__ == "__main__":
    main()
