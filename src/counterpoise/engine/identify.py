"""What a run must find again, and what tells its results from those of another: its data and its teacher."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from counterpoise import config
from counterpoise.data import order
from counterpoise.data.sources.base import ImageSet
from counterpoise.errors import CounterpoiseError
from counterpoise.system import own_code
from counterpoise.system.files import regular
from counterpoise.teachers.identity import PRECISION, WEIGHTS, Identity

CODE = "code."
"""Before the keys of a run file that name code of the user's own."""
SAMPLED, SAMPLED_BYTES = 32, 2**18
"""Files of either half whose beginnings are compared, too, and how much of each."""


def identify(train: ImageSet, val: ImageSet, teacher: Identity, data: config.Data) -> dict[str, str]:
    """Fingerprints of both halves of the data, and who the teacher is, in one flat mapping.

    Precision is left out: the run file has it, and a store may have been recorded in another.

    Args:
        train, val: as their source gives them.
        data: of the run file, which says what of them counts.
    """
    found = {"data": train.fingerprint(), "val": val.fingerprint()}
    for part, images in (("data", train), ("val", val)):
        if (sample := _sample(images)) is not None:
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


def _sample(images: ImageSet) -> str | None:
    """A hash of what some files hold; None of a set that lies in memory, whose fingerprint is that of its pixels.

    A fingerprint has names and sizes, and pictures without compression are all of one size.
    """
    digest, seen = hashlib.sha256(), False
    looked_at = range(0, len(images), max(1, -(-len(images) // SAMPLED)))
    images.expect(looked_at)  # what lies far away and cannot be had is said here, once
    for index in looked_at:
        with suppress(CounterpoiseError, OSError):  # what cannot be read is said elsewhere
            if (file := images.file(index)) is not None:
                seen = True
                digest.update(_head(file))
                if images.masked:
                    digest.update(images.read_mask(index).numpy().tobytes())
        digest.update(b"\0")
    return digest.hexdigest() if seen else None


def _head(file: Path | bytes) -> bytes:
    if isinstance(file, bytes):
        return file[:SAMPLED_BYTES]
    with regular(file).open("rb") as opened:
        return opened.read(SAMPLED_BYTES)
