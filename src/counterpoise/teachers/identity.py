"""Who a teacher is: all that its answers depend on, by name and in words, as stores and checkpoints keep it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from counterpoise.models.prompts import network
from counterpoise.system import own_code

if TYPE_CHECKING:
    import torch

    from counterpoise.models.network import VisionModel

Identity = Mapping[str, str]
WEIGHTS, PRECISION = "weights", "computed_in"
PARTS: dict[str, tuple[str, str]] = {
    WEIGHTS: ("weights", "teacher.checkpoint, teacher.pretrained"),
    "architecture": ("architecture", "teacher.model"),
    "arguments": ("arguments", "teacher.arguments"),
    "normalization": ("normalization", "teacher.mean, teacher.std"),
    "input": ("input size", "teacher.input_size"),
    "mapping": ("classes", "teacher.classes"),
    "code": ("code", "the file in teacher.model"),
    "imports": ("code beside it", "the files that the one in teacher.model imports"),
    "prompts": ("prompts", "teacher.prompts"),
    "words": ("encoder of words", "teacher.model, teacher.prompts"),
    "calibration": ("calibration", "teacher.calibrate"),
    PRECISION: ("precision", "teacher.precision"),
}
"""What each part is called, and which keys of a run file say it."""
LOGARITHM = "logarithm of "
"""Before the classes of a network that answers probabilities."""
_LONGEST = 80  # letters of a mapping that is shown as it is


def of(model: VisionModel, precision: torch.dtype) -> dict[str, str]:
    """The identity of a network that answers in this precision."""
    found = {
        WEIGHTS: model.weights_hash(),
        "architecture": model.name,
        "arguments": json.dumps(model.arguments, sort_keys=True, default=str),
        "normalization": _normalization(model),
        "input": _input(model),
        "mapping": _mapping(model),
        PRECISION: str(precision).removeprefix("torch."),
    }
    if model.outputs == "probabilities":
        found["mapping"] = f"{LOGARITHM}{found['mapping']}"
    if (words := network.by_prompts(model)) is not None:
        found |= words.identity()
    path, colon, function = model.name.rpartition(":")
    if path.endswith(".py"):
        # Files that were moved are the same ones.
        found |= {
            "architecture": f"{Path(path).name}{colon}{function}",
            "code": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        }
        if beside := own_code.imported(model.name):
            found["imports"] = hashlib.sha256(beside).hexdigest()
    return found


def differences(there: Identity, here: Identity, *, but: str = "") -> list[tuple[str, str, str]]:
    """The parts that both know and that differ: what each is called, and both values; `but` is not looked at."""
    found = []
    for part, (name, _) in PARTS.items():
        if part == but or part not in there or part not in here or there[part] == here[part]:
            continue
        # A module that was handed in is called by its class, whatever a run file calls it.
        if part == "architecture" and (is_module(there[part]) or is_module(here[part])):
            continue
        found.append((name, _shown(part, there[part]), _shown(part, here[part])))
    return found


def keys(there: Identity, here: Identity) -> str:
    """The keys of a run file that say what differs."""
    return ", ".join(where for part, (_, where) in PARTS.items() if there.get(part, "") != here.get(part, ""))


def whole(identity: Identity) -> bool:
    """Whether more than the weights is known, as earlier versions kept it."""
    return "normalization" in identity


def is_module(name: str) -> bool:
    """Whether a network is called so by its class, since it was handed in."""
    return ":" in name and ".py:" not in name and "/" not in name


def _shown(part: str, value: str) -> str:
    return f"sha256 {value[:12]}..." if part in (WEIGHTS, "code", "imports", "words") else value


def numbers(values: Sequence[float]) -> str:
    """Means or deviations as an identity has them."""
    return ", ".join(str(value) for value in np.asarray(values, dtype=np.float32))


def _normalization(model: VisionModel) -> str:
    mean, std = (numbers(values.flatten().tolist()) for values in (model.mean, model.std))
    return f"mean {mean}, std {std}"


def _input(model: VisionModel) -> str:
    if model.input_size is None:
        return "as images come"
    return f"{model.input_size} pixels" + (", padded" if model.fit == "pad" else "")


def _mapping(model: VisionModel) -> str:
    """Which of the network's own logits each answer is made of."""
    from counterpoise.models.classmap import ClassSelection

    if model.selection is None:
        return "as they are"
    chain = [part for part in model.selection.modules() if isinstance(part, ClassSelection)]
    groups = [
        [[index for index, pad in zip(*row, strict=True) if not pad] for row in zip(*both, strict=True)]
        for part in chain
        for both in [(part.index.tolist(), part.padding.tolist())]
    ]
    text = " then ".join(
        ", ".join(str(group[0]) if len(group) == 1 else "+".join(map(str, group)) for group in chosen)
        for chosen in groups
    )
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST // 2]}... (sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]})"
