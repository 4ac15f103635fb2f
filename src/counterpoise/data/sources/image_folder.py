"""A folder of image files sorted into class folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from counterpoise import config
from counterpoise.data.images import extensions
from counterpoise.data.sources.base import FileSet, Splits, split_by_fraction
from counterpoise.data.sources.registry import register
from counterpoise.errors import DataError, nearest

VAL_NAMES = ("val", "valid", "validation", "test")  # in order of preference


@register(
    "image_folder",
    summary="PATH/train and PATH/val with a folder a class, or class folders alone, split by val_fraction",
)
def load(data: config.Data) -> Splits:
    """Class folders below `data.path`, or below its train/ and val/ (or valid/, validation/, test/)."""
    assert data.path is not None  # the registry has seen to it
    root = data.path.expanduser()
    train_folder, val_folder = find_halves(root)
    classes = _classes(train_folder)
    train = _collect(train_folder, classes)
    if val_folder is None:
        return split_by_fraction(train, data.val_fraction, data.split_seed)
    for name in subfolders(val_folder):
        if name not in classes and image_files(val_folder / name):
            raise DataError(f"Class '{name}' of {val_folder} is unknown to {train_folder}.{nearest(name, classes)}")
    val = _collect(val_folder, classes, complete=False)
    if len(val) == 0:
        raise DataError(f"{val_folder} holds no images in class folders such as '{classes[0]}'.")
    return Splits(train, val)


def find_halves(root: Path) -> tuple[Path, Path | None]:
    """The folders of train and val images; (root, None) where `root` is not divided.

    A folder 'train' beside others is a class (CIFAR-100 has one) where images lie directly in it.
    """
    names = subfolders(root)
    halves = [name for name in VAL_NAMES if name in names]
    if "train" not in names:
        if names and set(names) <= set(VAL_NAMES):
            raise DataError(f"{root} has a folder '{halves[0]}', but no folder 'train'.")
        return root, None
    if not set(names) <= {"train", *VAL_NAMES} and _has_images(root / "train"):
        return root, None
    return root / "train", root / halves[0] if halves else None


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, hidden ones left out."""
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir())


def image_files(folder: Path) -> list[str]:
    """Paths of all images below a folder, relative to it, sorted, hidden ones left out. Links are followed."""
    found: list[str] = []
    seen: set[str] = set()
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        real = os.path.realpath(folder / inner)
        if real in seen:  # a link that leads back up
            continue
        seen.add(real)
        for entry in _entries(folder / inner):
            path = f"{inner}/{entry.name}" if inner else entry.name
            if entry.is_dir():
                waiting.append(path)
            elif is_image(entry.name):
                found.append(path)
    return sorted(found)


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return os.path.splitext(name)[1].lower() in extensions()  # noqa: PTH122 - a million files, no Path for each


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"Folder {folder} cannot be read: {error.strerror}.") from None


def _has_images(folder: Path) -> bool:
    return any(is_image(entry.name) and entry.is_file() for entry in _entries(folder))


def _classes(folder: Path) -> list[str]:
    names = subfolders(folder)
    if not names:
        loose = " It holds images without labels: source 'photos' is for those." if _has_images(folder) else ""
        raise DataError(f"{folder} has no class folders; expected one folder of images for each class.{loose}")
    if len(names) == 1:
        raise DataError(f"{folder} has one class only, '{names[0]}'; a classifier needs at least 2 class folders.")
    return names


def _collect(folder: Path, classes: Sequence[str], complete: bool = True) -> FileSet:
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = image_files(folder / name) if complete or (folder / name).is_dir() else []
        if complete and not found:
            raise DataError(f"Class '{name}' is empty: {folder / name} holds no images.{_others(folder / name)}")
        files += [f"{name}/{file}" for file in found]
        labels += [label] * len(found)
    return FileSet(folder, files, torch.tensor(labels, dtype=torch.int64), classes)


def _others(folder: Path) -> str:
    others = sorted(entry.name for entry in _entries(folder) if entry.is_file())
    return f" Its {len(others)} files, such as {others[0]}, are of no known image format." if others else ""
