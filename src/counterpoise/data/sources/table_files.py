"""From the paths in a table to files on this machine."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from counterpoise.data.images import extensions
from counterpoise.data.problems import Problem, of_corrupt
from counterpoise.data.sources.given import folder_of
from counterpoise.system.files import is_file

_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass
class Files:
    """Pictures as a table names them.

    Attributes:
        root: the folder that paths are relative to.
        paths: of each row, relative to root, with slashes; "" where the row names none.
        said: how names were read.
    """

    root: Path
    paths: list[str]
    said: list[str] = field(default_factory=list)

    def missing(self) -> list[int]:
        """The rows whose file is not there."""
        root, is_file = f"{self.root}/", os.path.isfile  # a million files, no Path for each
        return [
            row for row, path in enumerate(self.paths) if path and not is_file(path if path[0] == "/" else root + path)
        ]


def find(table: Path, names: Sequence[str], root: Path | None, suffix: str, option: str = "root") -> Files:
    """The files that a table names: relative to `root`, or to the folder of the table.

    Args:
        root: in the folder of the table or in the working folder.
        suffix: what names lack at their end.
        option: which one has named `root`.

    Raises:
        DataError: both of these folders have such a one.
    """
    folder = table.parent if root is None else folder_of(root, table, option)
    found = Files(folder, [])
    paths = [_path(name, suffix) for name in names] if suffix else list(names)
    turned = next((path for path in paths if "\\" in path and not is_file(folder / path)), None)
    if turned is not None:
        paths = [path.replace("\\", "/") for path in paths]
        found.said.append(f"backslashes in paths, such as {turned}, are read as slashes")
    if any("./" in path or "//" in path for path in paths):
        paths = [_tidy(path) for path in paths]
    if any(path[:1] == "/" for path in paths):
        below = f"{folder.absolute().as_posix()}/"
        paths = [path.removeprefix(below) for path in paths]
        if all(path[:1] in ("/", "") for path in paths):
            # Elsewhere, and all of them: what they share is the folder, so that they may be moved together.
            shared = posixpath.commonpath({posixpath.dirname(path) for path in paths if path})
            found.root = Path(shared)
            paths = [path and path.removeprefix(shared).lstrip("/") for path in paths]
    found.paths = paths
    return found


def of_missing(files: Files, rows: Sequence[int], names: Sequence[str], on_corrupt: str, where: str) -> Problem:
    """What is to be said of pictures that a table names and that are not there."""
    shown = [str(files.root / files.paths[row]) for row in rows]
    what = f"{len(rows):,} of {len(names):,} pictures that {where} names are not there, such as {shown[0]}."
    way_out = _why(files, names[rows[0]], files.paths[rows[0]]) if len(rows) == len(names) else ""
    return of_corrupt(what, way_out or "Bring them, or leave them out: --data.on_corrupt skip.", shown, on_corrupt)


def _why(files: Files, name: str, path: str) -> str:
    """What is probably wrong where no picture is there."""
    if _ADDRESS.match(name):
        return "These are addresses, and nothing is fetched: bring the pictures, and name their files."
    if _DRIVE.match(name):
        return "These are paths of another machine: name files relative to a folder, --data.options.root FOLDER."
    endings = sorted(extensions())
    if found := next((ending for ending in endings if is_file(files.root / f"{path}{ending}")), None):
        return f"With an ending they are: --data.options.suffix {found}."
    return f"Paths are relative to {files.root}; another folder: --data.options.root FOLDER."


def _path(name: str, suffix: str) -> str:
    return name + suffix if name and suffix and not name.lower().endswith(suffix.lower()) else name


def _tidy(path: str) -> str:
    """Without what changes nothing, such as ./ at its beginning."""
    if "./" in path or "//" in path:
        return posixpath.normpath(path)
    return path
