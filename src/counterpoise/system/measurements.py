"""Whose an entry of what `counterpoise measure` wrote is: folders move, and those of two runs are called alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from counterpoise.system.files import named, sha256_of

BESIDE = ("run.py", "reference.safetensors")
"""Files of an export that are not shipped."""
HASHES, SIZES = "sha256", "files"
"""Of an entry: what its files hold, and their bytes, both by name. Earlier versions told sizes alone."""


def hashes_of(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 of each file, by its path in the folder. Raises OSError."""
    return {file.relative_to(folder).as_posix(): sha256_of(file) for file in files}


def is_of(entry: Mapping[str, Any], folder: Path) -> bool:
    """Whether an entry is of the export or student in a folder: its files hold the same.

    An entry without hashes is, where its path leads there, or where files of the same sizes lie in a folder of the same
    name and nothing is left where they were.
    """
    hashes, sizes = entry.get(HASHES), entry.get(SIZES)
    try:
        if isinstance(hashes, Mapping) and hashes:
            return all(sha256_of(named(folder, str(name))) == value for name, value in hashes.items())
        path = Path(str(entry.get("name", "")))
        if path.resolve() == folder.resolve():
            return True
        if path.name != folder.resolve().name or path.exists() or not isinstance(sizes, Mapping) or not sizes:
            return False
        return all(named(folder, str(name)).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False
