"""A folder of photos without labels, for distillation by the teacher's word alone."""

from __future__ import annotations

from pathlib import Path

import torch

from counterpoise import config
from counterpoise.data.sources.base import UNLABELED, Splits
from counterpoise.data.sources.division import divided
from counterpoise.data.sources.files import FileSet
from counterpoise.data.sources.image_folder import find_folders
from counterpoise.data.sources.registry import register
from counterpoise.data.walking import image_files, loose_images, subfolders
from counterpoise.errors import DataError
from counterpoise.system.files import expanded


def _recognizes(path: Path) -> bool:
    try:
        half = path / find_folders(path).train
        return bool(loose_images(half)) and not any(image_files(half / name) for name in subfolders(half))
    except DataError:  # image_folder will say it
        return False


@register("photos", summary="a folder of photos without labels, for distill", recognizes=_recognizes)
def load(data: config.Data, *, train_split: str | None = None, val_split: str | None = None) -> Splits:
    """All images below `data.path`, or below its train/ and val/; labels UNLABELED, no classes.

    Args:
        train_split, val_split: as for image_folder.
    """
    assert data.path is not None  # the registry has seen to it
    root = expanded(data.path)
    return divided(
        data, root, find_folders(root, train_split, val_split), lambda folder: collect(folder, data.reading.arrays)
    )


def collect(folder: Path, arrays: bool = False) -> FileSet:
    """All images below a folder, at any depth, as an unlabeled set. Raises DataError where there are none.

    arrays: whether .npy files are images.
    """
    files = image_files(folder, arrays)
    if not files:
        raise DataError(f"{folder} holds no images.")
    return FileSet(folder, files, torch.full((len(files),), UNLABELED), ())
