"""Images that lie in files below one folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from counterpoise.data.images import header_size, pixels_of, spacing
from counterpoise.data.sources.base import ImageSet


class FileSet(ImageSet):
    """Image files below one folder, read when asked.

    Args:
        root: the folder.
        files: their paths relative to it.
    """

    def __init__(self, root: Path, files: Sequence[str], labels: Tensor, classes: Sequence[str]) -> None:
        super().__init__(labels, classes)
        self.origin = str(root)
        self.root = root
        self.files = tuple(files)

    def name(self, index: int) -> str:
        return os.fspath(self.root / self.files[index])

    def read(self, index: int) -> Tensor:
        return pixels_of(self.root / self.files[index], reading=self.reading)

    def file(self, index: int) -> Path:
        return self.root / self.files[index]

    def extent(self, index: int) -> tuple[int, int]:
        return header_size(self.root / self.files[index], reading=self.reading)

    def spacing(self, index: int) -> tuple[float, float] | None:
        return spacing(self.root / self.files[index], self.files[index])

    def identity(self, index: int) -> bytes:
        try:
            size = (self.root / self.files[index]).stat().st_size
        except OSError:  # said when it is read
            size = -1
        return os.fsencode(self.files[index]) + f" {size}".encode()
