"""The one way through folders of pictures: what is looked at, what is left alone, and in which order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from pathlib import Path

from counterpoise.data.class_names import is_number
from counterpoise.data.images import extensions
from counterpoise.errors import DataError

_LEFT_BY_OTHERS = frozenset(
    (
        *("@eadir", "@recycle", "#recycle", "#snapshot", "@tmp"),  # network storage: thumbnails, bins
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini"),
        *("$recycle.bin", "system volume information", "lost+found", "__pycache__"),
    )
)
_OF_CAMERAS = frozenset(
    (
        *(".heic", ".heif", ".hif", ".avif", ".avifs", ".jxl", ".exr"),
        *(".raw", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".orf", ".raf", ".rw2", ".pef", ".srw"),
    )
)
"""Endings of picture formats that may have no decoder here."""


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is no data: hidden, or left there by another program."""
    return name.startswith(".") or name.casefold() in _LEFT_BY_OTHERS


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, unsorted, leftovers left out. Raises DataError where it cannot be read."""
    return [entry for entry in _all(folder) if not is_leftover(entry.name)]


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted as text."""
    return sorted(entry.name for entry in entries(folder) if entry.is_dir())


def image_files(folder: Path, arrays: bool = False, twice: list[str] | None = None) -> list[str]:
    """Paths of all images below a folder, relative to it, sorted as text. Links are followed.

    What links lead to as well is read once: under its own name where it lies in the folder itself, else under that of
    the first link.

    Args:
        arrays: whether .npy files are images, as they are where other than three channels are read.
        twice: links that are left out, because what they lead to is read already, are added to these.
    """
    found: list[str] = []
    seen: set[str] = set()
    waiting, links = [""], list[str]()
    while waiting or links:
        inner = waiting.pop() if waiting else heappop(links)  # whatever the order in which a disk lists them
        real = os.path.realpath(folder / inner)
        if real in seen:
            if twice is not None:
                twice.append(inner)
            continue
        seen.add(real)
        for entry in entries(folder / inner):
            path = f"{inner}/{entry.name}" if inner else entry.name
            if entry.is_dir() and entry.is_symlink():
                heappush(links, path)
            elif entry.is_dir():
                waiting.append(path)
            elif is_image(entry.name) or (arrays and entry.name.lower().endswith(".npy")):
                found.append(path)
    return sorted(found)


def of_links(folder: Path, twice: Sequence[str]) -> list[str]:
    """A word on the links that `image_files` has left out, where there are any."""
    if not twice:
        return []
    return [f"{len(twice):,} links of {folder} lead to folders that are read already, and are left out: {twice[0]}"]


def loose_images(folder: Path) -> list[str]:
    """Names of the images that lie directly in a folder, sorted as text."""
    return sorted(entry.name for entry in entries(folder) if is_image(entry.name) and entry.is_file())


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return os.path.splitext(name)[1].lower() in extensions()  # noqa: PTH122 - a million files, no Path for each


def leftovers(folder: Path) -> list[str]:
    """Files and folders below a folder that others have left there and hold images, relative to it, sorted."""
    found: list[str] = []
    for inner, names, files in os.walk(folder):
        left = [name for name in names if is_leftover(name)]
        found += [os.path.relpath(Path(inner, name), folder) for name in left if _holds_images(Path(inner, name))]
        found += [os.path.relpath(Path(inner, name), folder) for name in files if is_leftover(name) and is_image(name)]
        names[:] = [name for name in names if name not in left]
    return sorted(found)


def unread(folder: Path) -> list[str]:
    """Pictures below a folder, by their names, of formats that cannot be decoded here, relative to it, sorted."""
    endings = _OF_CAMERAS - extensions()
    found: list[str] = []
    for inner, names, files in os.walk(folder):
        names[:] = [name for name in names if not is_leftover(name)]
        others = [name for name in files if os.path.splitext(name)[1].lower() in endings and not is_leftover(name)]  # noqa: PTH122
        found += [os.path.relpath(Path(inner, name), folder) for name in others]
    return sorted(found)


def ordered(names: Iterable[str]) -> list[str]:
    """Names as classes are numbered: by their value where all are whole numbers, else as text."""
    names = list(names)
    if names and all(is_number(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def as_text(classes: Sequence[str]) -> list[str]:
    """Classes in the order that earlier versions had, where that is another one for these; else nothing."""
    text = sorted(classes)
    return text if text != list(classes) and list(classes) == ordered(classes) else []


def of_earlier(classes: Sequence[str]) -> str:
    """The way out for what an earlier version made, where that had these classes in another order; else nothing."""
    if not as_text(classes):
        return ""
    return (
        " Earlier versions had classes that are called by numbers in the order of text: for what they made, give "
        "--data.class_order text."
    )


def _all(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        raise DataError(f"Folder {folder} cannot be read: {error.strerror}.") from None


def _holds_images(folder: Path) -> bool:
    return any(is_image(name) for _, _, files in os.walk(folder) for name in files)
