"""What a run must find again, and what tells its results from those of another: its data and its teacher."""

from __future__ import annotations

from counterpoise import config
from counterpoise.data import sources
from counterpoise.data.sources.base import ImageSet
from counterpoise.teachers.identity import PRECISION, WEIGHTS, Identity


def identify(train: ImageSet, val: ImageSet, teacher: Identity) -> dict[str, str]:
    """Fingerprints of both halves of the data, and who the teacher is, in one flat mapping.

    Precision is left out: the run file has it, and a store may have been recorded in another.
    """
    found = {"data": train.fingerprint(), "val": val.fingerprint()}
    for part, value in teacher.items():
        if part == WEIGHTS:
            found["teacher"] = value
        elif part != PRECISION:
            found[f"teacher.{part}"] = value
    return found


def present(run: config.Run) -> dict[str, str]:
    """The same of a run as its data and its teacher are now, without training it.

    Raises CounterpoiseError where they cannot be read.
    """
    import torch

    from counterpoise.engine.assemble import build_teacher, has_weights, open_store
    from counterpoise.teachers import identity

    splits = sources.load(run.data)
    teacher: Identity = {}
    if run.teacher is not None and (has_weights(run) or run.teacher.store is None):
        teacher = identity.of(build_teacher(run, splits.train.classes), torch.float32)
    elif run.teacher is not None:
        store = open_store(run)
        teacher = store.header.identity if store is not None else {}
    return identify(splits.train, splits.val, teacher)
