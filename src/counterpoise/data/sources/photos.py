"""A folder of photos without labels, for distillation by the teacher's word alone."""

from __future__ import annotations

from pathlib import Path

import torch

from counterpoise import config
from counterpoise.data.sources.base import UNLABELED, FileSet, Splits, split_by_fraction
from counterpoise.data.sources.image_folder import find_halves, image_files, is_image, subfolders
from counterpoise.data.sources.registry import register
from counterpoise.errors import DataError


def _recognizes(path: Path) -> bool:
    try:
        half, _ = find_halves(path)
    except DataError:  # image_folder will say it
        return False
    loose = any(is_image(entry.name) for entry in half.iterdir() if not entry.name.startswith("."))
    return loose and not any(image_files(half / name) for name in subfolders(half))


@register("photos", summary="a folder of photos without labels, for distill", recognizes=_recognizes)
def load(data: config.Data) -> Splits:
    """All images below `data.path`, or below its train/ and val/; labels UNLABELED, no classes."""
    assert data.path is not None  # the registry has seen to it
    train, val = find_halves(data.path.expanduser())
    if val is None:
        return split_by_fraction(collect(train), data.val_fraction, data.split_seed)
    return Splits(collect(train), collect(val))


def collect(folder: Path) -> FileSet:
    """All images below a folder, at any depth, as an unlabeled set. Raises DataError where there are none."""
    files = image_files(folder)
    if not files:
        raise DataError(f"{folder} holds no images.")
    return FileSet(folder, files, torch.full((len(files),), UNLABELED), ())
