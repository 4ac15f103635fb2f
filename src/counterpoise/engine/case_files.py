"""The file of scores by case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from counterpoise.errors import ConfigError
from counterpoise.system.files import expanded, write_text
from counterpoise.tasks.scores.table import as_csv


def place(path: Path | str, overwrite: bool) -> Path:
    """Where the file goes. Raises ConfigError where something is there that nobody has said may be replaced."""
    found = expanded(Path(path))
    if found.is_dir():
        raise ConfigError(f"{found} is a folder: by_case is the CSV file itself, such as {found / 'cases.csv'}.")
    if found.exists() and not overwrite:
        raise ConfigError(f"{found} is there already: give --overwrite, or another --by-case.")
    return found


def write(path: Path, report: Mapping[str, Any]) -> None:
    """Write the cases of a report; of masks without a pixel that is known there are none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, as_csv(report.get("cases", [])))
