"""The receipt in a run's folder: read, and beside what lies there. `deploy.receipts` makes it and follows all of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ValidationError

from counterpoise.engine.run_folder import RUN_FILE, STUDENT
from counterpoise.errors import RunError
from counterpoise.models import folder as students
from counterpoise.system import documents
from counterpoise.system.files import named, sha256_of

VERSION = 2
WAY_OUT = "counterpoise receipt RUN writes one"
ALWAYS = (RUN_FILE, *(f"{STUDENT}/{name}" for name in (students.WEIGHTS, students.DESCRIPTION)))
"""Files that each receipt states."""


class Receipt(BaseModel):
    """What a receipt states.

    Attributes:
        receipt: its version. 1 hashed the index of the store as a file, and no export.json.
        files: SHA-256 of run file, student and exports, by place in the run's folder.
        exports: SHA-256 of what each export says of itself, by its place: its export.json but for `verified`, which
            `verify` sets on another machine.
        made_of: fingerprints of the data, and who the teacher is, as `identity.json` has them.
        store: SHA-256 of what the teacher store has, joined by spaces where these are several; None without one.
        architecture: of the student.
        last: scores after the last epoch.
        again: the command that makes the run again: in its folder, or, where the run file has paths that are no whole
            ones, with a copy of it in the folder from which they lead. None where no command does.
        paragraph: all of it in words.
    """

    receipt: int
    files: dict[str, str]
    exports: dict[str, str] = {}
    made_of: dict[str, str]
    store: str | None
    architecture: str
    steps: int
    last: dict[str, float]
    again: str | None
    paragraph: str = ""


def read(path: Path) -> Receipt:
    """A receipt. Raises RunError where it is none, is damaged or newer, or names files that are not in its folder."""
    try:
        values = documents.read_json(path, within=path.parent)
        version = values.get("receipt") if isinstance(values, dict) else None
        if isinstance(version, int) and version > VERSION:
            raise RunError(f"{path} is a receipt of version {version}, and this program knows {VERSION}: update it.")
        stated = Receipt.model_validate(values)
    except (OSError, ValidationError, ValueError):
        raise RunError(f"{path} is no receipt, or is damaged: {WAY_OUT}.") from None
    home = path.parent.resolve()
    for name in (*stated.files, *stated.exports):
        if not _lies_in(home, name):
            raise RunError(f"{path} names {name!r:.80}, which does not lie in its folder.")
    if missing := [name for name in ALWAYS if name not in stated.files]:
        raise RunError(f"{path} states nothing of {', '.join(missing)}, and so is damaged: {WAY_OUT}.")
    return stated


def _lies_in(home: Path, name: str) -> bool:
    try:
        return (home / name).resolve().is_relative_to(home)
    except (ValueError, OSError, RuntimeError):  # a null byte, links in a circle
        return False


def hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of those files of a folder that are there, and are in it wherever links lead."""
    found = {}
    for name in names:
        try:
            found[name] = sha256_of(named(folder, name))
        except OSError:
            continue
    return found


def changed(stated: Receipt, folder: Path) -> list[str]:
    """Files of a run's folder that are others than a receipt states; what is not there is none of them."""
    return [name for name, found in hashes(folder, stated.files).items() if found != stated.files[name]]
