"""What a run must find again, and what tells its results from those of another: its data and its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from counterpoise import config
from counterpoise.data import contents, order
from counterpoise.data.sources.base import ImageSet
from counterpoise.system import own_code
from counterpoise.teachers.identity import PRECISION, WEIGHTS, Identity

CODE = "code."
"""Before the keys of a run file that name code of the user's own."""


def identify(train: ImageSet, val: ImageSet, teacher: Identity, data: config.Data) -> dict[str, str]:
    """Fingerprints of both halves of the data, and who the teacher is, in one flat mapping.

    Precision is left out: the run file has it, and a store may have been recorded in another.

    Args:
        train, val: as their source gives them.
        data: of the run file, which says what of them counts.
    """
    found = {"data": train.fingerprint(), "val": val.fingerprint()}
    for part, images in (("data", train), ("val", val)):
        if (sample := contents.sample(images)) is not None:
            found[f"{part}.sample"] = sample
    if (shards := order.identity(train, data)) is not None:
        found["order"] = shards
    for part, value in teacher.items():
        if part == WEIGHTS:
            found["teacher"] = value
        elif part != PRECISION:
            found[f"teacher.{part}"] = value
    return found


def own(run: config.Run) -> dict[str, str]:
    """What a run computes with of the user's own code, beside that of its teacher: a hash for each key that names some.

    Where it changes while a run goes on, the hashes are joined by `+`.
    """
    found = {}
    for key, name in own_code.named_code(run):
        if not key.startswith(("teacher.", "data.")):
            with suppress(OSError):  # said by who runs it
                found[f"{CODE}{key}"] = own_code.digest(name)
    return found


def other_code(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """The keys that name code which is another one there than here; what either does not know is not looked at."""
    keys = [key for key in here if key.startswith(CODE) and key in there]
    return [key.removeprefix(CODE) for key in keys if there[key].split("+")[-1] != here[key]]


def other_data(there: Mapping[str, str], here: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What of the data is another there than here, with two hashes that differ: `data`, `val` or `order`.

    What either does not know is not looked at: earlier versions noted the fingerprint of the training images alone.
    """
    found: dict[str, tuple[str, str]] = {}
    for part in ("data", "val", "order"):
        for key in (part, f"{part}.sample"):
            if key in there and key in here and there[key] != here[key]:
                found.setdefault(part, (there[key], here[key]))
    return found
