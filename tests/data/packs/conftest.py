"""Packs of real folders of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import counterpoise


@pytest.fixture
def packed(image_folder: Path) -> Path:
    """A pack of `image_folder` in 3 and 2 shards."""
    counterpoise.pack(image_folder, out=image_folder.parent / "pack", shards=3)
    return image_folder.parent / "pack"


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """The function that reads all files below a folder but locks, by their paths."""

    def read(folder: Path) -> dict[str, bytes]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock")
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return read


@pytest.fixture(scope="session")
def flip() -> Callable[[Path, int], None]:
    """The function that flips one bit of a file."""

    def change(path: Path, at: int) -> None:
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)

    return change
