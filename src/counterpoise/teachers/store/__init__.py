"""The teacher, asked once: logits of all classes for exactly the views that a student sees, kept on disk."""

from counterpoise.teachers.store.codecs import PRECISIONS
from counterpoise.teachers.store.format import Chunk, Header
from counterpoise.teachers.store.operations import Damage, info, merge, prune, verify
from counterpoise.teachers.store.reader import Recorded, Resident, Store
from counterpoise.teachers.store.writer import StoreWriter

__all__ = [
    "PRECISIONS",
    "Chunk",
    "Damage",
    "Header",
    "Recorded",
    "Resident",
    "Store",
    "StoreWriter",
    "info",
    "merge",
    "prune",
    "verify",
]
