"""What `counterpoise store` does, as functions: stores looked at, checked, extended, made smaller, joined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from counterpoise.engine import inputs, recording
from counterpoise.errors import ConfigError
from counterpoise.teachers.store import Damage, Store, info, merge, prune, verify

__all__ = ["Damage", "extend", "info", "merge", "prune", "verify"]


def extend(
    run: inputs.RunLike,
    *,
    out: str | Path | None = None,
    epochs: int | None = None,
    show: bool = False,
    **modules: Any,
) -> dict[str, Any]:
    """Record further epochs into a store.

    Args:
        run: that the store was recorded for, as for `record`.
        out: folder of the store; default: the run's `out`.
        epochs: of how many epochs views are there in the end; default: train.epochs.
        show: progress on stderr.
        modules: student, teacher and data, as for `record`.

    Returns:
        What `info` says of the store.

    Raises:
        StoreError: there is no finished store, or it is of another run.
    """
    resolved = inputs.resolve(run)
    folder = out or resolved.out
    if folder is None:
        raise ConfigError("extend needs --out: the folder of the store.")
    header = Store.open(folder).header
    return recording.record(
        resolved, out=folder, views=header.kind, epochs=epochs, precision=header.precision, show=show, **modules
    )
