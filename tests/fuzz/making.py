"""Small good files that several formats are made of."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

GOLDEN = Path(__file__).parents[1] / "golden"
Make = Callable[[Path], object]


def pixels(seed: int, size: tuple[int, ...] = (8, 8, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def saved(kind: str, values: np.ndarray | Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(file, kind, **options)
    return file.getvalue()


def photos(folder: Path, count: int = 6) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(saved("PNG", pixels(number)))


def file(name: str, content: Callable[[], bytes]) -> Make:
    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / name).write_bytes(content())

    return make


def text(name: str, text: str) -> Any:
    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / name).write_text(text, encoding="utf-8")

    return make


def yaml_file(name: str, values: Any) -> Any:
    return text(name, yaml.safe_dump(values, sort_keys=False))


def copied(what: str, *names: str) -> Any:
    def make(folder: Path) -> None:
        folder.mkdir()
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(GOLDEN / what / name, folder / name)

    return make
