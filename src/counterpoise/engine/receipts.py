"""The receipt in a run's folder: read, and beside what lies there. `deploy.receipts` makes it and follows all of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ValidationError

from counterpoise.errors import RunError
from counterpoise.system import documents
from counterpoise.system.files import named, sha256_of

RECEIPT, VERSION = "receipt.json", 1
WAY_OUT = "counterpoise receipt RUN writes one"


class Receipt(BaseModel):
    """What a receipt states.

    Attributes:
        receipt: its version.
        files: SHA-256 of run file, student and exports, by place in the run's folder.
        made_of: fingerprints of the data, and who the teacher is, as `identity.json` has them.
        store: SHA-256 of the index of the teacher store that the run file names; None where it names none.
        architecture: of the student.
        last: scores after the last epoch.
        again: the command that makes the run again: in its folder, or, where the run file has paths that are no whole
            ones, with a copy of it in the folder from which they lead.
        paragraph: all of it in words.
    """

    receipt: int
    files: dict[str, str]
    made_of: dict[str, str]
    store: str | None
    architecture: str
    steps: int
    last: dict[str, float]
    again: str
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
    for name in stated.files:
        if not (home / name).resolve().is_relative_to(home):
            raise RunError(f"{path} names {name!r:.80}, which does not lie in its folder.")
    return stated


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
