"""What some files of a set hold: names and sizes alone do not tell pictures without compression apart."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from counterpoise.data.sources.base import ImageSet
from counterpoise.errors import CounterpoiseError
from counterpoise.system.files import regular

SAMPLED, SAMPLED_BYTES = 32, 2**18
"""Files of a set whose beginnings are looked at, and how much of each."""


def sample(images: ImageSet) -> str | None:
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
