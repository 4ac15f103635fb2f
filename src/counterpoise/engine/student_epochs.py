"""The student of another epoch of its run than the one that ships: of the last or of the best."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any, Literal, cast, get_args

from safetensors.torch import save
from torch import Tensor

from counterpoise.errors import ConfigError, ModelError, unknown
from counterpoise.models import checkpoint, folder, two_heads

Epoch = Literal["last", "best"]


def read_epoch(path: Path, epoch: str | None) -> tuple[folder.Description, bytes]:
    """Description and weights file of a student folder, as `folder.read`; with `epoch`, those of that epoch of its run.

    Raises:
        ConfigError: `epoch` is neither last nor best.
        ModelError: as `folder.read`; the run that kept the weights is not around the folder, or has them no more.
    """
    description, content = folder.read(path)
    if epoch is None:
        return description, content
    if epoch not in get_args(Epoch):
        raise ConfigError(f"epoch: {unknown('Epoch', epoch, get_args(Epoch))}")
    if epoch == folder.shipped_epoch(description.provenance):
        return description, content
    weights = _weights(path, epoch)
    heads = description.provenance.get("heads")
    mixed = {name: mix for name, mix in heads.items() if isinstance(mix, dict)} if isinstance(heads, dict) else {}
    if mixed:  # the mixture of two heads was chosen after the weights of the epoch had been written
        two_heads.put(weights, mixed.get(epoch) or mixed["last"])
    content = save(weights, metadata={"format": "pt"})
    update = {
        "weights_sha256": hashlib.sha256(content).hexdigest(),
        "provenance": {**description.provenance, "epoch": _epoch_provenance(description, epoch)},
        "promise": None,  # which holds for the weights that chose it
        "scene_promise": None,
    }
    return description.model_copy(update=update), content


def epoch_of_weights(student: Path, weights_sha256: str) -> Epoch | None:
    """The epoch of a run that has these weights; None where the student that ships has them, or none has."""
    path = folder.find(student)
    if folder.read(path)[0].weights_sha256 == weights_sha256:
        return None
    for epoch in get_args(Epoch):
        with contextlib.suppress(ModelError):
            if read_epoch(path, epoch)[0].weights_sha256 == weights_sha256:
                return cast(Epoch, epoch)
    return None


def _weights(path: Path, epoch: str) -> dict[str, Tensor]:
    file = path.parent / "checkpoints" / f"{epoch}.safetensors"
    if path.name != folder.STUDENT or not (path.parent / "run.yaml").is_file():
        raise ModelError(
            f"{path} holds one student and does not lie in its run, which has those of both epochs: name the run."
        )
    if not file.is_file():
        raise ModelError(f"The weights of the {epoch} epoch are gone: there is no {file}.")
    return {name: value.contiguous().clone() for name, value in checkpoint.read(file).held.state.items()}


def _epoch_provenance(description: folder.Description, epoch: str) -> dict[str, Any]:
    """What provenance says of the epoch, for the other one."""
    shipped = description.provenance.get("epoch")
    number = (description.metrics.get(epoch) or {}).get("epoch")
    return {**(shipped if isinstance(shipped, dict) else {}), "ships": epoch, "number": number}
