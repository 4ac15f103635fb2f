"""A folder of photos without labels, for distillation by the teacher's word alone."""

from __future__ import annotations

from pathlib import Path

import torch

from counterpoise import config
from counterpoise.data.problems import raise_first
from counterpoise.data.sources.base import UNLABELED, Splits
from counterpoise.data.sources.division import divided
from counterpoise.data.sources.files import FileSet
from counterpoise.data.sources.grouping import Asked, give_groups
from counterpoise.data.sources.image_folder import find_folders
from counterpoise.data.sources.registry import register
from counterpoise.data.walking import image_files, loose_images, of_links, subfolders
from counterpoise.errors import DataError
from counterpoise.system.files import expanded


def _recognizes(path: Path) -> bool:
    try:
        half = path / find_folders(path).train
        return bool(loose_images(half)) and not any(image_files(half / name) for name in subfolders(half))
    except DataError:  # image_folder will say it
        return False


@register("photos", summary="a folder of photos without labels, for distill", recognizes=_recognizes)
def load(
    data: config.Data,
    *,
    train_split: str | None = None,
    val_split: str | None = None,
    group: str | None = None,
    shared: bool = False,
) -> Splits:
    """All images below `data.path`, or below its train/ and val/; labels UNLABELED, no classes.

    Args:
        train_split, val_split: as for image_folder.
        group, shared: as for image_folder; paths are those below the folder, or below its train/ and val/.
    """
    assert data.path is not None  # the registry has seen to it
    root = expanded(data.path)
    halves = find_folders(root, train_split, val_split)
    parts = {root / name: collect(root / name, data.reading.arrays) for name in halves.names}
    below = [part.files for part in parts.values()]
    problems = give_groups([*parts.values()], below, Asked(group, shared), root, halves)
    raise_first(problems)
    splits = divided(data, root, halves, parts.__getitem__)
    splits.train.notes += [problem.sentence for problem in problems]
    return splits


def collect(folder: Path, arrays: bool = False) -> FileSet:
    """All images below a folder, at any depth, as an unlabeled set. Raises DataError where there are none.

    arrays: whether .npy files are images.
    """
    twice: list[str] = []
    files = image_files(folder, arrays, twice)
    if not files:
        raise DataError(f"{folder} holds no images.")
    images = FileSet(folder, files, torch.full((len(files),), UNLABELED), ())
    images.notes += of_links(folder, twice)
    return images
