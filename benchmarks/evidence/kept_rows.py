"""Rows of a CSV in benchmarks/results, added as runs finish: what is there is not run again, nor on other machines."""

from __future__ import annotations

import csv
import fcntl
import io
from collections.abc import Mapping
from pathlib import Path

import torch

from counterpoise.system.machine import device_name

Value = str | int | float


class KeptRows:
    """Of one table. Several processes may add to it at once.

    Args:
        path: of the CSV.
        command: that makes it, kept in each row beside the machine.
    """

    def __init__(self, path: Path, command: str) -> None:
        self.path = path
        self.origin = {"machine": device_name(torch.device("cpu")), "command": command}

    def rows(self, **known: Value) -> list[dict[str, Value]]:
        """Those of which all this is true; numbers are numbers again."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            found = [{key: _number(value) for key, value in row.items()} for row in csv.DictReader(file)]
        return [row for row in found if all(row[key] == _number(str(value)) for key, value in known.items())]

    def add(self, *rows: Mapping[str, Value]) -> None:
        """Append; all rows of a table have the same columns."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = io.StringIO()
            table = csv.DictWriter(text, [*rows[0], *self.origin], lineterminator="\n")
            if file.seek(0, io.SEEK_END) == 0:
                table.writeheader()
            table.writerows({**row, **self.origin} for row in rows)
            file.write(text.getvalue())


def _number(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
