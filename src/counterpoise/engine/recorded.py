"""What a run file says of a teacher of which recorded answers alone are there, held to what their store knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from counterpoise import config
from counterpoise.errors import ConfigError
from counterpoise.system.documents import parse_json
from counterpoise.teachers import identity
from counterpoise.teachers.identity import WEIGHTS, Identity
from counterpoise.teachers.store import Recorded
from counterpoise.teachers.stores_as_one import StoresAsOne


def require_as_recorded(section: config.Imitated, store: Recorded, key: str = "teacher", beside: bool = True) -> None:
    """Raises ConfigError where a section asks for other answers than a store without its network holds.

    Who the teacher of a store of an earlier version is, nobody knows: then nothing is held to it.

    Args:
        key: of the section.
        beside: whether a network may be given beside the store.
    """
    recorded = store.header.identity
    if not identity.whole(recorded):
        return
    fields = type(section).model_fields
    for name, there in _misfits(section, recorded):
        value = getattr(section, name)
        if value == fields[name].get_default(call_default_factory=True):
            continue
        network = "give the network beside it (teacher.checkpoint, teacher.pretrained), " if beside else ""
        raise ConfigError(
            f"{key}.{name}: {_shown(value)}, and the store holds {there}. Recorded answers stay as they are: leave it "
            f"out, {network}or record them anew. The store is {store.name}."
        )


def of_precision(store: Recorded, run: config.Run) -> Iterator[str]:
    """A sentence for each store of a teacher that computed in another precision than the run's would."""
    wanted = "fp32" if run.teacher is None else run.teacher.precision
    for one in store.stores if isinstance(store, StoresAsOne) else [store]:
        held = {"float32": "fp32", "bfloat16": "bf16"}.get(one.header.identity.get(identity.PRECISION, ""))
        if held not in (None, wanted):
            yield f"store {one.name}: its teacher computed in {held}, and teacher.precision is {wanted}: {held} counts"


def _misfits(section: config.Imitated, recorded: Identity) -> Iterator[tuple[str, str]]:
    """The keys that do not say what was recorded, or of which nobody can see it, and what was; whatever they are."""
    architecture, normalization = recorded.get("architecture", ""), recorded["normalization"]
    held = _arguments(recorded)
    if section.model is not None and not _same_network(section.model, architecture):
        yield "model", f"answers of {architecture}"
    given = json.loads(json.dumps(section.arguments, default=str))
    if any(name not in held or held[name] != value for name, value in given.items()):
        yield "arguments", f"answers of a network with arguments {json.dumps(held)}"
    if section.mean and not normalization.startswith(f"mean {identity.numbers(section.mean)}, std"):
        yield "mean", f"answers to pictures with {normalization}"
    if section.std and not normalization.endswith(f", std {identity.numbers(section.std)}"):
        yield "std", f"answers to pictures with {normalization}"
    if f"{section.input_size} pixels" != recorded.get("input", "").partition(",")[0]:
        yield "input_size", f"answers to pictures of {recorded.get('input')}"
    yield "weights", f"answers of weights sha256 {recorded[WEIGHTS][:12]}..., and nobody sees here which these are"
    mapping = recorded.get("mapping", "")
    yield "classes", f"answers whose classes were taken thus: {mapping}; nobody sees here whether these are the same"
    logarithm = mapping.startswith(identity.LOGARITHM)
    if logarithm != (section.outputs == "probabilities"):
        yield "outputs", "the logarithm of answers" if logarithm else "answers as the network gave them"
    views = held.get("views", 1)
    if isinstance(section, config.Teacher) and section.views != views:
        yield "views", f"answers to {views} of each picture"


def _arguments(recorded: Identity) -> dict[str, Any]:
    try:
        held = parse_json(recorded["arguments"])
    except (LookupError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _same_network(given: str, there: str) -> bool:
    """Whether a name may be that of the network; a module that was handed in is called by its class, whatever that is.

    Files and folders may have moved.
    """
    if identity.is_module(there):
        return True
    moved = ".py:" in given or given.startswith("hf/")
    return Path(given).name == Path(there).name if moved else given == there


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
